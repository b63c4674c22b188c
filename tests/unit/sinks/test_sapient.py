"""The SAPIENT sink against a middleware with the reference one's rules: registration, status, detections, alerts."""

import itertools
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from support.events import ENDED, LOWERED, OPENED, event, track, until
from support.program import free_port
from support.sapient import Middleware, needs_sapient
from ulid import ULID

from pipeline.config.models import Config
from pipeline.sinks.configured import configured_sinks
from pipeline.sinks.outbox import Outbox
from pipeline.store.reader import StoreReader
from pipeline.store.store import Store
from pipeline.telemetry.sinks import SinkMetrics
from pipeline.types import Bearing, Cause, Event, EventKind, FrameRef, Position, Severity, Track, TrackState, Verdict

pytestmark = needs_sapient

FAST_S = (0.01, 0.05)
soon = partial(until, timeout_s=30.0)
POSE = {"lat": 48.1234567, "lon": 11.7654321, "azimuth_deg": 90, "elevation_deg": 10, "hfov_deg": 40, "sigma_deg": 0.5}
EAST = Bearing(90.0, 12.0, 1.5, 1.2)


def site(folder: Path, middleware: Middleware, **settings: object) -> Config:
    entry = {"type": "sapient", "url": f"tcp://127.0.0.1:{middleware.port}"} | settings
    cameras = [{"id": "north", "uri": "demo:scene", "pose": POSE}, {"id": "gate", "uri": "demo:scene"}]
    return Config.model_validate({"cameras": cameras, "run_dir": folder, "sinks": [entry]})


def outbox_of(*configs: Config, metrics: SinkMetrics | None = None) -> Outbox:
    sinks = [sink for config in configs for sink in configured_sinks(config)]
    return Outbox(configs[0].store_path, sinks, FAST_S, metrics=metrics)


@pytest.fixture
def middleware() -> Iterator[Middleware]:
    with Middleware() as middleware:
        yield middleware


def frame(age_s: float = 0.0, seq: int = 0, camera: str = "north") -> FrameRef:
    now_ns = time.time_ns() - round(age_s * 1e9)
    return FrameRef(camera, "s1", seq, seq * 0.04, now_ns, now_ns)


def seen(number: int, last: FrameRef, **changes: object) -> Track:
    own = {"ulid": f"01K3{number:022d}", "camera": last.camera, "bearing": EAST}
    return msgspec.structs.replace(track(number), last_seen=last, **(own | changes))


def alert_of(subject: Track, kind: EventKind = OPENED, **changes: object) -> list[Event]:
    confirmed = event(EventKind.TRACK_CONFIRMED, subject)
    alert = str(changes.pop("alert", confirmed.id))
    return [event(kind, subject, alert=alert, **changes)]


def names(message: Any) -> str:
    return str(message.registration.short_name)


def test_each_camera_registers_and_reports_where_it_is(tmp_path: Path, store: Store, middleware: Middleware) -> None:
    outbox = outbox_of(site(tmp_path, middleware))
    soon(lambda: len(middleware.of("status_report")) == 2)
    store.append([event(EventKind.CAMERA_BLIND, camera="north", cause=Cause.FROZEN)])
    outbox.wake()
    soon(lambda: len(middleware.of("status_report")) == 3)
    outbox.stop()
    soon(lambda: middleware.goodbyes() == 2)
    assert not middleware.faults
    registrations = {names(message): message for message in middleware.of("registration")}
    assert set(registrations) == {"north", "gate"}
    north = registrations["north"]
    about = north.registration
    assert about.icd_version == "BSI Flex 335 v2.0" and about.node_definition[0].node_type == 4  # a camera
    assert about.status_definition.status_interval.value == 5
    assert [each.type for each in about.mode_definition[0].detection_definition[0].detection_class_definition[0]
            .class_definition] == ["Air Vehicle", "Animal", "Other", "Unknown"]  # fmt: skip
    of_north = [message for message in middleware.of("status_report") if message.node_id == north.node_id]
    first, blind, goodbye = (message.status_report for message in of_north)
    assert (first.node_location.x, first.node_location.y) == (11.7654321, 48.1234567), "x is the longitude"
    assert not first.node_location.HasField("z"), "no height was given"
    view = first.field_of_view.range_bearing
    assert (view.azimuth, view.elevation, view.horizontal_extent) == (90, 10, 40)
    assert not view.HasField("range") and not view.HasField("vertical_extent")
    systems = [each.System.Name(each.system) for each in (first, blind, goodbye)]
    assert systems == ["SYSTEM_WARNING", "SYSTEM_WARNING", "SYSTEM_GOODBYE"]
    assert [each.status_value for each in (*first.status, *blind.status)] == ["not connected yet", "blind (frozen)"]
    gate = [m.status_report for m in middleware.of("status_report") if m.node_id != north.node_id]
    assert not any(each.HasField("node_location") or each.HasField("field_of_view") for each in gate)


