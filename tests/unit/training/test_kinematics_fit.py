"""Fitting the evidence from motion: measured trajectories, recording runs, and a model that tells manoeuvres apart."""

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.tracking.kinematics import log_odds
from training.datasets import Clip, open_dataset
from training.kinematics.__main__ import area, areas, clip_means, drones, evenly_spread
from training.kinematics.fit import (
    CONDITIONS,
    Condition,
    cross_validated,
    degraded,
    recording_runs,
    samples,
    scored,
)
from training.kinematics.trajectories import Trajectory, read_trajectories
from training.masks import box_mask, contrast_mask

DATA = Path("tests/data")


def trajectory(name: str, object_class: str, radius_px: float) -> Trajectory:
    """10 s at 30 frames/s of a target of 12 px that flies circles of 4 s, or straight on with a radius of 0."""
    time_s = np.arange(300) / 30
    angle = 2 * math.pi * time_s / 4
    x, y = 30 * time_s * (radius_px == 0) + radius_px * np.cos(angle), radius_px * np.sin(angle)
    rows = np.column_stack([time_s, x, y, np.full(300, 12.0), np.full(300, 60.0)])
    return Trajectory(name, "infrared", object_class, "train", rows)


@pytest.fixture(scope="module")
def flights() -> list[Trajectory]:
    others = [
        trajectory(f"{prefix}_{number:03}", object_class, 0)
        for prefix, object_class in (("B", "bird"), ("A", "airplane"), ("H", "helicopter"))
        for number in (1, 2, 10)
    ]
    return [trajectory(f"D_{number:03}", "drone", 20.0 + number) for number in (1, 2, 10, 11)] + others


def test_measured_positions_follow_the_labels_and_are_read_again_from_the_cache(tmp_path: Path):
    clip = next(one for one in open_dataset(DATA) if isinstance(one, Clip) and one.clip_class == "drone")
    (first, *_) = read_trajectories(tmp_path, [clip])
    (stored,) = tmp_path.glob("*.npz")
    written_ns = stored.stat().st_mtime_ns
    (second, *_) = read_trajectories(tmp_path, [clip])
    np.testing.assert_array_equal(first.rows, second.rows)
    assert stored.stat().st_mtime_ns == written_ns
    assert len(first.rows) > 0.5 * len(clip) and (first.rows[:, 3:] > 0).all()
    box = next(frame[0].xyxy for frame in clip.frames if frame)
    assert box[0] <= first.rows[0, 1] <= box[2] and box[1] <= first.rows[0, 2] <= box[3]


def test_where_nothing_stands_out_there_is_no_measurement_but_a_pseudo_mask():
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert not contrast_mask(flat, (20.0, 20.0, 32.0, 30.0))[0].any()
    assert box_mask(flat, (20.0, 20.0, 32.0, 30.0))[0].any()
    assert not contrast_mask(flat, (70.0, 70.0, 80.0, 80.0))[0].size


def test_consecutive_numbers_are_one_recording_run():
    runs = recording_runs(["IR_DRONE_001", "IR_DRONE_003", "IR_DRONE_010", "V_DRONE_004", "other"])
    assert runs["IR_DRONE_001"] == runs["IR_DRONE_003"]
    assert len(set(runs.values())) == 4


def test_a_degraded_trajectory_has_the_frame_rate_and_noise_of_its_condition(flights: list[Trajectory]):
    rows, random = flights[0].rows, np.random.default_rng(1)
    np.testing.assert_array_equal(degraded(rows, Condition(30), random), rows)
    slow = degraded(rows, Condition(5), random)
    np.testing.assert_allclose(np.diff(slow[:, 0]), 0.2, atol=1e-6)
    noisy = degraded(rows, Condition(30, noise=0.5, missing=0.2), random)
    kept = np.isin(rows[:, 0], noisy[:, 0])
    assert 0.7 < kept.mean() < 0.9
    assert np.std(noisy[:, 1] - rows[kept, 1]) == pytest.approx(0.5 * 0.12 * 12, rel=0.2)


def test_the_fit_separates_manoeuvres_from_straight_flight_in_runs_it_has_not_seen(flights: list[Trajectory]):
    part = samples(flights)
    assert {one.condition for one in part} == set(CONDITIONS)
    model, held_out = cross_validated(part)
    assert area(held_out, ("bird", "airplane", "helicopter")) > 0.95
    (one, *_) = scored(model, part)
    assert one.log_odds[0] == log_odds(one.sample.moments[0], *model)
    assert "| part | infrared |" in areas({"part": held_out})
    assert drones("train", [one for one in held_out if one.sample.object_class == "drone"]).count("| D_") == 4
    assert len(clip_means(held_out)) == 13


def test_a_subset_of_clips_is_spread_over_the_numbers():
    clips = [one for one in open_dataset(DATA) if isinstance(one, Clip)]
    assert {clip.name for clip in evenly_spread(clips, 1)} <= {clip.name for clip in clips}
    assert evenly_spread(clips, 99) and len(evenly_spread(clips, 99)) == len(clips)
