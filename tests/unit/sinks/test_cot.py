"""The Cursor-on-Target sink against a real TAK server: cameras, bearing lines, and never a position of a target."""

import math
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import msgspec
import pytest
from support import certificates
from support.events import ENDED, ESCALATED, LOWERED, OPENED, event, track, until
from support.program import free_port
from support.tak import TakClient, Taky, needs_taky, parsed
from ulid import ULID

from pipeline.config.camera import Pose
from pipeline.config.models import Config
from pipeline.sinks.configured import configured_sinks
from pipeline.sinks.outbox import Outbox
from pipeline.store.reader import StoreReader
from pipeline.store.store import Store
from pipeline.types import Bearing, Cause, Event, EventKind, FrameRef, Position, Severity, Track, TrackState

pytestmark = needs_taky

FAST_S = (0.01, 0.05)
soon = partial(until, timeout_s=30.0)
CAMERA, LINE, TARGET = "b-m-p-s-p-loc", "u-d-f", "a-u-A"
POSE = {"lat": 48.1234567, "lon": 11.7654321, "azimuth_deg": 90, "elevation_deg": 10, "hfov_deg": 40}
EAST = Bearing(90.0, 12.0, 1.5, 1.2)


def site(folder: Path, url: str, cameras: dict[str, object] | None = None, **settings: object) -> Config:
    poses = {"north": POSE, "gate": None} if cameras is None else cameras
    named = [{"id": name, "uri": "demo:scene"} | ({"pose": pose} if pose else {}) for name, pose in poses.items()]
    entry = {"type": "cot", "url": url} | settings
    return Config.model_validate({"cameras": named, "run_dir": folder, "sinks": [entry]})


def outbox_of(*configs: Config) -> Outbox:
    sinks = [sink for config in configs for sink in configured_sinks(config)]
    return Outbox(configs[0].store_path, sinks, FAST_S)


@pytest.fixture
def taky(tmp_path: Path) -> Iterator[Taky]:
    with Taky(tmp_path) as server:
        yield server


def tcp(server: Taky) -> str:
    return f"tcp://127.0.0.1:{server.port}"


def seen(number: int, seq: int = 0, bearing: Bearing | None = EAST, age_s: float = 0.0, **changes: object) -> Track:
    """A track that was seen just now."""
    now_ns = time.time_ns() - round(age_s * 1e9)
    last = FrameRef("north", "s1", seq, seq * 0.04, now_ns, now_ns)
    return msgspec.structs.replace(track(number), bearing=bearing, last_seen=last, **changes)


def opened(number: int, **changes: object) -> Event:
    return event(OPENED, seen(number, **changes), alert=str(ULID()))


def after(first: Event, kind: EventKind, subject: Track | None, **changes: object) -> Event:
    made = event(kind, subject, alert=first.alert, camera=first.camera, **changes)
    return msgspec.structs.replace(made, time_utc_ns=time.time_ns())


def uid(first: Event) -> str:
    return f"dasnet.{first.alert}"


def lines(heard: list[Element], first: Event) -> list[Element]:
    return [each for each in heard if each.get("uid") == uid(first)]


def ns(each: Element, name: str) -> int:
    return round(datetime.fromisoformat(each.get(name) or "").timestamp() * 1000) * 1_000_000


def points(line: Element) -> list[tuple[float, float]]:
    texts = [each.get("point") or "" for each in line.iter("link")]
    return [(float(lat), float(lon)) for lat, lon in (text.split(",") for text in texts)]


