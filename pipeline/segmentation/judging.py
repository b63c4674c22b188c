"""Judging: proposals -> scored Detections.  Pure, but for the judge's own network.

A bounded number of a frame's proposals is judged in one batch: expected targets first, then masks, then motion that
belongs to neither, which is judged a dozen times a second, whatever the frame rate.  The
judge's log-odds, the mask's and the motion's are fused by logistic regression (`model.metadata.Fusion`), whose weights
were fitted on labelled recordings and whose calibration was checked on others.  What is too improbable is dropped, and
so is what was not judged: it is the least promising of a crowded frame.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.judge import Verdicts
from model.metadata import Fusion, JudgeConfig
from pipeline.segmentation.chips import cut_chips
from pipeline.segmentation.frame_history import FrameHistory
from pipeline.segmentation.proposals import NEAR
from pipeline.types import Detections

MAX_JUDGED = 12  # proposals of a frame
EXPECTED_SHARE = 0.75  # of them that expected targets may take from the others
MOTION_INTERVAL_S = (
    0.07  # between frames in which motion alone is judged: it is most of the cost, and most of it is clutter
)
PROBABILITY_FLOOR = 0.01  # of a mask's score and of the network's classes: their log-odds are bounded
CLASS_FLOOR = 1e-4  # likewise of the judge's

JudgeChips = Callable[[NDArray[np.uint8]], Verdicts]


def judged(
    proposals: Detections,
    expected: NDArray[np.float32],
    history: FrameHistory,
    judge: JudgeChips,
    config: JudgeConfig,
    max_judged: int = MAX_JUDGED,
    max_motion: int = MAX_JUDGED,
) -> Detections:
    """Return the proposals that may be targets, with scores, class scores and novelty.

    Args:
        proposals: of the history's newest frame, masks first.
        expected: boxes (N, 4) where targets are expected, frame pixels.
        history: of the camera.
        judge: judges chips.
        config: of the judge.
        max_judged: how many proposals are judged at most.
        max_motion: of them, where neither a target is expected nor a mask is.
    """
    rows = sorted(due(proposals, expected, max_judged, max_motion))
    asked = proposals.rows(np.array(rows, np.intp))
    if not rows:
        return replace(asked, classes=config.classes, class_scores=np.zeros((0, len(config.classes)), np.float32))
    boxes = asked.xyxy.astype(float)
    centres, lengths = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    points = [(float(x), float(y)) for x, y in centres]
    verdicts = judge(cut_chips(history, points, lengths.tolist()))
    score = fused(config.fusion, verdicts.target_log_odds, asked.mask_score, asked.motion_score)
    scored = replace(
        asked,
        classes=config.classes,
        score=score,
        class_scores=fused_classes(config, verdicts.class_scores, asked),
        novelty=verdicts.novelty.astype(np.float32),
    )
    return scored.rows(np.flatnonzero(score >= config.fusion.min_score))


def due(
    proposals: Detections, expected: NDArray[np.float32], max_judged: int = MAX_JUDGED, max_motion: int = MAX_JUDGED
) -> list[int]:
    """Return the rows to be judged: expected targets, masks, then motion, each by its score.

    Expected targets take all places only where nothing else waits: a flock must not hide what arrives.
    """
    centres = (proposals.xyxy[:, :2] + proposals.xyxy[:, 2:]) / 2
    is_expected = np.zeros(len(proposals), np.bool_)
    for box in expected:
        is_expected |= np.abs(centres - (box[:2] + box[2:]) / 2).max(axis=1) <= NEAR * (box[2] - box[0])
    rank = np.where(is_expected, 0, np.where(proposals.mask_score > 0, 1, 2))
    order = np.lexsort((-proposals.motion_score, -proposals.mask_score, rank))
    ordered: list[int] = order[: np.count_nonzero(rank < 2) + max_motion].tolist()
    last = [row for row in ordered if is_expected[row]][math.ceil(EXPECTED_SHARE * max_judged) :]
    return ([row for row in ordered if row not in last] + last)[:max_judged]


def fused(
    fusion: Fusion,
    judge_log_odds: NDArray[np.float32],
    mask_score: NDArray[np.float32],
    motion_score: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the probability (N,) of a target: the logistic function of weighted log-odds."""
    has_mask, has_motion = mask_score > 0, motion_score > 0
    probability = np.clip(mask_score, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    total = (
        fusion.bias
        + fusion.judge * judge_log_odds
        + np.where(has_mask, fusion.mask + fusion.mask_log_odds * np.log(probability / (1 - probability)), 0)
        + np.where(has_motion, fusion.motion + fusion.motion_log * np.log(np.maximum(motion_score, 1)), 0)
    )
    return np.asarray(1 / (1 + np.exp(-total)), np.float32)


def fused_classes(config: JudgeConfig, judge_scores: NDArray[np.float32], proposals: Detections) -> NDArray[np.float32]:
    """Return the probability (N, C) of each class, given that it is a target."""
    if proposals.classes != config.classes:
        return judge_scores
    has_mask = proposals.class_scores.any(axis=1, keepdims=True)
    by_network = np.where(has_mask, np.log(np.maximum(proposals.class_scores, PROBABILITY_FLOOR)), 0)
    odds = np.maximum(judge_scores, CLASS_FLOOR) * np.exp(config.fusion.mask_classes * by_network)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)