def test_detections_are_live_share_the_time_of_their_frame_and_have_no_range(
    tmp_path: Path, store: Store, middleware: Middleware
) -> None:
    outbox = outbox_of(site(tmp_path, middleware))
    last = frame()
    first, second = seen(1, last), seen(2, last, label="unknown")
    unplaced = seen(3, frame(camera="gate"), bearing=None)
    alerts = [alert_of(each) for each in (first, second, unplaced)]
    for each, (opened,) in zip((first, second, unplaced), alerts, strict=True):
        confirmed = msgspec.structs.replace(event(EventKind.TRACK_CONFIRMED, each), id=opened.alert, alert=opened.alert)
        store.append([confirmed, opened])
    outbox.wake()
    frames = itertools.count(1)

    def moved_on() -> bool:
        """More often than a middleware takes."""
        last = frame(seq=next(frames))
        store.update_tracks([seen(1, last), seen(2, last, label="unknown")])
        return len(middleware.of("detection_report")) >= 12

    soon(moved_on)
    outbox.stop()
    soon(lambda: middleware.goodbyes() == 2)  # everything before is read
    assert not middleware.faults
    reports = middleware.of("detection_report")
    assert {each.detection_report.object_id for each in reports} == {first.ulid, second.ulid}
    stamps = [each.timestamp.ToNanoseconds() for each in reports]
    assert len(set(stamps)) == len(stamps) / 2
    report = next(each.detection_report for each in reports if each.detection_report.object_id == first.ulid)
    where = report.range_bearing
    assert (where.azimuth, where.elevation, where.azimuth_error, where.elevation_error) == (90, 12, 1.5, 1.2)
    assert not where.HasField("range") and not report.HasField("location")
    assert report.classification[0].type == "Air Vehicle"
    assert [each.type for each in report.classification[0].sub_class] == ["UAV Rotary Wing", "UAV Fixed Wing"]


def test_a_target_that_two_cameras_see_has_a_range(tmp_path: Path, store: Store, middleware: Middleware) -> None:
    outbox = outbox_of(site(tmp_path, middleware))
    place = Position(48.1234567, 11.7654321 + 0.0134, 100.0, 14.2, 6.1)  # a kilometre to the east
    last = frame()
    (opened,) = alert_of(seen(1, last, position=place))
    confirmed = msgspec.structs.replace(
        event(EventKind.TRACK_CONFIRMED, seen(1, last)), id=opened.alert, alert=opened.alert
    )
    store.append([confirmed, opened])
    outbox.wake()
    soon(lambda: bool(middleware.of("alert") and middleware.of("detection_report")))
    outbox.stop()
    ranges = [
        middleware.of("alert")[0].alert.range_bearing,
        middleware.of("detection_report")[0].detection_report.range_bearing,
    ]
    for where in ranges:
        assert where.range == pytest.approx(1000, abs=10) and where.range_error == pytest.approx(14.2)
    assert not middleware.faults