def test_cameras_and_lines_reach_others_and_one_that_joins_late_what_is_not_stale(
    tmp_path: Path, store: Store, taky: Taky
) -> None:
    first, second = opened(1, age_s=8.0), opened(2)
    with TakClient(taky) as client:
        outbox = outbox_of(site(tmp_path, tcp(taky), line_m=2000))
        soon(lambda: len(client.heard(CAMERA)) == 1)
        (camera,) = client.heard(CAMERA)
        store.append([first, second])
        outbox.wake()
        soon(lambda: {each.get("uid") for each in client.heard(LINE)} == {uid(first), uid(second)})
        ended = after(first, ENDED, seen(1, state=TrackState.LOST))
        store.append([ended])
        outbox.wake()
        soon(lambda: any(each.get("stale") == each.get("time") for each in lines(client.heard(LINE), first)))
        soon(lambda: time.time_ns() > first.time_utc_ns + 11 * 10**9)  # taky keeps what it had until that is stale
        with TakClient(taky) as late:
            soon(lambda: bool(late.heard(CAMERA) and late.heard(LINE)))
            assert {each.get("uid") for each in late.heard(LINE)} == {uid(second)}
        outbox.stop()
    point, sensor = camera.find("point"), camera.find("detail/sensor")
    assert point is not None and sensor is not None
    assert point.attrib == {
        "lat": "48.123457",
        "lon": "11.765432",
        "hae": "9999999.0",
        "ce": "9999999.0",
        "le": "9999999.0",
    }  # fmt: skip  (taky relays six decimals)
    assert {name: sensor.get(name) for name in ("azimuth", "elevation", "fov", "range", "vfov")} == {
        "azimuth": "90.00", "elevation": "10.00", "fov": "40.00", "range": "2000", "vfov": None,
    }  # fmt: skip
    assert ns(camera, "stale") - ns(camera, "time") == 60_000_000_000
    begun, gone = lines(client.heard(LINE), first)[0], lines(client.heard(LINE), first)[-1]
    assert ns(begun, "time") == ns(begun, "start") == first.time_utc_ns // 1_000_000 * 1_000_000
    assert ns(begun, "stale") - ns(begun, "time") == 10_000_000_000
    assert ns(gone, "stale") == ns(gone, "time") == ended.time_utc_ns // 1_000_000 * 1_000_000
    assert points(begun)[0] == (48.1234567, 11.7654321)
    assert points(begun)[1] == (pytest.approx(48.1234567, abs=1e-4), pytest.approx(11.7654321 + 0.02694, abs=1e-4))
    assert "azimuth 90.0° ± 1.5°, elevation 12.0° ± 1.2°. Distance unknown." in (begun.findtext("detail/remarks") or "")
    assert not [each for each in taky.received() if (each.get("type") or "").startswith("a-u")], "an invented position"


def test_a_line_follows_its_target_and_goes_even_if_the_filter_withholds_the_end(
    tmp_path: Path, store: Store, taky: Taky
) -> None:
    first = opened(1)
    with TakClient(taky) as client:
        outbox = outbox_of(site(tmp_path, tcp(taky), min_severity="alarm"))
        store.append([first])
        outbox.wake()
        soon(lambda: len(client.heard(LINE)) >= 1)
        moved = seen(1, 50, Bearing(180.0, 12.0, 1.5, 1.2))
        store.update_tracks([moved])
        soon(lambda: points(client.heard(LINE)[-1])[1][0] < 48.1234)
        assert ns(client.heard(LINE)[-1], "time") == moved.last_seen.received_utc_ns // 1_000_000 * 1_000_000
        store.append([after(first, ENDED, seen(1, 60, state=TrackState.LOST))])
        outbox.wake()
        soon(lambda: client.heard(LINE)[-1].get("stale") == client.heard(LINE)[-1].get("time"))
        heard = len(client.heard(LINE))
        outbox.stop()
    assert len(lines(client.heard(LINE), first)) == heard


