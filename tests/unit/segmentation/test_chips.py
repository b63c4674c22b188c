"""Chips: the same place of the scene in all of a chip's frames, at native resolution, large targets reduced."""

import cv2
import numpy as np
import pytest
from support.moving_scenes import CLOUDS, Blob, Scene, at_rate, history_of

from pipeline.segmentation.chips import CHIP_PX, LAGS_S, LARGEST_PX, chip_scale, cut_chips
from pipeline.segmentation.frame_history import MAX_WIDTH_PX, FrameHistory

SHAPE = (len(LAGS_S), CHIP_PX, CHIP_PX)


def brightest(chip: np.ndarray) -> tuple[float, float]:
    """Return the centre of what is brightest, chip pixels."""
    smooth = cv2.GaussianBlur(chip.astype(np.float32) - np.median(chip), (0, 0), 2)
    weights = np.clip(smooth - smooth.max() / 2, 0, None) ** 2
    rows, columns = np.mgrid[: chip.shape[0], : chip.shape[1]] + 0.5
    return float((weights * columns).sum() / weights.sum()), float((weights * rows).sum() / weights.sum())


def test_a_chip_is_cut_at_native_resolution_around_its_point():
    pixels = np.random.default_rng(0).integers(0, 256, (100, 120), np.uint8)
    history = FrameHistory()
    history.add(pixels, 0, None)
    chips = cut_chips(history, [(60, 50), (24, 24)], [0, 30])
    assert chips.shape == (2, *SHAPE) and chips.dtype == np.uint8
    np.testing.assert_array_equal(chips[0, 0], pixels[26:74, 36:84])
    np.testing.assert_array_equal(chips[1, 0], pixels[:48, :48])
    assert (chips == chips[:, :1]).all(), "its only frame stands in for the past"
    assert cut_chips(history, [(60, 50)], [0], side_px=16)[0, 0].tolist() == pixels[42:58, 52:68].tolist()


def test_without_points_or_frames_there_are_no_chips():
    history = FrameHistory()
    assert cut_chips(history, [(5, 5)], [0]).shape == (0, *SHAPE)
    history.add(np.zeros((20, 20), np.uint8), 0, None)
    assert cut_chips(history, [], []).shape == (0, *SHAPE)


def test_newest_first_and_each_of_its_age():
    history = FrameHistory()
    for number in range(60):
        history.add(np.full((60, 60), number, np.uint8), number / 25, (0.0, 0.0) if number else None)
    ages_s = (59 - cut_chips(history, [(30, 30)], [0])[0, :, 24, 24].astype(float)) / 25
    assert ages_s[0] == 0 and ages_s == pytest.approx(np.array(LAGS_S), abs=0.041)


@pytest.mark.parametrize("pan_px_s", [(0, 0), (40, -25), (-13.3, 7.7)])
def test_what_stands_still_in_the_scene_does_so_in_the_chip(pan_px_s: tuple[float, float]):
    post = Blob(80 - 1.2 * pan_px_s[0], 64 - 1.2 * pan_px_s[1], size_px=(5, 5), contrast=120)
    scene = Scene([post], pan_px_s=pan_px_s, texture=CLOUDS)
    (chip,) = cut_chips(history_of(scene, at_rate(25, 1.2)), [scene.place(post, 1.2)], [5])
    for frame in chip:
        assert brightest(frame) == pytest.approx((24, 24), abs=0.3)
    assert np.abs(chip[1:].astype(float) - chip[0]).mean() < 4


def test_what_flies_moves_in_the_chip():
    drone = Blob(40, 60, (30, -10), (5, 5), contrast=120)
    scene = Scene([drone], pan_px_s=(20, 0), texture=CLOUDS)
    (chip,) = cut_chips(history_of(scene, at_rate(20, 1)), [scene.place(drone, 1)], [5])
    for frame, age_s in zip(chip, (0, 0.1, 0.2, 0.35, 0.5), strict=True):
        assert brightest(frame) == pytest.approx((24 - 30 * age_s, 24 + 10 * age_s), abs=0.4)


@pytest.mark.parametrize("length_px", [31, 45, 70, 150, 300])
def test_a_large_target_fits_into_its_chip(length_px: float):
    image = np.full((512, 640), 40, np.uint8)
    half = length_px / 2
    cv2.rectangle(
        image, (round(320 - half), round(256 - half / 2)), (round(320 + half), round(256 + half / 2)), 240, -1
    )
    history = FrameHistory()
    history.add(image, 0, None)
    chip = cut_chips(history, [(320.5, 256.5)], [length_px])[0, 0]
    columns = np.flatnonzero(chip[24] > 140)
    assert len(columns) == pytest.approx(LARGEST_PX, abs=2) and columns.mean() == pytest.approx(23.5, abs=0.6)
    assert set(np.unique(chip[:5])) == {40}


def test_reduction_averages():
    """Fine texture does not turn into a pattern."""
    checkers = (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)
    history = FrameHistory()
    history.add(checkers, 0, None)
    chip = cut_chips(history, [(200, 200)], [240])[0, 0]
    assert np.ptp(chip[4:-4, 4:-4]) < 70 and chip.mean() == pytest.approx(127.5, abs=4)
    assert chip_scale(0) == chip_scale(LARGEST_PX) == 1 and chip_scale(2 * LARGEST_PX) == 0.5


def test_points_are_those_of_the_camera_where_frames_are_kept_reduced():
    pixels = np.zeros((400, 2 * MAX_WIDTH_PX), np.uint8)
    pixels[192:208, 2992:3008] = 250
    history = FrameHistory()
    history.add(pixels, 0, None)
    history.add(np.roll(pixels, 40, axis=1), 0.1, (40.0, 0.0))
    (chip,) = cut_chips(history, [(3040, 200)], [16])
    for frame in chip:
        assert brightest(frame) == pytest.approx((24, 24), abs=0.1)
        assert np.count_nonzero(frame[24] > 125) == 8


def test_at_the_frames_edge_the_scene_is_reflected():
    scene = Scene([Blob(1, 60, size_px=(6, 6), contrast=120)])
    chip = cut_chips(history_of(scene, [0.0]), [(1, 60)], [6])[0, 0]
    np.testing.assert_array_equal(chip[:, 24:46], chip[:, 22:0:-1])


@pytest.mark.parametrize("shape", [(8, 8), (1, 1), (40, 1), (1, 8), (8, 8, 3), (16, 512)])
@pytest.mark.parametrize("shift_px", [(0.0, 0.0), (-3.3, 70.0)])
def test_frames_of_any_size_and_points_beside_them(shape: tuple[int, ...], shift_px: tuple[float, float]):
    history = FrameHistory()
    for number in range(10):
        history.add(np.full(shape, 77, np.uint8), number / 10, shift_px if number else None)
    chips = cut_chips(history, [(0, 0), (shape[1], shape[0]), (-500, 3000), (2, 2)], [0, 8, 3, 900])
    assert chips.shape == (4, *SHAPE) and (chips == 77).all()