def test_alerts_follow_their_life(tmp_path: Path, store: Store, middleware: Middleware) -> None:
    last = frame()
    (opened,) = alert_of(seen(1, last, label="unknown"), severity=Severity.WARNING)
    alert = opened.alert

    def later(kind: EventKind, subject: Track | None, **changes: object) -> Event:
        return msgspec.structs.replace(event(kind, subject, alert=alert, **changes), time_utc_ns=time.time_ns())

    escalated = later(EventKind.ALERT_ESCALATED, seen(1, last))
    events = [
        opened,
        escalated,
        later(EventKind.ALERT_ACKNOWLEDGED, None),
        later(EventKind.ALERT_REVIEWED, seen(1, last), verdict=Verdict.BIRD),
        later(EventKind.ALERT_REOPENED, None),
        later(LOWERED, seen(1, last, label="bird"), severity=Severity.INFO),
        event(EventKind.TRACK_LOST, seen(1, last, state=TrackState.LOST)),
    ]
    outbox = outbox_of(site(tmp_path, middleware))
    store.append(events)
    outbox.wake()
    soon(lambda: len(middleware.of("alert")) == 6)
    soon(lambda: outbox.backlog() == {"sapient": 0})
    outbox.stop()
    assert not middleware.faults
    told = [message.alert for message in middleware.of("alert")]
    assert {each.alert_id for each in told} == {alert}
    assert [each.AlertStatus.Name(each.status)[len("ALERT_STATUS_") :] for each in told] == [
        "ACTIVE", "ACTIVE", "ACKNOWLEDGE", "REJECT", "ACTIVE", "CLEAR",
    ]  # fmt: skip
    assert [each.AlertType.Name(each.alert_type) for each in told[:2]] == ["ALERT_TYPE_WARNING", "ALERT_TYPE_CRITICAL"]
    assert told[1].range_bearing.azimuth == 90 and not told[1].range_bearing.HasField("range")
    assert told[1].associated_detection[0].object_id == seen(1, last).ulid
    assert told[1].associated_detection[0].node_id == middleware.of("alert")[1].node_id
    assert escalated.id in told[1].additional_information


