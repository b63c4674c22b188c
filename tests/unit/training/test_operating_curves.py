"""What suppression costs, and how far scores can be believed, on detections made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.program import REPOSITORY
from support.scenes import Target, frame

from model.metadata import Thresholds
from training.datasets import Clip, LabelledObject
from training.evaluation import calibration, label_margins
from training.evaluation.calibration import ScoreBin, calibration_error, score_bins, scored
from training.evaluation.threshold_curve import SUPPRESSION_LOG_ODDS, CameraCurve, Point, clip_points, table

FRAMES = 30
LIKE_A_BIRD = (0.4, 0.6, 0.1, 0.1)  # log-odds of uav against bird: -0.81
THRESHOLDS = {"infrared": Thresholds()}


def flight(seq: int) -> Target:
    return (100.0 + 4 * seq, 100.0, 10.0, LIKE_A_BIRD)


def clip(kind: str) -> Clip:
    frames = tuple((LabelledObject(0, kind, (94.0 + 4 * seq, 94.0, 106.0 + 4 * seq, 106.0)),) for seq in range(FRAMES))
    return Clip("c", Path("c.mp4"), "infrared", kind, "hard", 30.0, 640, 512, frames, camera=f"of {kind}s")


def points(kind: str) -> list[Point]:
    return list(clip_points(clip(kind), [frame(seq, [flight(seq)]) for seq in range(FRAMES)], THRESHOLDS))


def test_a_lower_threshold_suppresses_the_drone_and_the_bird_alike():
    drones, birds = points("drone"), points("bird")
    suppressed = [log_odds < 0.81 for log_odds in SUPPRESSION_LOG_ODDS]
    assert [point.suppressed for point in drones] == suppressed
    assert [point.suppressed_share for point in drones] == suppressed
    assert [point.alarmed for point in birds] == [(int(not silent), 1) for silent in suppressed]
    assert {point.tracked.found for point in drones} == {1}  # by a track, suppressed or not


def test_a_camera_without_distractors_is_shown_against_those_of_its_band():
    drones, birds = points("drone"), points("bird")
    curves = {
        ("set hard", camera): CameraCurve("infrared", own, birds) for camera, own in (("a", drones), ("b", birds))
    }
    lines = table(curves).splitlines()
    # Its class is sure, and the track confirmed, at the 14th of 30 frames: F1 is 2 * 17 / (17 + 30).
    assert lines[2] == "| set hard | a | +0.8 | 1 of 1 (0.025-1.000) | 1.000 | 0.000 | 0 of 1 (0.000-0.975) |"
    assert lines[2 + 16] == "| set hard | a | -2.4 | 0 of 1 (0.000-0.975) | 0.000 | 0.723 | 1 of 1 (0.025-1.000) |"
    assert lines[2 + 17].startswith("| set hard | b | +0.8 | 0 of 0 (0.000-1.000) | nan |")


def test_a_detection_matches_a_label_of_any_class_in_labelled_frames_only():
    off = (400.0, 400.0, 10.0, LIKE_A_BIRD)
    seen = [
        replace(frame(seq, [flight(seq), off]), score=np.array([0.9, 0.3], np.float32)) for seq in range(FRAMES + 1)
    ]
    scores, matches = scored(clip("bird"), [*seen, frame(FRAMES + 2, [])])
    assert len(scores) == 2 * FRAMES
    assert matches[scores > 0.5].all() and not matches[scores < 0.5].any()


def test_bins_hold_the_share_that_matches_with_bounds_over_recordings():
    random = np.random.default_rng(0)
    clips = [(scores, random.random(200) < scores) for scores in random.random((30, 200))]
    bins = score_bins(clips)
    assert len(bins) == 10 and sum(one.detections for one in bins) == 6000
    assert all(one.bounds is not None and one.bounds[0] < one.matched < one.bounds[1] for one in bins)
    assert calibration_error(bins) < 0.03
    certain = score_bins([(np.array([1.0, 1.0, 0.05]), np.array([True, False, False]))])
    assert certain == [ScoreBin(1, 0.05, 0.0, None), ScoreBin(2, 1.0, 0.5, None)]
    assert calibration_error(certain) == pytest.approx((0.05 + 2 * 0.5) / 3)
    assert "| a | 0.050 | 0.000 | 1 |" in calibration.table({"a": certain})


def test_the_margin_of_labels_is_measured_on_real_clips(capsys: pytest.CaptureFixture[str]):
    label_margins.run(REPOSITORY / "tests" / "data")
    camera, clips, margin_px = capsys.readouterr().out.splitlines()[2].strip("| ").split(" | ")
    assert (camera, clips) == ("dronedet_infrared", "3")
    assert float(margin_px) == pytest.approx(label_margins.LABEL_MARGIN_PX[camera], abs=1.5)
