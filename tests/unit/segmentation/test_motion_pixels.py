"""The pixel work of motion candidates is that of plain formulas, only faster; natively and by OpenCV."""

import cv2
import numpy as np
import pytest
from support.native import needs_native

from pipeline.segmentation.frame_history import BLUR_REACH_PX, SMOOTH_STEPS, PastFrame
from pipeline.segmentation.motion_pixels import (
    CELL_PX,
    MIN_SCORE,
    PEAK_PX,
    REDUCTION,
    NativePixels,
    Peak,
    Pixels,
    PixelWork,
    ReferencePixels,
    moved,
    pixel_work,
    subtract,
)

SHIFTS_PX = [
    (0, 0),
    (0.03, -0.01),
    (0.6, -0.8),
    (1.3, 0.2),
    (-3.7, 11.2),
    (70.3, -50.9),
    (-9.4, 0),
    (0.4, -0.5),
    (500, 0),
]
both = pytest.mark.parametrize("work", [pytest.param(NativePixels(), marks=needs_native), ReferencePixels()])


def frame(random: np.random.Generator, size: tuple[int, int], position_px: tuple[float, float]) -> PastFrame:
    levels = cv2.GaussianBlur(random.normal(100, 2, size).astype(np.float32), (5, 5), 1).reshape(size)
    smooth = (levels * SMOOTH_STEPS).astype(np.uint16)
    return PastFrame(0.0, np.zeros(size, np.uint8), smooth, position_px, 2 * size[1], 2 * size[0])


def overlay_of(size: tuple[int, int]) -> Pixels:
    overlay = np.zeros(size, bool)
    overlay[0:9, 3:40] = overlay[40:50, 60:70] = overlay[90:, 100:] = True
    return np.nonzero(overlay)


def difference(newest: PastFrame, past: PastFrame, overlay: Pixels | None) -> np.ndarray:
    """By an affine warp of the past frame and of the mask of an overlay."""
    (height, width), image = past.smooth.shape, past.smooth / np.float32(SMOOTH_STEPS)
    hidden = np.zeros((height, width), np.uint8)
    if overlay is not None:
        hidden[overlay] = 1
    dx, dy = ((now - then) / 2 for now, then in zip(newest.position_px, past.position_px, strict=True))
    before = hidden
    if max(abs(dx), abs(dy)) > 0.02:
        transform = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        image = cv2.warpAffine(image, transform, (width, height), borderMode=cv2.BORDER_REPLICATE)
        whole = np.array([[1, 0, round(dx)], [0, 1, round(dy)]], np.float32)
        before = cv2.warpAffine(hidden, whole, (width, height), flags=cv2.INTER_NEAREST)
    result = newest.smooth / np.float32(SMOOTH_STEPS) - image
    result -= np.median(result[::8, ::8])
    result[(hidden > 0) | (before > 0)] = 0
    for lines, moved_px in ((result.T, dx), (result, dy)):
        if abs(moved_px) > 0.5:
            lines[: round(max(moved_px, 0.0)) + BLUR_REACH_PX] = 0
            lines[max(0, len(lines) - round(max(-moved_px, 0.0)) - BLUR_REACH_PX) :] = 0
    return result


@pytest.mark.parametrize("has_overlay", [False, True])
@pytest.mark.parametrize("moved_px", SHIFTS_PX)
def test_the_difference_is_that_to_the_warped_past_frame(moved_px: tuple[float, float], has_overlay: bool):
    random = np.random.default_rng(5)
    newest, past = frame(random, (96, 120), moved_px), frame(random, (96, 120), (0.0, 0.0))
    pixels = overlay_of((96, 120)) if has_overlay else None
    out, scratch = np.full((2, 96, 120), np.nan, np.float32)
    subtract(newest.smooth, moved(newest, past), pixels, out, scratch)
    # At an edge that the past frame did not see, the median's samples are not the same to the last digit.
    np.testing.assert_allclose(out, difference(newest, past, pixels), atol=0.05)


@both
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (30, 1), (96, 120), (97, 131)])
@pytest.mark.parametrize("moved_px", SHIFTS_PX)
def test_differences_of_every_size_are_the_smaller_ones_and_their_means(
    work: PixelWork, size: tuple[int, int], moved_px: tuple[float, float]
):
    random = np.random.default_rng(6)
    newest = frame(random, size, moved_px)
    frames = [frame(random, size, (0.0, 0.0)), frame(random, size, (moved_px[0] / 2, -moved_px[1]))]
    overlay = overlay_of(size) if size == (96, 120) else None
    found, scratch = [np.empty(size, np.float32) for _ in frames], np.empty(size, np.float32)
    for past, out in zip(frames, found, strict=True):
        subtract(newest.smooth, moved(newest, past), overlay, out, scratch)
    levels = work.differences(newest.smooth, [moved(newest, past) for past in frames], overlay)
    for level, reduction in zip(levels, (1, REDUCTION), strict=True):
        height, width = (max(1, side // reduction) for side in size)
        first, second = (cv2.resize(each, (width, height), interpolation=cv2.INTER_AREA) for each in found)
        expected = np.minimum(np.abs(first), np.abs(second))
        np.testing.assert_allclose(level.image, expected, atol=1e-4)
        cells = max(1, width // CELL_PX), max(1, height // CELL_PX)
        np.testing.assert_allclose(level.means, cv2.resize(expected, cells, interpolation=cv2.INTER_AREA), atol=1e-4)


@both
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (60, 80), (61, 83)])
def test_peaks_are_the_highest_of_their_surroundings(work: PixelWork, size: tuple[int, int]):
    random = np.random.default_rng(7)
    scores = random.exponential(1, size).astype(np.float32).round(1)  # equal ones among them
    highest = cv2.dilate(scores, np.ones((PEAK_PX, PEAK_PX), np.uint8))
    rows, columns = np.nonzero((scores == highest) & (scores > MIN_SCORE))
    order = np.argsort(-scores[rows, columns], kind="stable")[:12]
    expected = [Peak(float(scores[rows[at], columns[at]]), int(rows[at]), int(columns[at])) for at in order]
    noise = np.ones([max(1, side // CELL_PX) for side in size], np.float32)
    assert work.peaks(scores.copy(), noise, 12) == expected


@both
def test_scores_are_differences_over_noise(work: PixelWork):
    random = np.random.default_rng(8)
    image = random.exponential(1, (61, 83)).astype(np.float32)
    noise = random.uniform(0.5, 2, (15, 20)).astype(np.float32)
    expected = image / cv2.resize(noise, (83, 61))
    peaks = work.peaks(image, noise, 20)
    np.testing.assert_allclose(image, expected, rtol=1e-5)
    assert len(peaks) == 20 and all(peak.score == image[peak.row, peak.column] for peak in peaks)


@needs_native
def test_the_native_library_is_used_where_it_is_built():
    assert isinstance(pixel_work(), NativePixels)