def test_a_target_that_two_cameras_see_has_a_position_with_its_errors_until_it_is_gone(
    tmp_path: Path, store: Store, taky: Taky
) -> None:
    position = Position(48.1300001, 11.7700001, 612.5, 14.2, 6.1)
    first = opened(1)
    with TakClient(taky) as client:
        outbox = outbox_of(site(tmp_path, tcp(taky)))
        store.append([first])
        outbox.wake()
        soon(lambda: len(client.heard(LINE)) >= 1)
        assert not client.heard(TARGET), "one bearing is no position"
        store.update_tracks([seen(1, 50, position=position)])
        soon(lambda: bool(client.heard(TARGET)))
        shown = client.heard(TARGET)[0]
        store.append([after(first, ENDED, seen(1, 60, state=TrackState.LOST))])
        outbox.wake()
        soon(lambda: client.heard(TARGET)[-1].get("stale") == client.heard(TARGET)[-1].get("time"))
        outbox.stop()
    point = shown.find("point")
    assert point is not None and shown.get("uid") == f"{uid(first)}.position"
    assert {name: float(value) for name, value in point.attrib.items()} == {
        "lat": 48.13, "lon": 11.77, "hae": 612.5, "ce": 14.2, "le": 6.1,
    }  # fmt: skip
    assert "from two cameras, ± 14 m, height ± 6 m" in (shown.findtext("detail/remarks") or "")


def test_severity_is_the_colour_a_birds_label_removes_and_a_review_is_not_told(
    tmp_path: Path, store: Store, taky: Taky
) -> None:
    first = opened(1, label="unknown")
    first = msgspec.structs.replace(first, severity=Severity.WARNING)
    with TakClient(taky) as client:
        outbox = outbox_of(site(tmp_path, tcp(taky)))
        soon(lambda: client.heard(CAMERA))  # one that joins late hears the newest only
        store.append([first, after(first, ESCALATED, seen(1))])
        store.append([after(first, EventKind.ALERT_ACKNOWLEDGED, None)])
        store.append([after(first, LOWERED, seen(1, label="bird"), severity=Severity.INFO)])
        outbox.wake()
        soon(lambda: outbox.backlog() == {"cot": 0})
        soon(lambda: len(client.heard(LINE)) == 3)
        outbox.stop()
    colours = [each.find("detail/strokeColor") for each in client.heard(LINE)]
    assert [int(each.get("value") or 0) & 0xFFFFFFFF for each in colours if each is not None] == [
        0xFFFFAA00, 0xFFFF281E, 0xFFA0A0A0,
    ]  # fmt: skip
    assert [each.find("detail/contact").get("callsign") for each in client.heard(LINE)] == [  # type: ignore[union-attr]
        "north: unknown #1", "north: uav #1", "north: bird #1",
    ]  # fmt: skip
    assert client.heard(LINE)[-1].get("stale") == client.heard(LINE)[-1].get("time")


def test_a_camera_says_how_it_is_and_one_without_a_pose_is_never_sent(tmp_path: Path, store: Store, taky: Taky) -> None:
    blind = event(EventKind.CAMERA_BLIND, camera="north", cause=Cause.FROZEN)
    with TakClient(taky) as client:
        outbox = outbox_of(site(tmp_path, tcp(taky)))
        soon(lambda: len(client.heard(CAMERA)) == 1)
        store.append([blind, event(EventKind.CAMERA_DOWN, camera="gate", severity=Severity.WARNING)])
        store.append([event(OPENED, msgspec.structs.replace(seen(9), camera="gate"), camera="gate", alert=str(ULID()))])
        store.append([opened(3, bearing=None)])
        outbox.wake()
        soon(lambda: len(client.heard(CAMERA)) == 2 and outbox.backlog() == {"cot": 0})
        outbox.stop()
    assert [each.findtext("detail/remarks") for each in client.heard(CAMERA)] == ["not connected yet", "blind (frozen)"]
    assert len({each.get("uid") for each in client.heard(CAMERA)}) == 1
    assert not client.heard(LINE)
    assert not (tmp_path / "dead-letters").exists()