@pytest.mark.slow
def test_after_an_outage_alerts_say_their_own_time_and_old_tracks_are_not_reported(
    tmp_path: Path, store: Store, middleware: Middleware
) -> None:
    outbox = outbox_of(site(tmp_path, middleware))
    soon(lambda: len(middleware.of("registration")) == 2)
    middleware.kill()
    old = seen(1, frame(age_s=600))
    (opened,) = alert_of(old)
    store.append([msgspec.structs.replace(event(EventKind.TRACK_CONFIRMED, old), id=opened.alert, alert=opened.alert)])
    store.append([opened])
    outbox.wake()
    soon(lambda: bool(outbox.failures()))
    middleware.start()
    soon(lambda: len(middleware.of("alert")) >= 1 and outbox.backlog() == {"sapient": 0})
    reported = len(middleware.of("status_report"))
    soon(lambda: len(middleware.of("status_report")) > reported)  # it has looked at the tracks
    outbox.stop()
    assert not middleware.faults and not middleware.of("detection_report")
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(opened.time_utc_ns // 10**9))
    assert stamp in middleware.of("alert")[0].alert.description


@pytest.mark.slow
def test_a_middleware_that_is_killed_gets_every_alert(tmp_path: Path, store: Store, middleware: Middleware) -> None:
    alerts = [alert_of(seen(number, frame()))[0] for number in range(60)]
    outbox = outbox_of(site(tmp_path, middleware))

    def got() -> set[str]:
        return {message.alert.alert_id for message in middleware.of("alert")}

    for start in range(0, 60, 20):
        store.append(alerts[start : start + 10])
        outbox.wake()
        soon(lambda start=start: alerts[start].alert in got())
        middleware.kill()
        store.append(alerts[start + 10 : start + 20])
        outbox.wake()
        soon(lambda: bool(outbox.failures()))
        assert f"127.0.0.1:{middleware.port}: " in outbox.failures()["sapient"]
        middleware.start()
        soon(lambda: outbox.backlog() == {"sapient": 0})
    soon(lambda: got() == {alert.alert for alert in alerts})
    outbox.stop()
    assert not middleware.faults
    with StoreReader(tmp_path / "store.sqlite") as reader:
        assert reader.cursor("sapient") == reader.last_row()


def test_errors_are_shown_counted_and_what_is_refused_for_good_goes_to_the_dead_letters(
    tmp_path: Path, store: Store, middleware: Middleware
) -> None:
    bad, good = (alert_of(seen(number, frame()))[0] for number in (1, 2))
    told = threading.Event()

    def refuse(message: Any) -> str | None:
        if message.alert.alert_id != bad.alert:
            return None
        told.set()
        return "alert (id format valid): swordfish"

    middleware.refuse = refuse
    registry = CollectorRegistry()
    outbox = outbox_of(site(tmp_path, middleware), metrics=SinkMetrics(registry))
    store.append([bad, good])
    outbox.wake()
    assert told.wait(20)
    soon(lambda: "swordfish" in str(outbox.failures()))
    assert "node of camera north" in str(outbox.failures())
    soon(lambda: outbox.backlog() == {"sapient": 0})
    outbox.stop()
    assert registry.get_sample_value("dasnet_sink_failures_total", {"sink": "sapient"})
    assert registry.get_sample_value("dasnet_sink_dead_letters_total", {"sink": "sapient"}) == 1
    assert bad.id in (tmp_path / "dead-letters" / "sapient.jsonl").read_text()
    assert good.alert in {message.alert.alert_id for message in middleware.of("alert")}


def test_an_event_that_the_standard_cannot_say_does_not_hold_up_others(
    tmp_path: Path, store: Store, middleware: Middleware
) -> None:
    bad, good = event(OPENED, seen(1, frame()), alert="A1"), alert_of(seen(2, frame()))[0]
    outbox = outbox_of(site(tmp_path, middleware))
    store.append([bad, good])
    outbox.wake()
    soon(lambda: good.alert in {message.alert.alert_id for message in middleware.of("alert")})
    outbox.stop()
    assert "not a valid ULID" in (tmp_path / "dead-letters" / "sapient.jsonl").read_text()


@pytest.mark.parametrize(
    ("acceptance", "reason"), [(False, "registration refused (no nodes of this kind)"), (None, "not acknowledged")]
)
def test_without_an_accepted_registration_nothing_else_is_sent(
    tmp_path: Path, store: Store, middleware: Middleware, monkeypatch: pytest.MonkeyPatch, acceptance: bool | None,
    reason: str,
) -> None:  # fmt: skip
    from pipeline.sinks import sapient_link

    monkeypatch.setattr(sapient_link, "ACKNOWLEDGE_TIMEOUT_S", 0.3)
    middleware.acceptance = acceptance
    outbox = outbox_of(site(tmp_path, middleware))
    store.append(alert_of(seen(1, frame())))
    outbox.wake()
    soon(lambda: reason in str(outbox.failures()))
    assert not middleware.of("alert") and not middleware.of("status_report")
    middleware.acceptance = True
    soon(lambda: len(middleware.of("alert")) == 1)
    outbox.stop()


def test_tasks_are_answered_and_garbage_is_named(tmp_path: Path, store: Store, middleware: Middleware) -> None:
    from sapient_msg.bsi_flex_335_v2_0.task_pb2 import Task

    outbox = outbox_of(site(tmp_path, middleware, cameras=["north"]))
    soon(lambda: len(middleware.of("status_report")) == 1)
    task = str(ULID())
    middleware.tell(task=Task(task_id=task, control=Task.CONTROL_START))
    soon(lambda: [message.task_ack.task_id for message in middleware.of("task_ack")] == [task])
    assert middleware.of("task_ack")[0].task_ack.reason == ["this node takes no tasks"]
    middleware._sockets[-1].sendall(b"\xff\xff\xff\x7f")
    soon(lambda: "reply of 2147483647 bytes" in str(outbox.failures()))
    soon(lambda: len(middleware.of("registration")) == 2)
    outbox.stop()


def test_cameras_of_a_reload_register_turn_and_say_goodbye(
    tmp_path: Path, store: Store, middleware: Middleware
) -> None:
    sinks = configured_sinks(site(tmp_path, middleware))
    outbox = Outbox(tmp_path / "store.sqlite", sinks, FAST_S)
    soon(lambda: len(middleware.of("registration")) == 2)

    def reload(*cameras: dict[str, object]) -> None:
        config = site(tmp_path, middleware)
        named = Config.model_validate({"cameras": [{"uri": "demo:scene"} | each for each in cameras]})
        sinks[0].watch(config.with_cameras_of(named))

    reload({"id": "north", "pose": POSE}, {"id": "yard", "pose": POSE})
    soon(lambda: [names(each) for each in middleware.of("registration")][2:] == ["yard"] and middleware.goodbyes() == 1)
    (opened,) = alert_of(seen(1, frame(camera="yard")))
    store.append([opened])
    outbox.wake()
    soon(lambda: len(middleware.of("alert")) == 1)
    assert middleware.of("alert")[0].node_id == middleware.of("registration")[2].node_id
    reload({"id": "north", "pose": POSE | {"azimuth_deg": 45}})
    soon(lambda: [names(each) for each in middleware.of("registration")][3:] == ["north"])
    store.append([event(ENDED, seen(1, frame(camera="yard"), state=TrackState.LOST), alert=opened.alert)])
    outbox.wake()
    soon(lambda: len(middleware.of("alert")) == 2)
    assert not middleware.faults
    outbox.stop()


def test_a_state_that_the_filter_withholds_is_a_new_one_when_it_is_reported(
    tmp_path: Path, store: Store, middleware: Middleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.sinks import sapient

    monkeypatch.setattr(sapient, "STATUS_S", 0.2)
    outbox = outbox_of(site(tmp_path, middleware, cameras=["north"], min_severity="alarm"))
    for kind, system in ((None, "WARNING"), (EventKind.CAMERA_UP, "OK"), (EventKind.CAMERA_DOWN, "ERROR")):
        store.append([event(kind, camera="north", severity=Severity.WARNING)] if kind else [])
        soon(lambda system=system: states(middleware)[-1:] == [f"SYSTEM_{system}"])
        count = len(states(middleware))
        soon(lambda count=count: len(states(middleware)) > count)
    outbox.stop()
    assert not middleware.faults


def states(middleware: Middleware) -> list[str]:
    reports = [message.status_report for message in middleware.of("status_report")]
    return [str(each.System.Name(each.system)) for each in reports]


def test_the_nodes_keep_their_ids(tmp_path: Path, store: Store, middleware: Middleware) -> None:
    for count in (2, 4):
        outbox = outbox_of(site(tmp_path, middleware))
        soon(lambda count=count: len(middleware.of("registration")) == count)
        outbox.stop()
    nodes = [message.node_id for message in middleware.of("registration")]
    assert nodes[:2] == nodes[2:] and len(set(nodes)) == 2
    (tmp_path / "site-id").write_text("swordfish")
    outbox = outbox_of(site(tmp_path, middleware))
    soon(lambda: "site-id: 'swordfish'; must be a UUID" in str(outbox.failures()))
    outbox.stop(0.1)


def test_one_that_is_not_there_is_named(tmp_path: Path, store: Store, middleware: Middleware) -> None:
    port = free_port()
    outbox = outbox_of(site(tmp_path, middleware, url=f"tcp://127.0.0.1:{port}"))
    soon(lambda: f"127.0.0.1:{port}: cannot connect" in str(outbox.failures()))
    outbox.stop(0.1)


def test_an_alert_that_ends_is_clear(tmp_path: Path, store: Store, middleware: Middleware) -> None:
    (opened,) = alert_of(seen(1, frame()))
    ended = event(ENDED, seen(1, frame(), state=TrackState.LOST), alert=opened.alert)
    outbox = outbox_of(site(tmp_path, middleware))
    store.append([opened, ended])
    outbox.wake()
    soon(lambda: len(middleware.of("alert")) == 2)
    last = middleware.of("alert")[1].alert
    assert last.status == last.ALERT_STATUS_CLEAR
    outbox.stop()
