"""What is remembered of a connection that acknowledges nothing."""

from types import SimpleNamespace

import pytest
from support.events import OPENED, event, track

from pipeline.sinks import unconfirmed
from pipeline.sinks.unconfirmed import MAX_EVENTS, Unconfirmed


def test_what_a_server_that_hung_may_not_have_read_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(unconfirmed, "time", SimpleNamespace(monotonic=lambda: now_s))
    events = [event(OPENED, track(number)) for number in range(MAX_EVENTS + 10)]
    sent = Unconfirmed()
    sent.sent(events[:2])
    now_s = 40.0
    sent.is_alive()
    assert sent.events() == events[:2], "a server may hang for long before it dies"
    sent.sent(events[:1])
    now_s = 70.0
    sent.is_alive()
    assert sent.events() == events[:1], "sent again: begins anew"
    sent.forget(events[:1])
    sent.sent(events)
    assert sent.events() == events[10:], "bounded"
