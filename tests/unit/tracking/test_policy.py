"""Roles, calibration and known cameras: what confirms a track, how long its class is awaited, what is suppressed."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.scenes import SURE_BIRD, SURE_UAV, UNSURE, frame

from model.metadata import Thresholds
from pipeline.config.calibration import Calibration
from pipeline.config.file import load
from pipeline.tracking.camera_settings import policies_of
from pipeline.tracking.policy import Policy
from pipeline.tracking.stage import TrackStage
from pipeline.tracking.tracker import Tracker
from pipeline.types import Band, Detections, Track, TrackState

FPS = 30
CALIBRATED, UNCALIBRATED = Policy(calibrated=True), Policy()
FOURTH_SIGHTING_S = 3 / FPS


def flight(
    seconds: float, class_scores: Sequence[float] = SURE_UAV, score: float = 0.9, novelty: float = 0.5
) -> list[Detections]:
    """A target that flies straight, at frames of 640x512."""
    frames = [frame(seq, [(50 + 3 * seq, 100, 10, class_scores)]) for seq in range(round(seconds * FPS))]
    return [
        replace(one, score=np.full(1, score, np.float32), novelty=np.full(1, novelty, np.float32)) for one in frames
    ]


def tracked(frames: list[Detections], policy: Policy, **thresholds: object) -> list[Track]:
    """Return the first target's track at each frame at which it is confirmed."""
    tracker = Tracker("north", "s1", Thresholds(**thresholds), policy=policy)
    tracks = [track for one in frames for track in tracker.update(one)]
    return [track for track in tracks if track.id == 1 and track.state is TrackState.CONFIRMED]


def confirmed_after_s(frames: list[Detections], policy: Policy, **thresholds: object) -> float | None:
    tracks = tracked(frames, policy, **thresholds)
    return tracks[0].last_seen.pts_s if tracks else None


def test_the_role_chooses_how_much_evidence_confirms():
    """A score of 0.6 is 0.405 a look, of which there is one every 0.15 s."""
    limits = {"confirm_log_odds": 6.0, "record_log_odds": 1.0}
    assert confirmed_after_s(flight(3, score=0.6), Policy("alert"), **limits) == pytest.approx(2.07, abs=0.05)
    assert confirmed_after_s(flight(3, score=0.6), Policy("record"), **limits) == pytest.approx(0.22, abs=0.05)
    assert confirmed_after_s(flight(5, score=0.55), Policy("alert"), **limits) is None
    assert confirmed_after_s(flight(5, score=0.55), Policy("record"), **limits) == pytest.approx(0.6, abs=0.05)
    assert confirmed_after_s(flight(3, score=0.98), Policy("alert"), **limits) == pytest.approx(FOURTH_SIGHTING_S)


def test_the_sites_role_and_calibrations_make_the_policies(tmp_path: Path):
    site = tmp_path / "site.yaml"
    site.write_text("model: {role: record}\ncameras: [{id: north, uri: 'demo:a'}, {id: south, uri: 'demo:b'}]\n")
    calibration = Calibration.model_validate(
        {
            "version": 1, "camera": "south", "band": "visible", "frame_size_px": [640, 512], "checkpoint": "ab" * 32,
            "role": "record", "hours": 15, "created_utc_ns": 0, "noise_map": [[1.0]],
            "limits": {"alert_log_odds": 1.5, "alarms_per_hour": 0.2},
        }
    )  # fmt: skip
    policies = policies_of(load(site), {"south": calibration})
    assert policies == {"north": Policy("record"), "south": Policy("record", True, 1.5, (640, 512))}


def test_frames_without_a_detection_count_against_a_track_that_is_not_confirmed_yet():
    """Two of three frames are as many as it takes; what is missing outweighs detections of a score of 0.6."""
    every, gaps = flight(3, score=0.6), flight(3, score=0.6)
    gaps[2::3] = [frame(one.ref.seq, []) for one in gaps[2::3]]
    assert tracked(every, UNCALIBRATED, confirm_log_odds=1.0)
    assert not tracked(gaps, UNCALIBRATED, confirm_log_odds=1.0)
    assert tracked(gaps, UNCALIBRATED)  # seen often enough


def test_the_assessments_limit_applies_to_the_mean():
    """A score of 0.9 has log-odds of 2.2, for however long it is seen."""
    assert confirmed_after_s(flight(3), Policy(calibrated=True, alert_log_odds=2.1)) is not None
    assert confirmed_after_s(flight(3), Policy(calibrated=True, alert_log_odds=2.3)) is None


