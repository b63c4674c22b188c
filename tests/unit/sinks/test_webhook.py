"""The webhook sink against a real server: every event arrives in order, duplicates have one id, none is held up."""

import hashlib
import hmac
import json
import logging
import random
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from support import certificates
from support.events import CONFIRMED, LABELLED, LOST, event, ids, track, until
from support.program import REPOSITORY
from support.receiver import Receiver

from pipeline.config.sinks import WebhookSinkConfig
from pipeline.sinks import delivery
from pipeline.sinks.cloudevents import event_schema
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.webhook import WebhookSink
from pipeline.store.reader import StoreReader
from pipeline.store.store import Store
from pipeline.telemetry.metrics import families
from pipeline.telemetry.sinks import SinkMetrics
from pipeline.types import Event, Severity

jsonschema = pytest.importorskip("jsonschema", reason="needs check-jsonschema: make test")

FAST_S = (0.01, 0.05)
soon = partial(until, timeout_s=30.0)
SECRET = "a key of the tests' own"
ATTRIBUTES = {"specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema", "severity"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def webhook(receiver: Receiver, **settings: object) -> WebhookSink:
    entry = {"type": "webhook", "url": receiver.url, "secret": SECRET, "timeout_s": 5.0} | settings
    return WebhookSink(WebhookSinkConfig.model_validate(entry))


def made(count: int, first: int = 0) -> list[Event]:
    return [event(CONFIRMED, track(first + number)) for number in range(count)]


def values(registry: CollectorRegistry) -> dict[str, float]:
    samples = [sample for _, _, samples in families(registry).values() for sample in samples]
    return {sample.name.removeprefix("dasnet_sink_"): sample.value for sample in samples}


def test_one_event_a_request_is_a_signed_cloud_event(path: Path, store: Store, receiver: Receiver) -> None:
    outbox = Outbox(path, [webhook(receiver)])
    events = [*made(2), event(LOST, track(1)), event(LABELLED, track(2, label="bird"))]
    store.append(events)
    outbox.stop()
    assert receiver.accepted == ids(events)
    for request, sent in zip(receiver.requests, events, strict=True):
        assert request.headers["Content-Type"] == "application/cloudevents+json"
        digest = hmac.new(SECRET.encode(), request.body, hashlib.sha256).hexdigest()
        assert request.headers["X-Hub-Signature-256"] == f"sha256={digest}"
        (message,) = request.events
        assert message.keys() == ATTRIBUTES | {"data"}
        assert (message["specversion"], message["type"]) == ("1.0", f"dasnet.{sent.kind}")
        assert (message["source"], message["subject"]) == ("/dasnet/cameras/north", sent.track and sent.track.ulid)
        assert message["time"] == "2026-09-21T14:13:20.000Z"
        assert message["dataschema"] == event_schema()["$id"]
        jsonschema.validate(message["data"], event_schema())


def test_several_a_request_are_a_batch(path: Path, store: Store, receiver: Receiver) -> None:
    outbox = Outbox(path, [webhook(receiver, batch_size=100, secret=None)])
    store.append(made(1))
    outbox.wake()
    soon(lambda: len(receiver.accepted) == 1)
    events = made(250, 1)
    store.append(events)
    outbox.stop()
    assert receiver.accepted[1:] == ids(events)
    assert [len(request.events) for request in receiver.requests] == [1, 100, 100, 50]
    assert {request.headers["Content-Type"] for request in receiver.requests} == {"application/cloudevents-batch+json"}
    assert all(isinstance(json.loads(request.body), list) for request in receiver.requests)
    assert not any("X-Hub-Signature-256" in request.headers for request in receiver.requests)


def test_what_may_succeed_later_is_retried_in_order_and_counted(path: Path, store: Store, receiver: Receiver) -> None:
    receiver.answers.extend([500, 429, 408, 425, 503, "break"])
    registry = CollectorRegistry()
    outbox = Outbox(path, [webhook(receiver)], FAST_S, metrics=SinkMetrics(registry))
    assert len(values(registry)) == 6 and not any(values(registry).values()), "the series exist from the start"
    events = made(5)
    store.append(events)
    outbox.wake()
    soon(lambda: values(registry)["delivered_total"] == 5)
    outbox.stop()
    assert receiver.accepted == ids(events)
    assert values(registry) == {
        "backlog": 0, "delivered_total": 5, "failures_total": 6, "dead_letters_total": 0, "expired_total": 0,
        "lag_seconds": 0,
    }  # fmt: skip


def test_a_server_that_hangs_delays_no_other_sink_and_its_lag_grows(
    path: Path, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.judge = lambda _: "hang"
    registry = CollectorRegistry()
    file = JsonlSink(tmp_path / "events.jsonl")
    outbox = Outbox(path, [webhook(receiver, timeout_s=0.2), file], FAST_S, metrics=SinkMetrics(registry))
    events = made(3)
    store.append(events)
    outbox.wake()
    soon(lambda: outbox.backlog() == {"webhook": 3, file.name: 0})
    soon(lambda: "ReadTimeout" in outbox.failures().get("webhook", ""))
    lags = {sample.labels["sink"]: sample.value for sample in families(registry)["dasnet_sink_lag_seconds"][2]}
    assert lags["webhook"] > 1e6 and lags["jsonl"] == 0, "the events of the tests are months old"
    receiver.judge = lambda _: 204
    soon(lambda: receiver.accepted == ids(events))
    outbox.stop()


def test_an_answer_without_an_end_is_cut_off(path: Path, store: Store, receiver: Receiver) -> None:
    receiver.answers.append("drip")
    outbox = Outbox(path, [webhook(receiver, timeout_s=0.3)], FAST_S)
    store.append(made(2))
    outbox.wake()
    soon(lambda: len(receiver.accepted) == 1)
    soon(lambda: set(outbox.backlog().values()) == {0})
    outbox.stop()


def test_a_server_that_goes_away_and_comes_back(path: Path, store: Store, receiver: Receiver) -> None:
    outbox = Outbox(path, [webhook(receiver, batch_size=2)], FAST_S)
    events = made(9)
    for number, each in enumerate(events):
        store.append([each])
        outbox.wake()
        if number % 3 == 2:
            receiver.go()
            soon(lambda: bool(outbox.failures()) or outbox.backlog() == {"webhook": 0})
            receiver.come()
    soon(lambda: list(dict.fromkeys(receiver.accepted)) == ids(events))
    outbox.stop()


def test_refused_events_go_to_the_dead_letters_alone(path: Path, store: Store, receiver: Receiver) -> None:
    receiver.judge = lambda events: 422 if any(e["data"]["track"]["label"] == "bird" for e in events) else 204
    registry = CollectorRegistry()
    outbox = Outbox(path, [webhook(receiver, batch_size=10, name="ops")], FAST_S, metrics=SinkMetrics(registry))
    events = [event(CONFIRMED, track(n, label="bird" if n in (3, 4) else "uav")) for n in range(8)]
    store.append(events)
    outbox.wake()
    soon(lambda: outbox.backlog() == {"ops": 0} and values(registry)["delivered_total"] == 6)
    outbox.stop()
    assert receiver.accepted == ids([*events[:3], *events[5:]])
    letters = [json.loads(line) for line in (path.parent / "dead-letters" / "ops.jsonl").read_text().splitlines()]
    assert [letter["event"]["id"] for letter in letters] == ids(events[3:5])
    assert letters[0]["reason"] == f"{receiver.url.split('/')[2]} answered 422 Unprocessable Entity; must be 2xx"
    assert values(registry)["dead_letters_total"] == 2
    assert values(registry)["failures_total"] == 1 + 2 * delivery.MAX_REFUSALS, "the batch, then each by itself"
    assert len([r for r in receiver.requests if r.events[0]["id"] == events[4].id]) == delivery.MAX_REFUSALS


def test_a_redirect_is_not_followed(
    path: Path, store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MAX_REFUSALS", 2)
    receiver.answers.extend([307, 307])
    outbox = Outbox(path, [webhook(receiver)], FAST_S)
    events = made(2)
    store.append(events)
    outbox.wake()
    soon(lambda: outbox.backlog() == {"webhook": 0})
    outbox.stop()
    assert receiver.accepted == ids(events[1:]) and len(receiver.requests) == 3


def test_the_filter_of_the_entry(path: Path, store: Store, receiver: Receiver) -> None:
    kinds = ["track.confirmed", "track.lost"]
    sink = webhook(receiver, kinds=kinds, min_severity="warning", cameras=["north"], labels=["uav"])
    outbox = Outbox(path, [sink])
    events = [
        event(CONFIRMED, track(1)),
        event(LABELLED, track(2), severity=Severity.ALARM),
        event(CONFIRMED, track(3), severity=Severity.INFO),
        event(CONFIRMED, track(4), camera="south"),
        event(CONFIRMED, track(5, label="unknown")),
        event(CONFIRMED, track(6), severity=Severity.WARNING),
        event(LOST, track(6)),
    ]
    store.append(events)
    assert outbox.stop() == {"webhook": 0}, "what it does not want counts as delivered"
    assert receiver.accepted == [events[0].id, events[5].id]


def test_a_new_sink_begins_now_and_misses_nothing_from_then_on(path: Path, store: Store, receiver: Receiver) -> None:
    store.append(made(50))
    receiver.go()
    outbox = Outbox(path, [webhook(receiver)], FAST_S)
    soon(lambda: bool(outbox.failures()) or outbox.backlog() == {"webhook": 0})
    events = made(3, 50)
    store.append(events)
    outbox.stop(0.1)
    receiver.come()
    Outbox(path, [webhook(receiver)]).stop()
    assert receiver.accepted == ids(events)


def test_tls_needs_a_certificate_that_is_trusted_and_valid(path: Path, store: Store, tmp_path: Path) -> None:
    def tls(files: certificates.Certificate) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        return context

    good, old = certificates.made(tmp_path), certificates.expired(tmp_path)
    store.append(made(1))
    with Receiver(tls(good)) as server, Receiver(tls(old)) as late:
        trusting = webhook(server, name="trusting", ca=good.certificate)
        unknown = webhook(server, name="unknown")
        expired = webhook(late, name="expired", ca=old.certificate)
        missing = webhook(late, name="missing", ca=tmp_path / "none.pem")
        outbox = Outbox(path, [trusting, unknown, expired, missing], FAST_S)
        store.append(made(1, 1))
        outbox.wake()
        soon(lambda: len(server.accepted) == 1 and len(outbox.failures()) == 3)
        failures = outbox.failures()
        outbox.stop(0.1)
    assert "self-signed certificate" in failures["unknown"] and "certificate has expired" in failures["expired"]
    assert "none.pem: cannot be used as a certificate authority" in failures["missing"]


def test_neither_address_nor_key_is_said_when_it_fails(
    path: Path, store: Store, receiver: Receiver, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING)  # as the program does
    receiver.answers.extend([500, 404, "break", 301, "hang"])
    outbox = Outbox(path, [webhook(receiver, timeout_s=0.2)], FAST_S)
    store.append(made(1))
    outbox.wake()
    soon(lambda: len(receiver.accepted) == 1)
    receiver.go()
    store.append(made(1, 1))
    outbox.wake()
    soon(lambda: "ConnectError" in str(outbox.failures()))
    outbox.stop(0.1)
    texts = "".join(capfd.readouterr()) + caplog.text
    assert all(cause in texts for cause in ("500", "404", "301", "RemoteProtocolError", "ReadTimeout", "ConnectError"))
    assert "s3cr3tT0ken" not in texts and SECRET not in texts


WORKER = """
import sys
from pathlib import Path
from support.events import CONFIRMED, event, track
from pipeline.config.sinks import WebhookSinkConfig
from pipeline.sinks.outbox import Outbox
from pipeline.sinks.webhook import WebhookSink
from pipeline.store.store import Store
path = Path(sys.argv[1])
store = Store(path)
sink = WebhookSink(WebhookSinkConfig(type="webhook", url=sys.argv[2], batch_size=int(sys.argv[3])))
outbox = Outbox(path, [sink], (0.01, 0.05))
for line in sys.stdin:
    store.append([event(CONFIRMED, track(int(line)))])
    outbox.wake()
"""


@pytest.mark.parametrize("batch_size", [1, 7])
def test_killed_amid_deliveries_it_loses_nothing_and_repeats_with_the_same_ids(
    path: Path, receiver: Receiver, batch_size: int
) -> None:
    chance = random.Random(3)
    Outbox(path, [webhook(receiver)]).stop()  # it begins now
    for run in range(3):
        receiver.answers.extend(chance.choices([204, 503, "break"], [20, 1, 1], k=100))
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), receiver.url, str(batch_size)],
            stdin=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        )
        assert process.stdin
        wanted = len(receiver.requests) + chance.randrange(5, 15)
        process.stdin.write("".join(f"{100 * run + number}\n" for number in range(100)))
        process.stdin.flush()
        soon(lambda wanted=wanted: len(receiver.requests) > wanted)
        process.kill()
        process.wait()
        process.stdin.close()
    receiver.answers.clear()
    Outbox(path, [webhook(receiver, batch_size=batch_size)], FAST_S).stop(20)
    with StoreReader(path) as reader:
        stored = [item.event.id for item in reader.events(10**6)]
    assert list(dict.fromkeys(receiver.accepted)) == stored
