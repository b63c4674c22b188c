"""Tracks are confirmed, labelled and lost, and their alerts opened and ended, each once and in order."""

from support.events import CONFIRMED, ENDED, LABELLED, LOST, OPENED
from support.scenes import SURE_BIRD, SURE_UAV, UNSURE, frame

from model.metadata import Metadata, Thresholds
from pipeline.alerting.incidents import END_S
from pipeline.tracking.policy import Policy
from pipeline.tracking.stage import TrackStage
from pipeline.types import Band, Event, Severity

CALIBRATED = {"north": Policy(calibrated=True)}


def events_of(frames: list, policies: dict[str, Policy] = CALIBRATED) -> list[Event]:
    stage = TrackStage(Metadata().thresholds, policies)
    events: list[Event] = []
    for detections in frames:
        events += stage.update(detections).events
    closing = stage.close("north")
    return events + (closing.events if closing else [])


def test_a_target_raises_one_alert_and_ends_it():
    frames = [frame(seq, [(50 + 5 * seq, 100, 10, SURE_UAV)] if seq < 40 else []) for seq in range(200)]
    confirmed, opened, lost, ended = events_of(frames)
    for first, kind in ((confirmed, CONFIRMED), (opened, OPENED)):
        assert (first.kind, first.severity, first.frame, first.alert) == (kind, Severity.ALARM, 3, confirmed.id)
    assert (lost.kind, lost.alert, lost.severity) == (LOST, confirmed.id, Severity.INFO)
    assert (ended.kind, ended.alert, ended.severity) == (ENDED, confirmed.id, Severity.INFO)
    assert {event.track.ulid for event in (confirmed, opened, lost, ended) if event.track} == {lost.track.ulid}
    assert opened.time_utc_ns == frames[3].ref.received_utc_ns
    assert 1.0 < lost.pts_s - 39 / 30 < 1.1 and END_S < ended.pts_s - 39 / 30 < END_S + 0.1


def test_an_unknown_target_is_alerted_at_a_lower_severity_and_a_bird_is_only_labelled():
    unsure = events_of([frame(seq, [(50 + 5 * seq, 100, 10, UNSURE)]) for seq in range(60)])
    assert [(e.kind, e.severity) for e in unsure[:2]] == [(CONFIRMED, Severity.WARNING), (OPENED, Severity.WARNING)]
    bird = events_of([frame(seq, [(50 + 5 * seq, 100, 10, SURE_BIRD)]) for seq in range(20)])
    assert [(e.kind, e.severity, e.alert) for e in bird] == [(LABELLED, Severity.INFO, None)]


def test_where_the_camera_is_not_calibrated_a_bird_is_alerted_at_the_lower_severity_with_the_reason():
    bird = events_of([frame(seq, [(50 + 5 * seq, 100, 10, SURE_BIRD)]) for seq in range(20)], policies={})
    assert [e.kind for e in bird] == [CONFIRMED, OPENED, LOST, ENDED]
    assert bird[0].severity is Severity.WARNING
    assert bird[0].track is not None and bird[0].track.reason == "camera not calibrated"


def test_the_thresholds_of_the_camera_s_band_apply():
    low, high = Thresholds(distractor_log_odds=0.0), Thresholds(distractor_log_odds=9.0)
    for band, kind in ((Band.INFRARED, CONFIRMED), (Band.VISIBLE, LABELLED)):
        stage = TrackStage({"infrared": high, "visible": low}, CALIBRATED)
        frames = [frame(seq, [(50 + 5 * seq, 100, 10, SURE_BIRD)], band=band) for seq in range(20)]
        events = [event for seen in frames for event in stage.update(seen).events]
        assert events[0].kind is kind and all(event.kind is not LABELLED for event in events[1:])


def test_a_bird_relabelled_as_uav_is_alerted_then():
    scores = [SURE_BIRD] * 6 + [SURE_UAV] * 30
    events = events_of([frame(seq, [(50 + 5 * seq, 100, 10, s)]) for seq, s in enumerate(scores)])
    assert [e.kind for e in events if e.kind.startswith("track.")] == [LABELLED, CONFIRMED, LOST]
    assert events[1].frame > 6


def test_an_outcome_has_the_tracks_and_events_of_its_frame_and_the_times_of_both():
    stage = TrackStage(Metadata().thresholds)
    frames = [frame(seq, [(50 + 5 * seq, 100, 10, SURE_UAV)]) for seq in range(4)]
    outcome = [stage.update(detections) for detections in frames][-1]
    assert outcome.ref == frames[-1].ref
    assert [event.track for event in outcome.events] == 2 * outcome.tracks
    assert outcome.track_ns > 0 and outcome.alert_ns > 0


def test_ids_of_events_are_unique_and_the_same_every_time():
    frames = [frame(seq, [(50 + 5 * seq, 100, 10, SURE_UAV), (50 + 5 * seq, 300, 10, UNSURE)]) for seq in range(60)]
    first, second = events_of(frames), events_of(frames)
    assert first == second
    assert len({event.id for event in first}) == len(first) == 8


def test_closing_a_session_ends_its_alerts():
    stage = TrackStage(Metadata().thresholds)
    for seq in range(10):
        detections = frame(seq, [(50 + 5 * seq, 100, 10, SURE_UAV)])
        stage.update(detections)
        assert stage.session("north") == "s1" and stage.classes("north") == detections.classes
    closing = stage.close("north")
    assert stage.session("north") is None and stage.classes("north") is None
    assert closing is not None and [event.kind for event in closing.events] == [LOST, ENDED]
    assert stage.close("north") is None