@pytest.mark.parametrize(
    ("policy", "known_sizes", "label", "reason"),
    [
        (UNCALIBRATED, (), "unknown", "camera not calibrated"),
        (UNCALIBRATED, ("320x256", "512x640"), "unknown", "camera not calibrated"),
        (UNCALIBRATED, ("320x256", "640x512"), "bird", None),
        (CALIBRATED, (), "bird", None),
        (Policy(calibrated=True, frame_size_px=(640, 512)), (), "bird", None),
        (Policy(calibrated=True, frame_size_px=(320, 256)), (), "unknown", "camera not calibrated"),
    ],
)
def test_a_distractor_is_suppressed_on_cameras_of_a_known_size_and_calibrated_ones(
    policy: Policy, known_sizes: tuple[str, ...], label: str, reason: str | None
):
    last = tracked(flight(1, SURE_BIRD), policy, known_sizes=known_sizes)[-1]
    assert (last.label, last.reason) == (label, reason)
    assert last.is_target == (label == "unknown")


def test_what_is_unlike_training_is_not_suppressed_and_says_why():
    strange = tracked(flight(1, SURE_BIRD, novelty=2.0), CALIBRATED, max_novelty=1.5)[-1]
    assert (strange.label, strange.reason, strange.novelty) == ("unknown", "unlike training", 2.0)
    uav = tracked(flight(1, SURE_UAV, novelty=2.0), CALIBRATED, max_novelty=1.5)[-1]
    assert (uav.label, uav.reason) == ("uav", None)


def test_what_becomes_familiar_is_suppressed_then():
    frames = flight(6, SURE_BIRD, novelty=2.0)[:60] + flight(6, SURE_BIRD, novelty=0.5)[60:]
    tracks = tracked(frames, CALIBRATED, max_novelty=1.5)
    assert tracks[0].reason == "unlike training"
    assert (tracks[-1].label, tracks[-1].reason) == ("bird", None)


def test_a_suppressed_track_is_reported_only_beyond_the_margin():
    """Suppressed below -0.8, reported again above 1.2; the camera's motion, and so the target's own, is unknown."""

    def with_odds(before: float, after: float) -> str:
        sure, other = ((1 / (1 + math.exp(-uav)), 0.5, 0.1, 0.1) for uav in (before, after))
        frames = flight(12, sure)[:60] + flight(12, other)[60:]
        unknown_motion = [replace(one, camera_shift_px=None) for one in frames]
        return tracked(unknown_motion, CALIBRATED, distractor_log_odds=0.8)[-1].label

    assert with_odds(-1.5, 1.0) == "bird"
    assert with_odds(-1.5, 1.4) == "uav"
    assert with_odds(-0.4, -0.4) == "unknown"


def test_a_track_that_turns_out_to_be_clutter_is_labelled_so_on_any_camera():
    frames = flight(8, score=0.9)[:30] + flight(8, score=0.05)[30:]
    tracks = tracked(frames, UNCALIBRATED)
    assert (tracks[0].label, tracks[-1].label) == ("uav", "clutter")
    assert not tracks[-1].is_target
    doubtful = flight(8, score=0.9)[:30] + flight(8, score=0.3)[30:]
    assert tracked(doubtful, UNCALIBRATED)[-1].label == "uav"  # within the margin for what was reported


def test_the_class_is_awaited_for_a_while_where_distractors_may_be_suppressed():
    assert confirmed_after_s(flight(2, UNSURE), CALIBRATED) == pytest.approx(1.5)
    assert confirmed_after_s(flight(2, UNSURE), UNCALIBRATED) == pytest.approx(FOURTH_SIGHTING_S)
    assert confirmed_after_s(flight(2, UNSURE), UNCALIBRATED, known_sizes=("640x512",)) == pytest.approx(1.5)


@pytest.mark.parametrize("class_scores", [SURE_UAV, SURE_BIRD])
def test_a_sure_class_ends_the_wait(class_scores: Sequence[float]):
    assert confirmed_after_s(flight(2, class_scores), CALIBRATED) == pytest.approx(FOURTH_SIGHTING_S)


def test_of_a_single_class_there_is_nothing_to_wait_for():
    frames = [replace(one, classes=("uav",), class_scores=one.class_scores[:, :1]) for one in flight(2, score=0.9)]
    assert confirmed_after_s(frames, CALIBRATED) == pytest.approx(FOURTH_SIGHTING_S)


def test_a_new_calibration_applies_to_the_session_in_progress():
    stage = TrackStage({band: Thresholds() for band in Band})
    flying = flight(3, SURE_BIRD)
    first = [stage.update(one).tracks for one in flying[:45]][-1]
    stage.policies = {"north": CALIBRATED}
    last = [stage.update(one).tracks for one in flying[45:]][-1]
    assert [track.label for track in first] == ["unknown"] and [track.label for track in last] == ["bird"]
