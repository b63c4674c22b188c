"""One alert for a target that two cameras see, two for two targets; positions only from two bearings."""

import numpy as np
import pytest
from support.two_cameras import Scene, place_at

from pipeline.geodesy import earth_fixed
from pipeline.types import EscalationReason, Event, EventKind, Severity

DRONE = ((-60.0, 400.0, 60.0), (8.0, 0.0, 1.0))


def alerts(scene: Scene) -> list[Event]:
    return [event for event in scene.events if event.is_alert]


def kinds(scene: Scene) -> list[EventKind]:
    return [event.kind for event in alerts(scene)]


def test_one_drone_seen_by_two_cameras_is_one_alert_with_both_tracks() -> None:
    scene = Scene()
    scene.fly(40, {"drone": DRONE})
    opened, escalated = alerts(scene)
    assert (opened.kind, opened.camera) == (EventKind.ALERT_OPENED, "east")
    assert (escalated.kind, escalated.reason) == (EventKind.ALERT_ESCALATED, EscalationReason.SECOND_CAMERA)
    assert escalated.alert == opened.alert and escalated.camera == "west" and escalated.severity is Severity.ALARM
    confirmed = {event.camera: event.alert for event in scene.events if event.kind is EventKind.TRACK_CONFIRMED}
    assert confirmed == {"east": opened.alert, "west": opened.alert}
    assert scene.pairs.joined("west") == {opened.alert} and not scene.pairs.joined("east")
    scene.fly(60, {})
    ended = alerts(scene)[-1]
    assert kinds(scene)[2:] == [EventKind.ALERT_ENDED]
    assert (ended.alert, ended.camera) == (opened.alert, "east")
    assert {event.alert for event in scene.events} == {opened.alert}
    assert not scene.pairs._parts


def test_the_position_is_true_and_only_there_while_both_cameras_see_it() -> None:
    scene = Scene()
    scene.fly(4, {"drone": DRONE})
    assert all(track.position is None for tracks in scene.newest.values() for track in tracks)
    scene.fly(36, {"drone": DRONE})
    for camera in scene.cameras:
        (track,) = scene.newest[camera.name]
        position = track.position
        assert position is not None
        where = tuple(at + scene.time_s * v for at, v in zip(*DRONE, strict=True))
        true = place_at(where)  # type: ignore[arg-type]
        error_m = np.linalg.norm(
            earth_fixed(position.lat, position.lon, position.height_m) - earth_fixed(true.lat, true.lon, true.height_m)
        )
        assert error_m < 3 < position.horizontal_sigma_m < 60, "a frame's delay, and the error of the poses"
    scene.fly(10, {"drone": DRONE}, hidden={"west": "drone"})
    assert [track.position for track in scene.newest["east"]] == [None]


def test_two_drones_are_two_alerts() -> None:
    """Each camera sees one of them, at the same time."""
    scene = Scene()
    paths = {"low": ((-40.0, 300.0, 20.0), (5.0, 0.0, 0.0)), "high": ((40.0, 300.0, 110.0), (-5.0, 0.0, 0.0))}
    scene.fly(40, paths, hidden={"east": "low", "west": "high"})
    assert kinds(scene) == [EventKind.ALERT_OPENED] * 2
    assert len({event.alert for event in alerts(scene)}) == 2
    assert all(track.position is None for tracks in scene.newest.values() for track in tracks)


def test_two_drones_that_both_cameras_see_are_two_alerts_with_two_cameras_each() -> None:
    scene = Scene()
    paths = {"low": ((-40.0, 300.0, 20.0), (5.0, 0.0, 0.0)), "high": ((40.0, 320.0, 110.0), (-5.0, 0.0, 0.0))}
    scene.fly(40, paths)
    assert sorted(kinds(scene)) == [EventKind.ALERT_ESCALATED] * 2 + [EventKind.ALERT_OPENED] * 2
    tracks = {event.track.ulid: event.alert for event in scene.events if event.track and not event.is_alert}
    for name in paths:
        assert len({alert for ulid, alert in tracks.items() if f"-{name}-" in ulid}) == 1
    assert len(set(tracks.values())) == 2


def test_what_could_be_either_of_two_is_paired_with_neither() -> None:
    """Two drones at one height and distance: every line of sight crosses every other."""
    scene = Scene()
    paths = {"left": ((-12.0, 400.0, 60.0), (0.0, 0.0, 0.0)), "right": ((12.0, 400.0, 60.0), (0.0, 0.0, 0.0))}
    scene.fly(40, paths)
    assert sum(kind is EventKind.ALERT_OPENED for kind in kinds(scene)) >= 2


def test_a_target_of_another_size_is_another_one() -> None:
    """A gull near one camera, on the line of sight of the other camera to an airplane."""
    scene = Scene()
    scene.sizes_m = {"near": 0.5, "far": 30.0}
    where = {"far": (0.0, 1500.0, 150.0), "near": (-92.0, 120.0, 14.0)}
    scene.fly(40, {name: (at, (0.0, 0.0, 0.0)) for name, at in where.items()}, {"east": "near", "west": "far"})
    assert kinds(scene) == [EventKind.ALERT_OPENED] * 2


