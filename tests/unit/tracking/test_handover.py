"""Tracks and alerts go on, with their ids, in the tracker of another host; what is gone meanwhile is ended once."""

import pytest
from msgspec.structs import replace
from support.events import CONFIRMED, ENDED, LOST, OPENED
from support.scenes import SURE_BIRD, SURE_UAV, Target, frame

from model.metadata import Metadata
from pipeline.errors import WireError
from pipeline.tracking.handover import CONTINUE_S, decoded, encoded
from pipeline.tracking.policy import Policy
from pipeline.tracking.stage import TrackStage
from pipeline.types import Detections, Event, Track, TrackState

CALIBRATED = {"north": Policy(calibrated=True)}
LAST = 60  # number of the first owner's last frame, at 30 frames/s


def flight(seq: float) -> list[Target]:
    """Two targets that cross the view in opposite directions, apart; a bird."""
    near = [(100 + 1.5 * seq, 100.0, 12.0, SURE_UAV), (540 - 1.5 * seq, 300.0, 12.0, SURE_UAV)]
    return [*near, (100 + 2.0 * seq, 450.0, 10.0, SURE_BIRD)]


def frames_after(gap_s: float, count: int, targets: bool = True) -> list[Detections]:
    """The frames that the next owner's capture worker sends: a new session whose times begin anew."""
    made = []
    for seq in range(count):
        true_seq = LAST + gap_s * 30 + seq
        made.append(frame(seq, flight(true_seq) if targets else [], session="s2"))
    return made


def handed_over() -> tuple[TrackStage, list[Event], bytes]:
    stage = TrackStage(Metadata().thresholds, CALIBRATED)
    events = [event for seq in range(LAST + 1) for event in stage.update(frame(seq, flight(seq))).events]
    state = stage.state("north")
    assert state is not None
    return stage, events, encoded(state)


def continued(data: bytes, gap_s: float, frames: list[Detections]) -> tuple[list[list[Track]], list[Event]]:
    stage = TrackStage(Metadata().thresholds, CALIBRATED)
    stage.inherit(decoded(data), frames[0].ref, frames[0].band, gap_s)
    outcomes = [stage.update(detections) for detections in frames]
    return [outcome.tracks for outcome in outcomes], [event for outcome in outcomes for event in outcome.events]


@pytest.mark.parametrize("gap_s", [0.2, 1.5, 3.0, 5.0])
def test_tracks_keep_their_ids_and_alerts_go_on(gap_s: float):
    first, events, data = handed_over()
    before = {track.ulid: track for track in first.update(frame(LAST + 1, flight(LAST + 1))).tracks}
    tracks, after = continued(data, gap_s, frames_after(gap_s, 200))
    assert not after, [event.kind for event in after]
    shown = {track.ulid: track for track in tracks[-1] if track.state is TrackState.CONFIRMED}
    assert shown.keys() == before.keys()
    for ulid, track in shown.items():
        assert (track.id, track.label) == (before[ulid].id, before[ulid].label)
        assert (
            track.hits > before[ulid].hits
            and track.first_seen.received_utc_ns == before[ulid].first_seen.received_utc_ns
        )
        assert track.session == "s2"
    assert [event.kind for event in events].count(OPENED) == 2


def test_a_new_target_has_a_new_number():
    _, _, data = handed_over()
    frames = [replace_targets(each, seq) for seq, each in enumerate(frames_after(1.0, 40))]
    _, events = continued(data, 1.0, frames)
    new = [event for event in events if event.kind is CONFIRMED]
    numbers = {track.id for track in decoded_tracks(data)}
    assert len(new) == 1 and new[0].track is not None and new[0].track.id not in numbers
    assert new[0].alert not in {incident.alert for incident in decoded(data).incidents}


def replace_targets(detections: Detections, seq: int) -> Detections:
    return frame(seq, [*flight(LAST + 30 + seq), (320.0, 20.0 + 2 * seq, 12.0, SURE_UAV)], session="s2")


def decoded_tracks(data: bytes) -> list[Track]:
    return [track for incident in decoded(data).incidents for track in incident.tracks]


@pytest.mark.parametrize("gap_s", [1.0, CONTINUE_S + 1, 3600.0])
def test_targets_that_are_gone_are_lost_and_their_alerts_ended_once(gap_s: float):
    _, _, data = handed_over()
    _, events = continued(data, gap_s, frames_after(gap_s, 200, targets=False))
    alerts = {incident.alert for incident in decoded(data).incidents}
    assert [event.kind for event in events] == [LOST, LOST, ENDED, ENDED]
    assert {event.alert for event in events} == alerts and len(alerts) == 2


def test_after_too_long_a_target_that_is_there_is_another_one():
    _, _, data = handed_over()
    _, events = continued(data, CONTINUE_S + 1, frames_after(0.0, 200))
    assert [event.kind for event in events].count(LOST) == 2


def test_the_state_can_be_handed_on_again():
    _, _, data = handed_over()
    stage = TrackStage(Metadata().thresholds, CALIBRATED)
    frames = frames_after(1.0, 30)
    stage.inherit(decoded(data), frames[0].ref, frames[0].band, 1.0)
    for each in frames:
        stage.update(each)
    again = stage.state("north")
    assert again is not None
    assert {one.ulid for one in again.tracklets} == {one.ulid for one in decoded(data).tracklets}
    assert {one.alert for one in again.incidents} == {one.alert for one in decoded(data).incidents}


def test_what_another_version_left_is_refused():
    _, _, data = handed_over()
    with pytest.raises(WireError, match=r"tracks of the last owner of version 2: must be 1"):
        decoded(encoded(replace(decoded(data), version=2)))
    for broken in (b"", b"[]", data[:-9]):
        with pytest.raises(WireError, match="tracks of the last owner"):
            decoded(broken)
