"""The history of frames: what it keeps, for how long, and when it begins anew."""

import numpy as np
import pytest

from pipeline.segmentation.frame_history import (
    MAX_AGE_S,
    MAX_WIDTH_PX,
    MIN_STEP_S,
    MOTION_WIDTH_PX,
    SMOOTH_STEPS,
    FrameHistory,
    grey_of,
)


def frame(level: int = 0, shape: tuple[int, ...] = (12, 16)) -> np.ndarray:
    return np.full(shape, level, np.uint8)


def filled(times_s: list[float], shift_px: tuple[float, float] = (0.0, 0.0)) -> FrameHistory:
    history = FrameHistory()
    for number, pts_s in enumerate(times_s):
        history.add(frame(number), pts_s, shift_px if number else None)
    return history


def ages(history: FrameHistory, lags_s: list[float]) -> list[float]:
    newest = history.newest
    assert newest is not None
    return [round(newest.pts_s - kept.pts_s, 3) for lag_s in lags_s if (kept := history.at(lag_s)) is not None]


def test_the_frame_of_about_that_age_is_found():
    assert ages(filled([number / 25 for number in range(100)]), [0, 0.1, 0.2, 0.5]) == pytest.approx(
        [0, 0.1, 0.2, 0.5], abs=0.041
    )
    assert ages(filled([number / 4 for number in range(20)]), [0, 0.1, 0.2, 0.5]) == [0, 0, 0.25, 0.5]
    assert ages(filled([0, 0.04, 0.5]), [0.2, 0.5]) == [0, 0.5], "the nearest, however far"
    assert ages(filled([7.0]), [0, 0.5]) == [0, 0]
    assert FrameHistory().at(0.2) is None and FrameHistory().newest is None


@pytest.mark.parametrize("fps", [5, 60, 1000])
def test_memory_is_bounded_by_age_and_number_at_every_frame_rate(fps: float):
    history = FrameHistory()
    for number in range(round(1.5 * fps)):
        newest = history.add(frame(number % 256), number / fps, (0.0, 0.0))
        assert history.newest is newest and history.at(0) is newest and newest.pts_s == number / fps
    times_s = {kept.pts_s for lag_s in np.arange(0.001, 3, 0.01) if (kept := history.at(lag_s)) is not None}
    assert newest.pts_s - min(times_s) <= MAX_AGE_S and 3 <= len(times_s) <= MAX_AGE_S / MIN_STEP_S + 1


def test_the_position_of_the_background_adds_up():
    newest = filled([number / 25 for number in range(11)], (1.5, -0.25)).newest
    assert newest is not None and newest.position_px == pytest.approx((15, -2.5))


@pytest.mark.parametrize(
    ("pts_s", "shift_px", "shape"),
    [
        (0.5, None, (12, 16)),  # the view changed
        (0.36, (0.0, 0.0), (12, 16)),  # the same time once more
        (-9.0, (0.0, 0.0), (12, 16)),
        (0.5, (0.0, 0.0), (16, 12)),
        (0.5, (0.0, 0.0), (12, 17)),
    ],
)
def test_it_begins_anew_where_frames_do_not_continue(pts_s: float, shift_px: tuple | None, shape: tuple[int, int]):
    history = filled([number / 25 for number in range(10)], (1.0, 0.0))
    added = history.add(frame(1, shape), pts_s, shift_px)
    assert added.position_px == (0, 0) and history.at(0.3) is added and ages(history, [0.1, 0.5]) == [0, 0]
    assert history.add(frame(1, shape), pts_s + 0.1, (2.0, 0.0)).position_px == (2, 0)


def test_it_begins_anew_where_only_the_reduction_changed():
    """The shifts of the larger frames are in other pixels."""
    history = FrameHistory()
    history.add(frame(0, (80, 2 * MAX_WIDTH_PX)), 0, None)
    history.add(frame(0, (80, 2 * MAX_WIDTH_PX)), 0.04, (100.0, 0.0))
    assert history.add(frame(0, (40, MAX_WIDTH_PX)), 0.08, (1.0, 0.0)).position_px == (0, 0)


@pytest.mark.parametrize(
    ("shape", "grey", "smooth"),
    [
        ((12, 16), (12, 16), (12, 16)),
        ((1, 1), (1, 1), (1, 1)),
        ((512, 640, 3), (512, 640), (512, 640)),
        ((100, 1281), (100, 1281), (50, MOTION_WIDTH_PX)),
        ((2160, 3840, 3), (1080, MAX_WIDTH_PX), (360, MOTION_WIDTH_PX)),
        ((1, 3840), (1, MAX_WIDTH_PX), (1, MOTION_WIDTH_PX)),
    ],
)
def test_sizes_are_bounded_and_levels_kept(shape: tuple[int, ...], grey: tuple[int, int], smooth: tuple[int, int]):
    kept = FrameHistory().add(frame(90, shape), 0, None)
    assert kept.grey.shape == grey and kept.smooth.shape == smooth
    assert (kept.width_px, kept.height_px) == (shape[1], shape[0])
    assert (kept.grey == 90).all() and kept.smooth == pytest.approx(90 * SMOOTH_STEPS, abs=1)
    assert kept.grey.dtype == np.uint8 and kept.smooth.dtype == np.uint16


def test_colour_becomes_its_brightness_and_parts_of_frames_are_taken_too():
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :2] = (200, 100, 50)
    assert set(np.unique(grey_of(pixels))) == {0, round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)}  # ITU-R BT.601
    part = np.arange(48, dtype=np.uint8).reshape(6, 8)[1:5, ::2]
    np.testing.assert_array_equal(grey_of(part), part)