def test_two_that_seemed_one_part_again() -> None:
    """Their lines of sight cross at first; then one climbs, which the other camera does not see of its own."""
    scene = Scene()
    for step in range(60):
        climb = 2.0 * max(0, step - 20)
        where = {"seen": (0.0, 300.0, 40.0), "other": (0.0, 300.0, 40.0 + climb)}
        scene.step(where, hidden={"west": "seen", "east": "other"})
    opened = [event for event in alerts(scene) if event.kind is EventKind.ALERT_OPENED]
    assert kinds(scene)[:2] == [EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED]
    assert [event.camera for event in opened] == ["east", "west"] and opened[0].alert != opened[1].alert
    assert opened[1].severity is Severity.ALARM and not scene.pairs.joined("west")
    scene.fly(60, {})
    ended = [event.alert for event in alerts(scene) if event.kind is EventKind.ALERT_ENDED]
    assert sorted(map(str, ended)) == sorted(str(event.alert) for event in opened)


def test_an_alert_goes_on_while_either_camera_sees_its_target_and_comes_back_to_the_first() -> None:
    scene = Scene()
    scene.fly(30, {"drone": DRONE})
    scene.fly(70, {"drone": DRONE}, hidden={"east": "drone"})  # lost there, and gone for long
    assert kinds(scene) == [EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED]
    scene.fly(30, {"drone": DRONE})
    assert kinds(scene) == [EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED, EventKind.ALERT_ESCALATED]
    assert len({event.alert for event in alerts(scene)}) == 1
    scene.fly(70, {})
    assert kinds(scene)[3:] == [EventKind.ALERT_ENDED]


def test_the_higher_label_of_the_two_counts() -> None:
    scene = Scene()
    scene.labels = {("east", "drone"): "unknown", ("west", "drone"): "unknown"}
    scene.fly(30, {"drone": DRONE})
    assert [event.severity for event in alerts(scene)] == [Severity.WARNING] * 2
    scene.labels["west", "drone"] = "uav"
    scene.fly(5, {"drone": DRONE})
    risen = alerts(scene)[-1]
    assert (risen.kind, risen.reason, risen.severity) == (
        EventKind.ALERT_ESCALATED,
        EscalationReason.LABEL,
        Severity.ALARM,
    )
    assert risen.alert == alerts(scene)[0].alert and risen.track is not None and risen.track.label == "uav"
    scene.labels["east", "drone"] = "bird"  # one camera alone does not lower it
    scene.fly(80, {"drone": DRONE})
    assert alerts(scene)[-1] is risen
    scene.labels["west", "drone"] = "bird"
    scene.fly(80, {"drone": DRONE})
    lowered = alerts(scene)[-1]
    assert lowered.kind is EventKind.ALERT_LOWERED and lowered.ends_alert and lowered.alert == risen.alert


def test_a_camera_that_goes_down_leaves_the_alert_to_the_other() -> None:
    scene = Scene()
    scene.fly(30, {"drone": DRONE})
    scene.close("east")
    assert EventKind.ALERT_ENDED not in kinds(scene)
    scene.close("west")
    assert kinds(scene)[-1] is EventKind.ALERT_ENDED and not scene.pairs._parts


def test_without_poses_nothing_changes() -> None:
    plain, paired = Scene(), Scene()
    plain.pairs.places = {}
    for scene in (plain, paired):
        scene.fly(20, {"drone": DRONE}, hidden={"west": "drone"})
        scene.fly(60, {})
    assert plain.events == paired.events and kinds(plain) == [EventKind.ALERT_OPENED, EventKind.ALERT_ENDED]
    both = Scene()
    both.pairs.places = {}
    both.fly(20, {"drone": DRONE})
    assert kinds(both) == [EventKind.ALERT_OPENED] * 2


def test_the_same_frames_give_the_same_events() -> None:
    runs = []
    for _ in range(2):
        scene = Scene()
        scene.fly(30, {"drone": DRONE, "other": ((30.0, 500.0, 20.0), (-4.0, 1.0, 0.0))})
        scene.fly(60, {})
        runs.append(scene.events)
    assert runs[0] == runs[1]


@pytest.mark.parametrize("number", range(30))
def test_any_flight_that_both_see_well_is_one_alert(number: int) -> None:
    rng = np.random.default_rng(number)
    start = float(rng.uniform(-60, 60)), float(rng.uniform(320, 700)), float(rng.uniform(30, 120))
    speed = tuple(float(each) for each in rng.uniform(-10, 10, 3) * (1, 1, 0.2))
    scene = Scene()
    scene.fly(30, {"drone": (start, speed)})  # type: ignore[dict-item]
    assert kinds(scene) == [EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED]


@pytest.mark.parametrize("number", range(30))
def test_any_two_drones_at_different_heights_are_two_alerts(number: int) -> None:
    rng = np.random.default_rng(number)
    away = float(rng.uniform(250, 500))
    one = float(rng.uniform(-60, 60)), away, float(rng.uniform(10, 30))
    two = float(rng.uniform(-60, 60)), away + float(rng.uniform(-30, 30)), float(rng.uniform(80, 110))
    scene = Scene()
    still = (0.0, 0.0, 0.0)
    scene.fly(30, {"one": (one, still), "two": (two, still)}, hidden={"east": "one", "west": "two"})
    assert kinds(scene) == [EventKind.ALERT_OPENED] * 2
