"""What a track's detections say of it: target or clutter, which class, how novel, and when that may suppress it."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from support.scenes import CLASSES, NO_NAMES, SURE_BIRD, SURE_UAV, UNSURE

from model.metadata import Thresholds
from pipeline.tracking.evidence import INDEPENDENT_S, LIMIT, Evidence, Label, class_log_odds, log_odds

TIME_CONSTANT_S = 2.5
LIKELY_BIRD = (0.4, 0.6, 0.1, 0.1)  # log-odds of uav against bird: -0.81
LIKELY_UAV = (0.6, 0.4, 0.1, 0.1)


def scores(values: Sequence[object]) -> np.ndarray:
    return np.array(values, np.float32)


def classes_of(values: Sequence[float]) -> list[float] | None:
    """Return a detection's class evidence; None where it was not classified."""
    return class_log_odds(scores(values)[None])[0].tolist() if any(values) else None


def seen(
    seconds: float = 1.0,
    class_scores: Sequence[float] = UNSURE,
    score: float = 0.9,
    novelty: float = 0.5,
    fps: float = 20,
    into: Evidence | None = None,
    start_s: float = 0.0,
) -> Evidence:
    """Return the evidence of detections that are all alike, at both ends of the time too."""
    evidence = into or Evidence(CLASSES, TIME_CONSTANT_S)
    for number in range(round(seconds * fps) + 1):
        evidence.add(start_s + number / fps, log_odds(score), classes_of(class_scores), novelty)
    return evidence


def label(evidence: Evidence, may_suppress: bool = True, margin: float = 0.0, **thresholds: float) -> Label:
    return evidence.label(Thresholds(**thresholds), may_suppress=may_suppress, margin=margin)


def test_log_odds_of_a_score_are_bounded():
    assert log_odds(0.5) == 0
    assert log_odds(0.9) == pytest.approx(math.log(9)) and log_odds(0.1) == pytest.approx(-math.log(9))
    assert (log_odds(0.0), log_odds(1.0)) == (-LIMIT, LIMIT)


