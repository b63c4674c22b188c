"""The pixel work of motion candidates is that of plain formulas, only faster."""

import cv2
import numpy as np
import pytest

from pipeline.segmentation.frame_history import BLUR_REACH_PX, PastFrame
from pipeline.segmentation.motion import MIN_SCORE, PEAK_PX, Candidate, Pixels, _peaks, _subtract


def frame(random: np.random.Generator, size: tuple[int, int], position_px: tuple[float, float]) -> PastFrame:
    smooth = cv2.GaussianBlur(random.normal(100, 2, size).astype(np.float32), (5, 5), 1)
    return PastFrame(0.0, np.zeros(size, np.uint8), smooth, position_px, 2 * size[1], 2 * size[0])


def difference(newest: PastFrame, past: PastFrame, overlay: np.ndarray | None) -> np.ndarray:
    """By an affine warp of the past frame and of the mask of an overlay."""
    (height, width), image, hidden = past.smooth.shape, past.smooth, overlay
    dx, dy = ((now - then) / 2 for now, then in zip(newest.position_px, past.position_px, strict=True))
    if max(abs(dx), abs(dy)) > 0.02:
        transform = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        image = cv2.warpAffine(image, transform, (width, height), borderMode=cv2.BORDER_REPLICATE)
        if overlay is not None:
            before = cv2.warpAffine(overlay.astype(np.uint8), transform, (width, height), flags=cv2.INTER_NEAREST)
            hidden = overlay | (before > 0)
    result = newest.smooth - image
    result -= np.median(result[::8, ::8])
    if hidden is not None:
        result[hidden] = 0
    for lines, moved in ((result.T, dx), (result, dy)):
        if abs(moved) > 0.5:
            lines[: round(max(moved, 0.0)) + BLUR_REACH_PX] = 0
            lines[max(0, len(lines) - round(max(-moved, 0.0)) - BLUR_REACH_PX) :] = 0
    return result


@pytest.mark.parametrize("has_overlay", [False, True])
@pytest.mark.parametrize(
    "moved_px", [(0, 0), (0.03, -0.01), (0.6, -0.8), (1.3, 0.2), (-3.7, 11.2), (70.3, -50.9), (-9.4, 0), (500, 0)]
)
def test_the_difference_is_that_to_the_warped_past_frame(moved_px: tuple[float, float], has_overlay: bool):
    random = np.random.default_rng(5)
    newest, past = frame(random, (96, 120), moved_px), frame(random, (96, 120), (0.0, 0.0))
    overlay = np.zeros((96, 120), bool)
    overlay[0:9, 3:40] = overlay[40:50, 60:70] = overlay[90:, 100:] = has_overlay
    pixels: Pixels | None = np.nonzero(overlay) if has_overlay else None
    out, scratch = np.full((2, 96, 120), np.nan, np.float32)
    _subtract(newest, past, pixels, out, scratch)
    # At an edge that the past frame did not see, the median's samples are not the same to the last digit.
    np.testing.assert_allclose(out, difference(newest, past, overlay if has_overlay else None), atol=0.05)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (60, 80)])
def test_peaks_are_the_highest_of_their_surroundings(size: tuple[int, int]):
    scores = np.random.default_rng(6).exponential(1, size).astype(np.float32).round(1)  # equal ones among them
    highest = cv2.dilate(scores, np.ones((PEAK_PX, PEAK_PX), np.uint8))
    rows, columns = np.nonzero((scores == highest) & (scores > MIN_SCORE))
    order = np.argsort(-scores[rows, columns], kind="stable")[:12]
    expected = [
        Candidate(2 * x + 1.0, 2 * y + 1.0, float(scores[y, x]))
        for y, x in zip(rows[order], columns[order], strict=True)
    ]
    assert _peaks(scores, (2.0, 2.0), 0.0, 12, np.empty_like(scores)) == expected
