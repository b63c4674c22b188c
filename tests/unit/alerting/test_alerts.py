"""One alert per target: opened once, ended once, never one per frame; distractors are stored without one."""

from support.scenes import SURE_BIRD, SURE_UAV, UNSURE, frame

from model.metadata import Metadata, Thresholds
from pipeline.tracking.policy import Policy
from pipeline.tracking.stage import TrackStage
from pipeline.types import Band, Event, EventKind, Severity

CALIBRATED = {"north": Policy(calibrated=True)}


def events_of(frames: list, policies: dict[str, Policy] = CALIBRATED) -> list[Event]:
    stage = TrackStage(Metadata().thresholds, policies)
    events: list[Event] = []
    for detections in frames:
        events += stage.update(detections).events
    closing = stage.close("north")
    return events + (closing.events if closing else [])


def test_a_target_raises_one_alert_and_ends_it():
    frames = [frame(seq, [(50 + 5 * seq, 100, 10, SURE_UAV)] if seq < 40 else []) for seq in range(100)]
    opened, ended = events_of(frames)
    assert (opened.kind, opened.severity, opened.frame) == (EventKind.TRACK_CONFIRMED, Severity.ALARM, 3)
    assert (ended.kind, ended.alert) == (EventKind.TRACK_LOST, opened.id)
    assert opened.track is not None and ended.track is not None
    assert opened.track.ulid == ended.track.ulid
    assert opened.time_utc_ns == frames[3].ref.received_utc_ns


def test_an_unknown_target_is_alerted_at_a_lower_severity_and_a_bird_is_only_labelled():
    unsure = events_of([frame(seq, [(50 + 5 * seq, 100, 10, UNSURE)]) for seq in range(40)])
    assert (unsure[0].kind, unsure[0].severity) == (EventKind.TRACK_CONFIRMED, Severity.WARNING)
    bird = events_of([frame(seq, [(50 + 5 * seq, 100, 10, SURE_BIRD)]) for seq in range(20)])
    assert [(e.kind, e.severity) for e in bird] == [(EventKind.TRACK_LABELLED, Severity.INFO)]


def test_where_the_camera_is_not_calibrated_a_bird_is_alerted_at_the_lower_severity_with_the_reason():
    bird = events_of([frame(seq, [(50 + 5 * seq, 100, 10, SURE_BIRD)]) for seq in range(20)], policies={})
    assert [e.kind for e in bird] == [EventKind.TRACK_CONFIRMED, EventKind.TRACK_LOST]
    assert bird[0].severity is Severity.WARNING
    assert bird[0].track is not None and bird[0].track.reason == "camera not calibrated"


def test_the_thresholds_of_the_camera_s_band_apply():
    low, high = Thresholds(distractor_log_odds=0.0), Thresholds(distractor_log_odds=9.0)
    for band, kind in ((Band.INFRARED, EventKind.TRACK_CONFIRMED), (Band.VISIBLE, EventKind.TRACK_LABELLED)):
        stage = TrackStage({"infrared": high, "visible": low}, CALIBRATED)
        frames = [frame(seq, [(50 + 5 * seq, 100, 10, SURE_BIRD)], band=band) for seq in range(20)]
        events = [event for seen in frames for event in stage.update(seen).events]
        assert [event.kind for event in events] == [kind]


def test_a_bird_relabelled_as_uav_is_alerted_then():
    scores = [SURE_BIRD] * 6 + [SURE_UAV] * 30
    events = events_of([frame(seq, [(50 + 5 * seq, 100, 10, s)]) for seq, s in enumerate(scores)])
    assert [e.kind for e in events] == [EventKind.TRACK_LABELLED, EventKind.TRACK_CONFIRMED, EventKind.TRACK_LOST]
    assert events[1].frame > 6


def test_an_outcome_has_the_tracks_and_events_of_its_frame_and_the_times_of_both():
    stage = TrackStage(Metadata().thresholds)
    frames = [frame(seq, [(50 + 5 * seq, 100, 10, SURE_UAV)]) for seq in range(4)]
    outcome = [stage.update(detections) for detections in frames][-1]
    assert outcome.ref == frames[-1].ref
    assert [event.track for event in outcome.events] == outcome.tracks
    assert outcome.track_ns > 0 and outcome.alert_ns > 0


def test_ids_of_events_are_unique_and_the_same_every_time():
    frames = [frame(seq, [(50 + 5 * seq, 100, 10, SURE_UAV), (50 + 5 * seq, 300, 10, UNSURE)]) for seq in range(40)]
    first, second = events_of(frames), events_of(frames)
    assert first == second
    assert len({event.id for event in first}) == len(first) == 4


def test_closing_a_session_ends_its_alerts():
    stage = TrackStage(Metadata().thresholds)
    for seq in range(10):
        detections = frame(seq, [(50 + 5 * seq, 100, 10, SURE_UAV)])
        stage.update(detections)
        assert stage.session("north") == "s1" and stage.classes("north") == detections.classes
    closing = stage.close("north")
    assert stage.session("north") is None and stage.classes("north") is None
    assert closing is not None and [event.kind for event in closing.events] == [EventKind.TRACK_LOST]
    assert stage.close("north") is None
