"""The figures of merit, on tracks whose faults are known."""

import math
from pathlib import Path

import pytest

from training.datasets import Clip, LabelledObject
from training.evaluation.clip_metrics import (
    ClipMetrics,
    TrackRow,
    apparent_px,
    evaluate_clip,
    median_apparent_px,
    read_track_rows,
    size_bin,
)

FRAMES = 60


def clip(kind: str = "drone") -> Clip:
    frames = tuple(
        (LabelledObject(0, kind, (10.0 + n, 20.0, 30.0 + n, 40.0)),) if 10 <= n < 50 else () for n in range(FRAMES)
    )
    return Clip("c", Path("c.mp4"), "infrared", kind, "val", 30.0, 320, 256, frames)


def row(frame: int, track: int = 1, dx: float = 0.0, side: float = 20.0) -> TrackRow:
    x, y = 20.0 + frame + dx, 30.0
    return TrackRow(frame, track, (x - side / 2, y - side / 2, x + side / 2, y + side / 2))


def test_a_perfect_track():
    figures = evaluate_clip(clip(), [row(n) for n in range(10, 50)], FRAMES)
    ratios = [figures.ratio(name) for name in ("drones found", "precision", "recall", "F1", "F1 IoU .5")]
    assert ratios == [1, 1, 1, 1, 1]
    assert (figures.delay_s, figures.switches, figures.missed) == (0, 0, [])


def test_late_switched_loose_and_false_rows_are_seen():
    rows = [row(n, track=1 if n < 40 else 2, side=40) for n in range(20, 50)] + [
        row(n, 3, dx=100) for n in range(20, 30)
    ]
    figures = evaluate_clip(clip(), rows, FRAMES)
    assert figures.ratio("recall") == 30 / 40 and figures.ratio("precision") == 30 / 40
    assert figures.ratio("F1 IoU .5") == 0  # a box of twice the size has an IoU of a quarter
    assert figures.delay_s == pytest.approx(10 / 30) and figures.switches == 1


def test_the_centre_may_lie_half_a_box_beyond_and_no_farther():
    assert evaluate_clip(clip(), [row(20, dx=14.9)], FRAMES).right_centre == 1
    assert evaluate_clip(clip(), [row(20, dx=15.1)], FRAMES).right_centre == 0


def test_one_label_counts_for_one_row():
    assert evaluate_clip(clip(), [row(20, 1), row(20, 2)], FRAMES).right_centre == 1


def test_negatives_count_tracks_and_minutes():
    figures = evaluate_clip(clip("bird"), [row(n, track=n % 2) for n in range(20)], FRAMES)
    assert (figures.alarmed, figures.false_tracks, figures.ratio("false tracks/min")) == (["c"], 2, 60.0)
    quiet = evaluate_clip(clip("bird"), [], FRAMES)
    figures.add(quiet)
    assert (figures.negative_clips, figures.ratio("false tracks/min")) == (2, 30.0)


@pytest.mark.parametrize(
    ("box_margin_px", "iou_matches"),
    [(0.0, 1), (6.0, 0)],  # 8 px of 20 have an IoU of .16: widened to the label, or known to have the margin already
)
def test_tight_boxes_are_widened_by_the_labels_margin_for_the_iou_only(box_margin_px: float, iou_matches: int):
    tight = [row(20, side=8)]
    assert evaluate_clip(clip(), tight, FRAMES).right_iou == 0
    figures = evaluate_clip(clip(), tight, FRAMES, label_margin_px=6.0, box_margin_px=box_margin_px)
    assert figures.right_iou == iou_matches and figures.right_centre == 1
    beside = evaluate_clip(clip(), [row(20, dx=15.1, side=8)], FRAMES, label_margin_px=6.0)
    assert beside.right_centre == 0


def test_a_box_wider_than_the_label_is_not_made_tighter():
    loose = [row(20, side=40)]
    assert evaluate_clip(clip(), loose, FRAMES, label_margin_px=1.0, box_margin_px=11.0).right_iou == 0


def test_recall_is_told_by_the_apparent_size_of_the_drone():
    rows = [row(n) for n in range(10, 30)]
    figures = evaluate_clip(clip(), rows, FRAMES)
    assert figures.labelled_of_size == {">= 20 px": 40} and figures.right_of_size == {">= 20 px": 20}
    figures = evaluate_clip(clip(), rows, FRAMES, label_margin_px=5.0)
    assert figures.labelled_of_size == {"8-12 px": 40} and figures.right_of_size == {"8-12 px": 20}
    assert median_apparent_px(clip(), 5.0) == 10 and math.isnan(median_apparent_px(clip("bird"), 7.0))
    assert apparent_px((0, 0, 12, 20), 4.0) == 12 and apparent_px((0, 0, 8, 10), 4.0) == 4
    assert [size_bin(px) for px in (1, 3, 4.9, 8, 20)] == ["< 3 px", "3-5 px", "3-5 px", "8-12 px", ">= 20 px"]


def test_a_missed_clip_is_named_and_what_is_unknown_is_nan():
    figures = evaluate_clip(clip(), [], FRAMES)
    assert figures.missed == ["c"] and math.isnan(figures.delay_s)
    assert math.isnan(ClipMetrics().ratio("F1")) and math.isnan(figures.ratio("precision"))


def test_rows_are_read_from_motchallenge_lines():
    assert read_track_rows(["5,2,10.00,20.00,4.00,6.00,0.9,-1,-1,-1"]) == [TrackRow(4, 2, (10, 20, 14, 26))]
