"""The notification sink against a real mail server: short texts, the snapshot, retries, and nothing of its address."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.events import ENDED, OPENED, event, track, until

from pipeline.config.sinks import NotifySinkConfig
from pipeline.sinks.outbox import Outbox
from pipeline.store.store import Store
from pipeline.types import Cause, Event, EventKind, Severity

pytest.importorskip("apprise", reason="needs dasnet[notify]")
pytest.importorskip("aiosmtpd", reason="needs aiosmtpd: make test")

from support.mail_server import Mailbox, MailServer
from support.receiver import Receiver

from pipeline.sinks.notify import NotifySink, line, title

FAST_S = (0.01, 0.05)
soon = partial(until, timeout_s=30.0)
JPEG = b"\xff\xd8 a snapshot \xff\xd9"


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def outbox(folder: Path, url: str, **settings: object) -> Outbox:
    entry = NotifySinkConfig.model_validate({"type": "notify", "url": url} | settings)
    return Outbox(folder / "store.sqlite", [NotifySink(entry, folder / "snapshots")], FAST_S)


def alert(folder: Path, number: int, **changes: object) -> Event:
    opened = event(OPENED, track(number), **changes)
    (folder / "snapshots").mkdir(exist_ok=True)
    (folder / "snapshots" / f"{opened.id}.jpg").write_bytes(JPEG + str(number).encode())
    return event(OPENED, track(number), id=opened.id, snapshot=f"{opened.id}.jpg", **changes)


def text(mailbox: Mailbox, number: int) -> str:
    body = mailbox.messages[number].get_body(("plain",))
    assert body is not None
    return str(body.get_content()).strip()


def pictures(mailbox: Mailbox, number: int) -> list[bytes]:
    return [part.get_payload(decode=True) for part in mailbox.messages[number].iter_attachments()]


def test_an_alert_is_a_short_mail_with_its_snapshot(tmp_path: Path, store: Store, server: MailServer) -> None:
    sent = outbox(tmp_path, server.url)
    opened = alert(tmp_path, 33)
    store.append([opened, event(ENDED, track(33))])
    assert sent.stop(30) == {"notify": 0}
    assert len(server.mailbox.messages) == 1, "by default what is information is not sent"
    assert server.mailbox.messages[0]["Subject"] == "ALARM: uav opened, north"
    assert text(server.mailbox, 0) == (
        f"2026-09-21T14:13:20.000Z north: uav opened, track 33, score 0.90 [{opened.id}]"
    )
    assert pictures(server.mailbox, 0) == [JPEG + b"33"]


def test_what_waited_comes_as_one(tmp_path: Path, store: Store, server: MailServer) -> None:
    server.go()
    sent = outbox(tmp_path, server.url)
    events = [alert(tmp_path, number, severity=Severity.WARNING) for number in range(4)]
    store.append(events[:1])
    sent.wake()
    soon(lambda: bool(sent.failures()))
    blind = event(EventKind.CAMERA_BLIND, severity=Severity.WARNING, cause=Cause.FROZEN)
    store.append([*events[1:], event(OPENED, track(9), severity=Severity.ALARM), blind])
    server.come()
    soon(lambda: sent.backlog() == {"notify": 0})
    sent.stop()
    lines = "\n".join(text(server.mailbox, number) for number in range(len(server.mailbox.messages))).splitlines()
    assert [line.rpartition("[")[2].rstrip("]") for line in lines][:4] == [each.id for each in events]
    assert server.mailbox.messages[-1]["Subject"].startswith("ALARM: uav opened, north (+")
    assert lines[-1].startswith("2026-09-21T14:13:20.000Z north: camera blind (frozen) [")


def test_a_refused_one_is_tried_again_without_its_snapshot(tmp_path: Path, store: Store, server: MailServer) -> None:
    server.mailbox.refuses_attachments = True
    sent = outbox(tmp_path, server.url, name="duty")
    store.append([alert(tmp_path, 1)])
    sent.wake()
    soon(lambda: sent.failures() == {"duty": "SinkError: mailto did not accept the notification"})
    soon(lambda: len(server.mailbox.messages) == 1)
    sent.stop()
    assert not pictures(server.mailbox, 0)


def test_an_unknown_service_is_named_without_its_address(tmp_path: Path, store: Store) -> None:
    sent = outbox(tmp_path, "nothing://s3cr3tT0ken")
    soon(lambda: sent.failures() == {"notify": "SinkError: url is not an address that Apprise knows"})
    sent.stop(0.1)


def test_nothing_of_the_address_is_said(tmp_path: Path, store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()  # where a program's other loggers go; pytest's own also hears what does not
    logging.getLogger().addHandler(handler)
    try:
        with Receiver() as receiver:
            receiver.judge = lambda _: 500
            host = receiver.url.split("/")[2]
            sent = outbox(tmp_path, f"json://us3r:s3cr3tT0ken@{host}/pathT0ken99?-=x")
            store.append([alert(tmp_path, 1)])
            sent.wake()
            soon(lambda: len(receiver.requests) > 2)
            receiver.go()
            soon(lambda: bool(sent.failures()))
            sent.stop(0.1)
            receiver.come()
    finally:
        logging.getLogger().removeHandler(handler)
    texts = "".join(capfd.readouterr())
    assert "json did not accept" in texts
    assert not [part for part in ("us3r", "s3cr3tT0ken", "pathT0ken99") if part in texts]


def test_titles_and_lines_are_short() -> None:
    every = [event(kind, track(1) if kind.startswith("track") else None) for kind in EventKind]
    for each in every:
        assert len(title([each])) <= 60 and len(line(each)) <= 120
    assert title(every) == "ALARM: uav confirmed, north (+12)"