def test_cameras_of_a_reload_appear_turn_and_go(tmp_path: Path, store: Store, taky: Taky) -> None:
    def azimuths() -> dict[str, list[str | None]]:
        """Those that were told, each once, by camera."""
        told: dict[str, list[str | None]] = {}
        for each in client.heard(CAMERA):
            contact, sensor = each.find("detail/contact"), each.find("detail/sensor")
            assert contact is not None and sensor is not None
            of_camera = told.setdefault(contact.get("callsign") or "", [])
            of_camera += [sensor.get("azimuth")] if sensor.get("azimuth") not in of_camera else []
        return told

    with TakClient(taky) as client:
        (sink,) = configured_sinks(site(tmp_path, tcp(taky), cameras={"north": POSE}))
        outbox = Outbox(tmp_path / "store.sqlite", [sink], FAST_S)
        soon(lambda: azimuths() == {"north": ["90.00"]})
        sink.watch(site(tmp_path, tcp(taky), cameras={"north": POSE, "gate": POSE}))
        soon(lambda: azimuths() == {"north": ["90.00"], "gate": ["90.00"]})
        of_gate = seen(1, camera="gate")
        first = event(OPENED, of_gate, camera="gate", alert=str(ULID()))
        store.append([event(EventKind.TRACK_CONFIRMED, of_gate, alert=first.alert, camera="gate"), first])
        outbox.wake()
        soon(lambda: len(lines(client.heard(LINE), first)) > 0)
        sink.watch(site(tmp_path, tcp(taky), cameras={"north": {**POSE, "azimuth_deg": 45}}))
        soon(lambda: azimuths()["north"] == ["90.00", "45.00"])
        store.append([after(first, ENDED, seen(1, camera="gate", state=TrackState.LOST))])
        outbox.wake()
        soon(lambda: any(each.get("stale") == each.get("time") for each in lines(client.heard(LINE), first)))
        outbox.stop()
    assert len({each.get("uid") for each in client.heard(CAMERA)}) == 2


def test_the_same_site_has_the_same_ids_and_another_one_others(tmp_path: Path, store: Store, taky: Taky) -> None:
    with TakClient(taky) as client:
        for run_dir in (tmp_path, tmp_path, tmp_path / "other"):
            count = len(client.heard(CAMERA)) + 1
            config = site(run_dir, tcp(taky))
            with Store(config.store_path) if run_dir != tmp_path else store:
                outbox = outbox_of(config)
                soon(lambda count=count: len(client.heard(CAMERA)) == count)
                outbox.stop()
        uids = [each.get("uid") for each in client.heard(CAMERA)]
    assert uids[0] == uids[1] != uids[2]


@pytest.mark.slow
def test_a_server_that_is_killed_gets_every_alert(tmp_path: Path, store: Store, taky: Taky) -> None:
    alerts = [opened(number) for number in range(60)]
    outbox = outbox_of(site(tmp_path, tcp(taky)))

    def got() -> set[str | None]:
        return {each.get("uid") for each in taky.received() if each.get("type") == LINE}

    for start in range(0, 60, 20):
        store.append(alerts[start : start + 10])
        outbox.wake()
        soon(lambda start=start: uid(alerts[start]) in got())
        taky.kill()
        store.append(alerts[start + 10 : start + 20])
        outbox.wake()
        soon(lambda: bool(outbox.failures()))
        assert f"127.0.0.1:{taky.port}: " in outbox.failures()["cot"]
        taky.start()
        soon(lambda: outbox.backlog() == {"cot": 0})
    soon(lambda: got() == {uid(alert) for alert in alerts})
    outbox.stop()
    with StoreReader(tmp_path / "store.sqlite") as reader:
        assert reader.cursor("cot") == reader.last_row()


