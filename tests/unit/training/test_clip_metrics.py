"""The figures of merit, on tracks whose faults are known."""

import math
from pathlib import Path

import pytest

from training.datasets import Clip, LabelledObject
from training.evaluation.clip_metrics import ClipMetrics, TrackRow, evaluate_clip, read_track_rows, size_table, table

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
    assert (figures.found, figures.precision, figures.recall, figures.f1, figures.f1_iou) == (1, 1, 1, 1, 1)
    assert (figures.delay_s, figures.switches, figures.missed) == (0, 0, [])


def test_late_switched_loose_and_false_rows_are_seen():
    rows = [row(n, track=1 if n < 40 else 2, side=40) for n in range(20, 50)] + [
        row(n, 3, dx=100) for n in range(20, 30)
    ]
    figures = evaluate_clip(clip(), rows, FRAMES)
    assert figures.recall == 30 / 40 and figures.precision == 30 / 40
    assert figures.f1_iou == 0  # a box of twice the size has an IoU of a quarter
    assert figures.delay_s == pytest.approx(10 / 30) and figures.switches == 1


def test_the_centre_may_lie_half_a_box_beyond_and_no_farther():
    assert evaluate_clip(clip(), [row(20, dx=14.9)], FRAMES).right_centre == 1
    assert evaluate_clip(clip(), [row(20, dx=15.1)], FRAMES).right_centre == 0


def test_one_label_counts_for_one_row():
    assert evaluate_clip(clip(), [row(20, 1), row(20, 2)], FRAMES).right_centre == 1


def test_negatives_count_tracks_and_minutes():
    figures = evaluate_clip(clip("bird"), [row(n, track=n % 2) for n in range(20)], FRAMES)
    assert (figures.alarmed, figures.false_tracks, figures.false_per_minute) == (["c"], 2, 60.0)
    quiet = evaluate_clip(clip("bird"), [], FRAMES)
    figures.add(quiet)
    assert (figures.negative_clips, figures.false_per_minute) == (2, 30.0)


def test_recall_is_told_by_the_size_of_the_label():
    figures = evaluate_clip(clip(), [row(n) for n in range(10, 30)], FRAMES)
    assert figures.labelled_of_size == {"20-32 px": 40} and figures.right_of_size == {"20-32 px": 20}
    figures.add(figures)
    lines = size_table({"all": figures, "birds": evaluate_clip(clip("bird"), [], FRAMES)}).splitlines()
    assert lines[0] == "| drones | < 8 px | 8-12 px | 12-20 px | 20-32 px | >= 32 px |"
    assert lines[2:] == ["| all | - | - | - | 0.500 of 80 | - |"]


def test_a_missed_clip_is_named_and_tables_hold_dashes_for_what_is_unknown():
    figures = evaluate_clip(clip(), [], FRAMES)
    assert figures.missed == ["c"] and math.isnan(figures.delay_s)
    text = table({"all": figures, "none": ClipMetrics()})
    assert "0 of 1" in text and "| - |" in text


def test_rows_are_read_from_motchallenge_lines():
    assert read_track_rows(["5,2,10.00,20.00,4.00,6.00,0.9,-1,-1,-1"]) == [TrackRow(4, 2, (10, 20, 14, 26))]
