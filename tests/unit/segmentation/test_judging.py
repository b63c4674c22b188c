"""Judging: a bounded number of proposals in the order of their promise, and the fusion of what is known of each."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
from support.moving_scenes import Scene, at_rate, history_of
from support.scenes import CLASSES, SURE_BIRD, frame

from model.judge import Verdicts
from model.metadata import Fusion, JudgeConfig
from pipeline.segmentation.chips import CHIP_PX
from pipeline.segmentation.judging import MAX_JUDGED, due, fused, judged
from pipeline.types import Detections

NONE_EXPECTED = np.zeros((0, 4), np.float32)
HISTORY = history_of(Scene(), at_rate(10, 0.6))
ACCEPT_ALL = JudgeConfig(classes=CLASSES, fusion=Fusion(judge=1.0, mask_log_odds=1.0, min_score=0.0))


def proposals(mask_scores: list[float], motion_scores: list[float]) -> Detections:
    """Return rows 10 px apart, 6 px large."""
    count = len(mask_scores)
    made = frame(15, [(8 + 10 * row, 40 + 2 * row, 6, SURE_BIRD) for row in range(count)])
    return replace(
        made,
        size_px=(160, 128),
        score=np.zeros(count, np.float32),
        mask_score=np.array(mask_scores, np.float32),
        motion_score=np.array(motion_scores, np.float32),
    )


class Judge:
    """Remembers the chips that it was given; the n-th gets log-odds n and novelty 2 n."""

    def __init__(self) -> None:
        self.chips: list[np.ndarray] = []

    def __call__(self, chips: np.ndarray) -> Verdicts:
        self.chips.append(chips)
        numbers = np.arange(len(chips), dtype=np.float32)
        return Verdicts(numbers, np.tile(np.array([0.7, 0.1, 0.1, 0.1], np.float32), (len(chips), 1)), 2 * numbers)


def around(detections: Detections, row: int) -> np.ndarray:
    return detections.xyxy[row : row + 1]


def test_expected_targets_are_judged_first_then_masks_then_motion_each_by_its_score():
    rows = proposals([0.5, 0.9, 0, 0, 0, 0.7], [0, 0, 8, 20, 3, 30])
    assert due(rows, NONE_EXPECTED) == [1, 5, 0, 3, 2, 4]
    assert due(rows, around(rows, 4)) == [4, 1, 5, 0, 3, 2]
    assert due(rows, np.vstack([around(rows, 2), around(rows, 0) + 1])) == [0, 2, 1, 5, 3, 4]
    assert due(proposals([], []), around(rows, 0)) == []
    assert due(rows, around(rows, 0) - 40) == due(rows, NONE_EXPECTED), "nothing is near to it"


def test_expected_targets_leave_places_to_what_is_new():
    rows = proposals([0.9, 0.8, 0.7, 0.6, 0.5, 0.0], [0] * 5 + [9])
    flock = np.vstack([around(rows, row) for row in range(4)])
    assert due(rows, flock, 4) == [0, 1, 2, 4]
    assert due(rows, flock, 6) == [0, 1, 2, 3, 4, 5]
    assert due(rows.rows(np.arange(4)), flock, 4) == [0, 1, 2, 3], "nothing else waits"


def test_motion_in_between_is_judged_only_where_a_target_is_expected():
    rows = proposals([0.5, 0, 0], [0, 8, 20])
    assert due(rows, around(rows, 1), max_motion=0) == [1, 0]
    assert due(rows, around(rows, 1), max_motion=1) == [1, 0, 2]
    assert due(proposals([0, 0, 0], [8, 20, 3]), NONE_EXPECTED, max_motion=2) == [1, 0], "the best"
    found = judged(rows, around(rows, 1), HISTORY, Judge(), ACCEPT_ALL, max_motion=0)
    assert found.motion_score.tolist() == [0, 8]


@pytest.mark.parametrize("most", [1, 3, MAX_JUDGED])
def test_so_many_are_judged_in_one_batch_and_the_rest_are_dropped(most: int):
    rows = proposals([0.8] * 4 + [0.0] * 11, [0.0] * 4 + list(range(2, 13)))
    judge = Judge()
    found = judged(rows, around(rows, 9), HISTORY, judge, ACCEPT_ALL, most)
    assert [chips.shape for chips in judge.chips] == [(most, 5, CHIP_PX, CHIP_PX)]
    assert len(found) == most and found.class_scores.any(axis=1).all()
    assert rows.xyxy[9] in found.xyxy, "the expected target was judged"
    assert len(judged(rows, NONE_EXPECTED, HISTORY, judge, ACCEPT_ALL, max_judged=0)) == 0


def test_each_row_gets_its_own_verdict():
    rows = proposals([0.0, 0.9, 0.0], [5, 0, 9])
    judge = Judge()
    found = judged(rows, NONE_EXPECTED, HISTORY, judge, ACCEPT_ALL)
    assert found.novelty.tolist() == [0, 2, 4]
    odds = np.array([0, 1 + log(9), 2])
    assert found.score.tolist() == pytest.approx((1 / (1 + np.exp(-odds))).tolist(), abs=1e-6)
    np.testing.assert_allclose(found.class_scores, np.tile([0.7, 0.1, 0.1, 0.1], (3, 1)), atol=1e-6)
    assert found.classes == CLASSES
    newest = HISTORY.newest
    assert newest is not None
    x, y = 18, 42  # of the mask
    np.testing.assert_array_equal(judge.chips[0][1, 0, 8:40, 8:40], newest.grey[y - 16 : y + 16, x - 16 : x + 16])


def test_what_is_improbable_is_dropped():
    rows = proposals([0.9, 0.02, 0.0], [0, 0, 9])
    config = replace(ACCEPT_ALL, fusion=replace(ACCEPT_ALL.fusion, min_score=0.3))
    found = judged(rows, NONE_EXPECTED, HISTORY, Judge(), config)
    assert found.mask_score.tolist() == pytest.approx([0.9, 0.0])


def test_the_network_s_classes_count_where_there_is_a_mask():
    rows = proposals([0.9, 0.0], [0, 9])  # the mask is a sure bird's
    rows.class_scores[1] = 0
    apart = judged(rows, NONE_EXPECTED, HISTORY, Judge(), ACCEPT_ALL).class_scores
    fusion = replace(ACCEPT_ALL.fusion, mask_classes=0.5)
    fused_ = judged(rows, NONE_EXPECTED, HISTORY, Judge(), replace(ACCEPT_ALL, fusion=fusion)).class_scores
    np.testing.assert_allclose(fused_[1], apart[1], atol=1e-6)
    odds = np.array([0.7, 0.1, 0.1, 0.1]) * np.maximum(rows.class_scores[0], 0.01) ** 0.5
    np.testing.assert_allclose(fused_[0], odds / odds.sum(), rtol=1e-4)
    other = replace(rows, classes=("uav",), class_scores=rows.class_scores[:, :1])
    single = judged(other, NONE_EXPECTED, HISTORY, Judge(), replace(ACCEPT_ALL, fusion=fusion)).class_scores
    np.testing.assert_allclose(single, apart, atol=1e-6)


def test_without_proposals_the_judge_is_not_asked():
    judge = Judge()
    found = judged(proposals([], []), NONE_EXPECTED, HISTORY, judge, ACCEPT_ALL)
    assert len(found) == 0 and found.class_scores.shape == (0, 4) and not judge.chips


def test_log_odds_add_up():
    how = Fusion(bias=-1, judge=0.5, mask=0.3, mask_log_odds=2, motion=0.7, motion_log=0.4)
    columns = ([3.0, -4.0, 0.0], [0.8, 0.0, 0.0], [0.0, 20.0, 0.5])
    judge, mask, motion = (np.array(column, np.float32) for column in columns)
    expected = [-1 + 1.5 + 0.3 + 2 * log(0.8 / 0.2), -1 - 2 + 0.7 + 0.4 * log(20), -1 + 0.7]
    made = fused(how, judge, mask, motion)
    np.testing.assert_allclose(made, 1 / (1 + np.exp(-np.array(expected))), rtol=1e-5)
    assert made.dtype == np.float32


def test_scores_are_probabilities_whatever_is_known():
    extreme = np.array([-1e6, -90, 0, 90, 1e6], np.float32)
    masks = np.array([0, 1e-30, 0.5, 1 - 1e-8, 1], np.float32)
    motion = np.array([0, 1e-9, 1, 1e6, 3e38], np.float32)
    how = Fusion(mask_log_odds=100, motion_log=100, judge=100)
    with np.errstate(over="ignore"):
        made = fused(how, extreme, masks, motion)
    assert ((made >= 0) & (made <= 1)).all()