def test_what_a_server_took_and_never_read_is_sent_again(tmp_path: Path, store: Store) -> None:
    first = opened(1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        outbox = outbox_of(site(tmp_path, f"tcp://127.0.0.1:{port}"))
        store.append([first])
        outbox.wake()
        soon(lambda: outbox.backlog() == {"cot": 0})
        connection, _ = deaf.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # as a killed process
        connection.close()
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(20)
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as lines_of:
            while uid(first).encode() not in lines_of.readline():
                pass
    outbox.stop(0.1)


def test_certificates_are_checked_in_both_directions(tmp_path: Path, store: Store) -> None:
    own, client = certificates.made(tmp_path), certificates.made(tmp_path, "client")
    right = {"ca": own.certificate, "certificate": client.certificate, "key": client.key}
    with Taky(tmp_path, own, client) as server:
        url = f"tls://127.0.0.1:{server.port}"
        configs = [
            site(tmp_path, url, name="right", tls=right),
            site(tmp_path, url, name="nameless", tls={"ca": own.certificate}),
            site(tmp_path, url, name="unknown", tls=right | {"certificate": own.certificate, "key": own.key}),
            site(tmp_path, url, name="system", tls={}),
        ]
        outbox = outbox_of(*configs)
        first = opened(1)
        store.append([first])
        outbox.wake()
        soon(lambda: outbox.backlog() == {"right": 0, "nameless": 1, "unknown": 1, "system": 1})
        soon(lambda: len(outbox.failures()) == 3)
        failures = outbox.failures()
        soon(lambda: uid(first) in {each.get("uid") for each in server.received()})
        context = ssl.create_default_context(cafile=own.certificate)
        context.load_cert_chain(client.certificate, client.key)
        with TakClient(server, context) as listener:
            soon(lambda: bool(listener.heard(LINE)))
        outbox.stop(0.1)
    assert "self-signed certificate" in failures["system"]
    for name in ("nameless", "unknown"):
        assert f"127.0.0.1:{server.port}: connection" in failures[name], failures[name]


@pytest.mark.parametrize("group", ["127.0.0.1", "239.2.3.1"])
def test_datagrams_reach_a_host_or_a_group(tmp_path: Path, store: Store, group: str) -> None:
    port, first = free_port(), opened(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((group, port))
        if group.startswith("239."):
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + b"\0\0\0\0")
        listener.settimeout(20)
        outbox = outbox_of(site(tmp_path, f"udp://{group}:{port}"))
        store.append([first])
        outbox.wake()
        heard: dict[str | None, Element] = {}
        while len(heard) < 2:
            content = listener.recv(65536)
            (each,) = parsed(content)
            heard[each.get("type")] = each
            assert len(content) < 1400, "one packet"
        outbox.stop()
    assert heard[LINE].get("uid") == uid(first)
    for each in heard.values():
        point = each.find("point")
        assert point is not None and (point.get("lat"), point.get("lon")) == ("48.1234567", "11.7654321")


def test_a_host_on_which_nothing_listens_is_named_and_gets_it_later(tmp_path: Path, store: Store) -> None:
    port, first = free_port(), opened(1)
    outbox = outbox_of(site(tmp_path, f"udp://127.0.0.1:{port}"))
    store.append([first])
    outbox.wake()
    soon(lambda: "cot" in outbox.failures())
    assert f"127.0.0.1:{port}" in outbox.failures()["cot"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", port))
        listener.settimeout(20)
        while parsed(listener.recv(65536))[0].get("uid") != uid(first):
            pass
        outbox.stop()


def test_lines_end_where_they_must_all_over_the_world() -> None:
    from pipeline.sinks.cot_messages import Viewpoint

    for lat, lon in ((0.0, 0.0), (48.1, 179.9999), (-90.0, 0.0), (90.0, -180.0), (1e-7, -1e-7)):
        for azimuth in range(0, 360, 45):
            pose = Pose(lat=lat, lon=lon, height_m=512.5, azimuth_deg=azimuth, hfov_deg=60)
            bearing = Bearing(float(azimuth), 5.0, 1.0, 1.0)
            (line,) = parsed(Viewpoint("u", "n", pose, 1000.0).line("A", "t", Severity.ALARM, bearing, 10**18))
            point = line.find("point")
            assert point is not None and point.get("hae") == "512.5"
            (_, _), (end_lat, end_lon) = points(line)
            assert -90 <= end_lat <= 90 and -180 <= end_lon <= 180
            chord = math.dist(_unit(lat, lon), _unit(end_lat, end_lon)) * 6_371_008.8
            assert chord == pytest.approx(1000, abs=0.1)


def _unit(lat: float, lon: float) -> tuple[float, float, float]:
    a, b = math.radians(lat), math.radians(lon)
    return math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)
