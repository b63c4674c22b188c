"""The MQTT sink against a real broker: events at least once and in order, states, discovery, the last will."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from support import certificates
from support.events import ENDED, LABELLED, OPENED, event, ids, track, until
from support.mosquitto import Broker, Listener, needs_mosquitto
from support.program import REPOSITORY

from pipeline.config.models import Config
from pipeline.sinks import mqtt
from pipeline.sinks.configured import configured_sinks
from pipeline.sinks.outbox import Outbox
from pipeline.store.reader import StoreReader
from pipeline.store.store import Store
from pipeline.types import Cause, Event, EventKind, Severity, TrackState

pytestmark = needs_mosquitto

FAST_S = (0.01, 0.05)
soon = partial(until, timeout_s=30.0)
JPEG = b"\xff\xd8 a snapshot \xff\xd9"


def site(folder: Path, broker: Broker, login: str = "", **settings: object) -> Config:
    scheme = "mqtts" if "tls" in settings else "mqtt"
    entry = {"type": "mqtt", "url": f"{scheme}://{login}127.0.0.1:{broker.port}"} | settings
    cameras = [{"id": name, "uri": "demo:scene"} for name in ("north", "gate")]
    return Config.model_validate({"cameras": cameras, "run_dir": folder, "sinks": [entry]})


def outbox_of(config: Config) -> Outbox:
    return Outbox(config.store_path, configured_sinks(config), FAST_S)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path) as broker:
        yield broker


def heard_ids(listener: Listener, topic: str = "dasnet/north/event") -> list[str]:
    return [json.loads(payload)["id"] for payload in listener.heard(topic)]


def alert(number: int) -> tuple[Event, Event]:
    opened = event(OPENED, track(number), alert=f"A{number}")
    return opened, event(ENDED, track(number, state=TrackState.LOST), alert=opened.alert)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_events_snapshots_and_states(tmp_path: Path, store: Store, broker: Broker, version: str) -> None:
    opened, ended = alert(1)
    opened = msgspec.structs.replace(opened, snapshot="A1.jpg")
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "A1.jpg").write_bytes(JPEG)
    down = event(EventKind.CAMERA_DOWN, camera="gate", severity=Severity.WARNING)
    blind = event(EventKind.CAMERA_BLIND, camera="gate", cause=Cause.FROZEN)
    up = event(EventKind.CAMERA_UP, camera="gate")
    with Listener(broker) as listener:
        outbox = outbox_of(site(tmp_path, broker, version=version))
        soon(lambda: listener.heard("dasnet/status") == ["online"])
        soon(lambda: listener.heard("dasnet/gate/alert") == ["OFF"])
        store.append([opened])
        outbox.wake()
        soon(lambda: listener.heard("dasnet/north/alert") == ["OFF", "ON", "ON"])
        store.append([ended, down, blind, up])
        outbox.wake()
        soon(lambda: outbox.backlog() == {"mqtt": 0})
        outbox.stop()
        soon(lambda: listener.heard("dasnet/status") == ["online", "offline"])
        assert heard_ids(listener) == ids([opened, ended])
        assert heard_ids(listener, "dasnet/gate/event") == ids([down, blind, up])
        assert [m.payload for m in listener.messages if m.topic == "dasnet/north/snapshot"] == [JPEG]
        assert listener.heard("dasnet/north/alert")[-1] == "OFF"
        assert listener.heard("dasnet/gate/problem") == ["OFF"], "as the store has it"
    with Listener(broker) as late:
        soon(lambda: len(late.messages) == 3)
        assert {message.topic for message in late.messages} == {
            "dasnet/status",
            "homeassistant/device/dasnet_north/config",
            "homeassistant/device/dasnet_gate/config",
        }
        assert all(message.retained for message in late.messages)


def test_a_short_alert_is_said_even_if_it_has_ended_since(tmp_path: Path, store: Store, broker: Broker) -> None:
    with Listener(broker) as listener:
        outbox = outbox_of(site(tmp_path, broker))
        soon(lambda: listener.heard("dasnet/north/alert") == ["OFF"])
        store.append(alert(1))
        outbox.wake()
        soon(lambda: listener.heard("dasnet/north/alert") == ["OFF", "ON", "OFF"])
        outbox.stop()


def test_home_assistant_finds_the_cameras_and_again_after_its_start(
    tmp_path: Path, store: Store, broker: Broker
) -> None:
    with Listener(broker) as listener:
        outbox = outbox_of(site(tmp_path, broker, topic="site/a b".replace(" ", "-"), cameras=["north"]))
        topic = "homeassistant/device/site_a-b_north/config"
        soon(lambda: len(listener.heard(topic)) == 1)
        device = json.loads(listener.heard(topic)[0])
        parts = device["components"]
        assert {name: part["platform"] for name, part in parts.items()} == {
            "alert": "binary_sensor", "problem": "binary_sensor", "event": "event", "snapshot": "image",
        }  # fmt: skip
        assert parts["snapshot"]["image_topic"] == "site/a-b/north/snapshot"
        assert parts["event"]["event_types"] == list(EventKind)
        assert device["availability_topic"] == "site/a-b/status"
        assert len({part["unique_id"] for part in parts.values()}) == 4
        soon(lambda: listener.heard("site/a-b/north/alert") == ["OFF"])
        store.append(alert(1)[:1])
        outbox.wake()
        soon(lambda: listener.heard("site/a-b/north/alert") == ["OFF", "ON", "ON"])
        listener.birth()
        soon(lambda: len(listener.heard(topic)) == 2)
        soon(lambda: listener.heard("site/a-b/north/alert") == ["OFF", "ON", "ON", "ON"])
        assert not listener.heard("homeassistant/device/site_a-b_gate/config"), "filtered"
        outbox.stop()


def test_a_reload_announces_new_cameras_at_once_and_takes_back_those_that_it_removes(
    tmp_path: Path, store: Store, broker: Broker
) -> None:
    before = site(tmp_path, broker)
    roof = Config.model_validate(
        {"cameras": [{"id": "north", "uri": "demo:scene"}, {"id": "roof", "uri": "demo:scene"}]}
    )
    with Listener(broker) as listener:
        quiet = site(tmp_path, broker, name="quiet", topic="quiet", discovery=None)
        both = [*configured_sinks(quiet), *configured_sinks(before)]
        outbox = Outbox(before.store_path, both, FAST_S)
        device = "homeassistant/device/dasnet_{}/config".format
        soon(lambda: len(listener.heard(device("north"))) == len(listener.heard(device("gate"))) == 1)
        for sink in both:
            sink.watch(before.with_cameras_of(roof))
        soon(lambda: len(listener.heard(device("roof"))) == 1)
        soon(lambda: listener.heard("dasnet/roof/alert") == listener.heard("quiet/roof/alert") == ["OFF"])
        soon(lambda: listener.heard(device("gate"))[1:] == [""])
        store.append([event(LABELLED, track(1, label="bird"), camera="roof")])
        outbox.wake()
        soon(lambda: len(listener.heard("quiet/roof/event")) == 1)
        outbox.stop()
        assert not [message for message in listener.messages if "quiet" in message.topic and "device" in message.topic]
    with Listener(broker) as late:
        soon(lambda: len(late.messages) == 4)  # two states, two devices
        assert not late.heard(device("gate"))


def test_a_broker_that_is_killed_gets_everything_in_order(
    tmp_path: Path, store: Store, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "ACKNOWLEDGE_TIMEOUT_S", 0.5)
    events = [alert(number)[0] for number in range(60)]
    with Listener(broker) as listener:
        outbox = outbox_of(site(tmp_path, broker))
        for start in range(0, 60, 20):
            store.append(events[start : start + 10])
            outbox.wake()
            soon(lambda start=start: events[start].id in heard_ids(listener))
            broker.kill()
            store.append(events[start + 10 : start + 20])
            outbox.wake()
            soon(lambda: bool(outbox.failures()))
            assert "127.0.0.1" in outbox.failures()["mqtt"]
            broker.start()
            listener.again()
            soon(lambda: outbox.backlog() == {"mqtt": 0})
        outbox.stop()
        heard = list(dict.fromkeys(heard_ids(listener)))
        # What the broker took before this listener had subscribed again is not heard.
        assert heard == [event_id for event_id in ids(events) if event_id in heard]
    with StoreReader(tmp_path / "store.sqlite") as reader:
        assert reader.cursor("mqtt") == reader.last_row()


def test_a_wrong_password_is_named_and_a_right_one_with_tls_works(tmp_path: Path, store: Store) -> None:
    files, secret = certificates.made(tmp_path), "correct-horse-7"
    with Broker(tmp_path, "dasnet", secret, files) as broker:
        tls = {"ca": files.certificate}
        right = site(tmp_path, broker, name="right", login=f"dasnet:{quote(secret)}@", tls=tls)
        wrong = site(tmp_path, broker, name="wrong", login="dasnet:swordfish-99@", tls=tls)
        plain = site(tmp_path, broker, name="plain", login=f"dasnet:{quote(secret)}@")
        unknown = site(tmp_path, broker, name="unknown", login=f"dasnet:{quote(secret)}@", tls={})
        sinks = [sink for config in (right, wrong, plain, unknown) for sink in configured_sinks(config)]
        outbox = Outbox(right.store_path, sinks, FAST_S)
        store.append(alert(1))
        outbox.wake()
        soon(lambda: outbox.backlog() == {"right": 0, "wrong": 2, "plain": 2, "unknown": 2})
        soon(lambda: len(outbox.failures()) == 3)
        failures = outbox.failures()
        outbox.stop(0.1)
    assert "connection refused (Not authorized)" in failures["wrong"]
    assert "self-signed certificate" in failures["unknown"]
    assert "no answer" in failures["plain"] or "cannot connect" in failures["plain"]
    assert secret not in str(failures) and "swordfish" not in str(failures)


WORKER = """
import sys
from pathlib import Path
from support.events import OPENED, event, track
from pipeline.config.models import Config
from pipeline.sinks import mqtt
from pipeline.sinks.configured import configured_sinks
from pipeline.sinks.outbox import Outbox
from pipeline.store.store import Store
folder, port = Path(sys.argv[1]), int(sys.argv[2])
sinks = [{"type": "mqtt", "url": f"mqtt://127.0.0.1:{port}"}]
config = Config.model_validate({"cameras": [{"id": "north", "uri": "demo:scene"}], "run_dir": folder, "sinks": sinks})
store = Store(config.store_path)
outbox = Outbox(config.store_path, configured_sinks(config), (0.01, 0.05))
for line in sys.stdin:
    store.append([event(OPENED, track(int(line)), alert=f"A{line}")])
    outbox.wake()
"""


def test_killed_amid_deliveries_it_loses_nothing_and_its_last_will_is_said(tmp_path: Path, broker: Broker) -> None:
    config = site(tmp_path, broker)
    with Listener(broker) as listener:
        outbox_of(config).stop()  # it begins now
        listener.messages.clear()
        for run in range(3):
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(tmp_path), str(broker.port)],
                stdin=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
            )
            assert process.stdin
            process.stdin.write("".join(f"{100 * run + number}\n" for number in range(100)))
            process.stdin.flush()
            wanted = len(set(heard_ids(listener))) + 20
            soon(lambda wanted=wanted: len(set(heard_ids(listener))) > wanted)
            process.kill()
            process.wait()
            process.stdin.close()
            soon(lambda: listener.heard("dasnet/status")[-1] == "offline")
        outbox_of(config).stop(20)
        with StoreReader(config.store_path) as reader:
            stored = [item.event.id for item in reader.events(10**6)]
        soon(lambda: set(heard_ids(listener)) == set(stored))
        assert list(dict.fromkeys(heard_ids(listener))) == stored