def test_a_class_is_compared_with_the_best_other_one():
    np.testing.assert_allclose(
        class_log_odds(scores(((0.8, 0.3, 0.1, 0.1), (0.3, 0.8, 0.8, 0.1)))),
        [
            np.log([4, 3 / 7, 1 / 9, 1 / 9]) - np.log([3 / 7, 4, 4, 4]),
            np.log([3 / 7, 4, 4, 1 / 9]) - np.log([4, 4, 4, 4]),
        ],
        atol=1e-5,
    )
    assert class_log_odds(scores(((1.0, 0.0),))).tolist() == [[LIMIT, -LIMIT]]
    assert class_log_odds(scores(((0.7,),))).tolist() == [[0]]
    assert class_log_odds(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_before_the_first_detection_nothing_is_known():
    evidence = Evidence(CLASSES, TIME_CONSTANT_S)
    assert (evidence.target, evidence.novelty, evidence.by_class()) == (0, 0, dict.fromkeys(CLASSES, 0))
    assert label(evidence) == Label("unknown")


def test_earlier_evidence_decays_with_time():
    evidence = Evidence(CLASSES, TIME_CONSTANT_S)
    evidence.add(0.0, log_odds(0.1), classes_of(SURE_BIRD), 2.0)
    evidence.add(TIME_CONSTANT_S, log_odds(0.9), classes_of(SURE_UAV), 1.0)
    old, new = math.exp(-1), 1.0
    assert evidence.target == pytest.approx(math.log(9) * (new - old) / (new + old))
    assert evidence.novelty == pytest.approx((2 * old + new) / (new + old))
    assert evidence.by_class()["uav"] == pytest.approx(LIMIT * (new - old) / (new + old), abs=1e-4)


@pytest.mark.parametrize("fps", [5, 20, 60])
def test_the_total_grows_with_the_time_of_observation_not_with_the_frames(fps: float):
    assert seen(0.6, fps=fps).total == pytest.approx(math.log(9) * (1 + 0.6 / INDEPENDENT_S))
    assert seen(0.6, LIKELY_UAV, fps=fps).uav_total == pytest.approx(0.811 * (1 + 0.6 / INDEPENDENT_S), rel=1e-3)


def test_the_total_is_bounded_by_what_is_remembered():
    assert seen(10).total == pytest.approx(math.log(9) * (1 + TIME_CONSTANT_S / INDEPENDENT_S))
    assert seen(0).total == pytest.approx(math.log(9))


def test_a_single_confident_frame_does_not_decide():
    evidence = seen(0.5, LIKELY_BIRD, score=0.3)
    evidence.add(0.55, log_odds(1.0), classes_of((1.0, 0.0, 0.0, 0.0)), 0.5)
    assert evidence.target < 0 and evidence.by_class()["uav"] < 0


def test_a_miss_is_evidence_for_clutter_alone():
    evidence = seen(0, SURE_UAV, novelty=1.2)
    evidence.miss(TIME_CONSTANT_S, log_odds(0.1))
    old, new = math.exp(-1), 1.0
    assert evidence.target == pytest.approx(math.log(9) * (old - new) / (old + new))
    assert evidence.by_class() == seen(0, SURE_UAV).by_class() and evidence.novelty == pytest.approx(1.2)


def test_what_was_not_judged_says_nothing_of_class_and_novelty():
    evidence = seen(0.5, SURE_UAV, novelty=1.2)
    both = seen(0.5, NO_NAMES, novelty=0.0, into=seen(0.5, SURE_UAV, novelty=1.2), start_s=0.55)
    assert both.by_class() == evidence.by_class() and both.novelty == pytest.approx(1.2)
    assert label(seen(0.5, NO_NAMES)) == Label("unknown")


def test_motion_counts_for_a_uav_whose_class_was_compared():
    evidence, still = seen(class_scores=LIKELY_BIRD), seen(class_scores=LIKELY_BIRD)
    evidence.motion = 1.5
    assert evidence.by_class()["uav"] == pytest.approx(still.by_class()["uav"] + 1.5, abs=1e-3)
    assert evidence.by_class()["bird"] == still.by_class()["bird"]
    assert (label(still, distractor_log_odds=0.5).name, label(evidence, uav_log_odds=0.5).name) == ("bird", "uav")
    unclassified = seen(class_scores=NO_NAMES)
    unclassified.motion = 1.5
    assert unclassified.by_class()["uav"] == 0


@pytest.mark.parametrize(
    ("class_scores", "expected"),
    [(SURE_UAV, "uav"), (SURE_BIRD, "bird"), (UNSURE, "unknown"), ((0.1, 0.1, 0.2, 0.9), "helicopter")],
)
def test_the_label_is_that_of_the_class(class_scores: Sequence[float], expected: str):
    assert label(seen(class_scores=class_scores)) == Label(expected)


def test_between_the_two_thresholds_the_label_is_unknown():
    like_a_bird, like_a_uav = seen(class_scores=LIKELY_BIRD), seen(class_scores=LIKELY_UAV)
    assert label(like_a_bird, distractor_log_odds=0.80).name == "bird"
    assert label(like_a_bird, distractor_log_odds=0.82) == Label("unknown")
    assert label(like_a_uav, uav_log_odds=0.80).name == "uav"
    assert label(like_a_uav, uav_log_odds=0.82) == Label("unknown")


def test_a_margin_makes_suppression_harder_or_easier():
    like_a_bird = seen(class_scores=LIKELY_BIRD)
    assert label(like_a_bird, margin=0.5, distractor_log_odds=0.5).name == "unknown"
    assert label(like_a_bird, margin=-0.5, distractor_log_odds=1.2).name == "bird"


def test_a_distractor_is_suppressed_only_where_the_camera_is_known():
    assert label(seen(class_scores=SURE_BIRD), may_suppress=False) == Label("unknown", "camera not calibrated")
    assert label(seen(class_scores=SURE_UAV), may_suppress=False) == Label("uav")
    assert label(seen(class_scores=UNSURE), may_suppress=False) == Label("unknown")


def test_a_distractor_unlike_training_is_not_suppressed():
    assert label(seen(class_scores=SURE_BIRD, novelty=1.6), max_novelty=1.5) == Label("unknown", "unlike training")
    assert label(seen(class_scores=SURE_BIRD, novelty=1.4), max_novelty=1.5) == Label("bird")
    assert label(seen(class_scores=SURE_UAV, novelty=1.6), max_novelty=1.5) == Label("uav")


@pytest.mark.parametrize("may_suppress", [True, False])
def test_clutter_is_suppressed_on_any_camera_and_whatever_its_class(may_suppress: bool):
    """Target or clutter generalises to cameras that training has not seen; which class does not."""
    for class_scores in (SURE_UAV, SURE_BIRD, UNSURE):
        assert label(seen(class_scores=class_scores, score=0.4), may_suppress) == Label("clutter")


def test_a_track_that_was_reported_becomes_clutter_only_beyond_the_margin():
    assert label(seen(score=0.3), margin=2.0).name == "unknown"
    assert label(seen(score=0.1), margin=2.0).name == "clutter"
    assert label(seen(score=0.6), margin=-0.5).name == "unknown"  # one that was suppressed returns at 0


def test_of_a_single_class_everything_is_that_class():
    evidence = Evidence(("uav",), TIME_CONSTANT_S)
    for number in range(10):
        evidence.add(number / 20, log_odds(0.3), classes_of((0.3,)), 0.0)
    evidence.motion = -0.7
    assert label(evidence, may_suppress=False) == Label("uav")
    assert evidence.by_class() == {"uav": 0}
