"""Boxes of an alert's tracks over time: from the first detection on, evenly thinned, and bounded."""

from itertools import pairwise

import msgspec
from support.events import CONFIRMED, ENDED, ESCALATED, LOWERED, event, raised, ref, track

from pipeline.evidence.track_paths import MAX_BOXES, MAX_TRACKS, TrackPaths
from pipeline.types import Bearing, FrameRef, Severity, Track, TrackState


def at(seq: int, session: str = "s1") -> FrameRef:
    return msgspec.structs.replace(ref(seq), session=session)  # 25 frames/s


def test_the_boxes_of_an_alert_from_its_first_detection_on() -> None:
    paths, alert = TrackPaths(), ""
    for seq in range(50):
        tentative = track(1, seq, state=TrackState.TENTATIVE if seq < 5 else TrackState.CONFIRMED)
        opened = raised(tentative) if seq == 5 else []
        alert = opened[0].id if opened else alert
        bearing = Bearing(10.0 + seq, 5.0, 1.0, 1.0)
        assert not paths.update(at(seq), [msgspec.structs.replace(tentative, bearing=bearing), track(2, seq)], opened)
    lost = track(1, 50, state=TrackState.LOST)
    ended = paths.update(at(50), [lost], [event(ENDED, lost, alert=alert)])
    ((path,),) = ended.values()
    assert list(ended) == [alert] and (path.id, path.label) == (1, "uav")
    assert [box.frame for box in path.boxes[:4]] == [0, 3, 6, 9], "at most ten a second"
    first = path.boxes[0]
    assert (first.x0, first.y0, first.x1, first.y1) == (10.0, 20.0, 30.0, 40.0) and first.state == "tentative"
    assert (first.azimuth_deg, first.elevation_deg) == (10.0, 5.0)
    assert path.boxes[-1].frame == 48 and first.time_utc_ns == at(0).received_utc_ns


def test_a_long_track_is_thinned_evenly() -> None:
    paths, opened = TrackPaths(), raised(track(1))
    count = 8 * MAX_BOXES
    for seq in range(count):
        paths.update(at(seq), [track(1, seq)], opened if not seq else [])
    ((path,),) = paths.update(at(count), [], [event(ENDED, track(1, count), alert=opened[0].id)]).values()
    assert MAX_BOXES / 2 <= len(path.boxes) < MAX_BOXES
    frames = [box.frame for box in path.boxes]
    assert frames[0] == 0 and frames[-1] > 0.99 * count
    steps = {later - earlier for earlier, later in pairwise(frames)}
    assert max(steps) <= 2 * min(steps)


def test_a_second_camera_s_tracks_are_told_apart_and_end_with_the_alert() -> None:
    """Whichever camera's frame ends it."""

    def west(seq: int) -> Track:
        return msgspec.structs.replace(track(1, seq, ulid="west"), camera="west", last_seen=ref(seq, "west"))

    for last in ("north", "west"):
        paths, opened = TrackPaths(), raised(track(1))
        alert = opened[0].id
        paths.update(at(0), [track(1)], opened)
        joined = event(ESCALATED, track(1), alert=alert)  # as of the camera with the higher label
        paths.update(ref(1, "west"), [west(1)], [event(CONFIRMED, west(1), alert=alert), joined])
        gone = event(ENDED, track(1, 2, state=TrackState.LOST), alert=alert)
        frame, tracks = (at(2), [track(1, 2, state=TrackState.LOST)]) if last == "north" else (ref(2, "west"), [])
        ((own, other),) = paths.update(frame, tracks, [gone]).values()
        assert (own.ulid, own.camera) == (track(1).ulid, None) and (other.ulid, other.camera) == ("west", "west")
        assert [len(each.boxes) for each in (own, other)] == [1, 1]
        for camera in ("north", "west"):
            paths.update(ref(3, camera), [], [])
        assert not any(session.tracks for session in paths._sessions.values())


def test_an_alert_that_goes_on_after_its_end_has_its_whole_track_again() -> None:
    paths, opened = TrackPaths(), raised(track(1))
    alert = opened[0].id
    paths.update(at(0), [track(1)], opened)
    bird = event(LOWERED, track(1, 10), alert=alert, severity=Severity.INFO)
    assert [len(each) for each in paths.update(at(10), [track(1, 10)], [bird]).values()] == [1]
    paths.update(at(20), [track(1, 20)], [event(ESCALATED, track(1, 20), alert=alert)])
    lost = track(1, 30, state=TrackState.LOST)
    assert not paths.update(at(30), [lost], [])
    ((path,),) = paths.update(at(40), [], [event(ENDED, lost, alert=alert)]).values()
    assert [box.frame for box in path.boxes] == [0, 10, 20]


def test_tracks_without_an_alert_are_forgotten_and_make_way() -> None:
    paths = TrackPaths()
    for number in range(3 * MAX_TRACKS):
        paths.update(at(number), [track(number, number)], [])
    opened = raised(track(1000, 999))
    paths.update(at(999), [track(1000, 999)], opened)
    for number in range(2000, 2000 + 2 * MAX_TRACKS):
        paths.update(at(1000), [track(1000, 1000), track(number, 1000)], [])
    assert len(paths._sessions["north"].tracks) <= MAX_TRACKS
    ((path,),) = paths.update(at(1001), [], [event(ENDED, track(1000, 1000), alert=opened[0].id)]).values()
    assert len(path.boxes) == 1


def test_a_new_session_and_a_closed_one_start_anew() -> None:
    paths, opened = TrackPaths(), raised(track(1))
    paths.update(at(0), [track(1)], opened)
    ended = [event(ENDED, track(1), alert=opened[0].id)]
    assert list(paths.update(at(0, "s2"), [], ended).values()) == [[]]
    paths.update(at(1, "s2"), [track(1)], opened)
    paths.close("north")
    assert list(paths.update(at(2, "s2"), [], ended).values()) == [[]]
