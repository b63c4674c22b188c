"""Paste a recorded drone into a copy of a frame, as the camera would have shown it.  Pure.

In: a frame's pixels, crops of a drone and where it is.  Out: a copy with the drone at a sub-pixel position: its
contrast follows the background's own standard deviation, its edges are as blurred as the camera's, its noise is the
frame's.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.assess.drones import CROP_PX

MIN_DEVIATION = 2.0  # grey levels: a plain sky that compression smoothed has none
MAX_CONTRAST = 160.0  # grey levels
WINDOW_D = 2.0  # the background is measured within this many apparent sizes ...
MIN_WINDOW_PX = 12  # ... and pixels of a position
NOISE_SIGMA_PX = 1.0  # of the blur whose remainder is noise
CROP_SIGMA_PX = 0.6  # blur of the crops
SHARPNESS_SIGMA_PX = 1.0  # of the blur that the frame is compared with
DIFFERENCE_VARIANCE_PX2 = 1 / 3  # the blur of a central difference: a box of two pixels
SHARPNESS_SHARE = 0.01  # of the pixels: the strongest edges
SHARPNESS_RANGE_PX = (0.5, 3.0)

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def background_deviation(pixels: Pixels, points: Sequence[tuple[float, float]], size_px: float) -> tuple[float, float]:
    """Return the background's standard deviation, texture and noise, and that of its noise alone, in grey levels.

    Both are robust (1.4826 times the median absolute deviation), of what is smaller than the drone, and medians over
    windows around the points.
    """
    half = math.ceil(max(MIN_WINDOW_PX, WINDOW_D * size_px))
    deviations, noises = [], []
    for x, y in points:
        left, top = max(0, round(x) - half), max(0, round(y) - half)
        window = _grey(pixels[top : round(y) + half, left : round(x) + half])
        if window.size:
            deviations.append(_robust_deviation(window - cv2.GaussianBlur(window, (0, 0), size_px)))
            noises.append(_robust_deviation(window - cv2.GaussianBlur(window, (0, 0), NOISE_SIGMA_PX)))
    if not deviations:
        return MIN_DEVIATION, 0.0
    return max(MIN_DEVIATION, float(np.median(deviations))), float(np.median(noises))


def sharpness_px(pixels: Pixels) -> float:
    """Return the standard deviation of the blur of the frame's edges, in pixels.

    The gradients of the strongest edges fall by sqrt(1 + s0^2 / s^2) where the frame is blurred by s0 more (Zhuo & Sim,
    Pattern Recognition 44, 2011).
    """
    grey = _grey(pixels)
    gradient = _gradient(grey)
    edges = gradient >= max(1.0, float(np.quantile(gradient, 1 - SHARPNESS_SHARE)))
    if not edges.any():
        return SHARPNESS_RANGE_PX[0]
    blurred = _gradient(np.asarray(cv2.GaussianBlur(grey, (0, 0), SHARPNESS_SIGMA_PX), np.float32))
    ratio = float(np.median(gradient[edges] / np.maximum(blurred[edges], 1e-3)))
    squared = SHARPNESS_SIGMA_PX**2 / max(1e-6, ratio**2 - 1) - DIFFERENCE_VARIANCE_PX2
    sigma_px = math.sqrt(max(0.0, squared))
    return min(max(sigma_px, SHARPNESS_RANGE_PX[0]), SHARPNESS_RANGE_PX[1])


def pasted(
    pixels: Pixels,
    crops: tuple[Floats, Floats],
    centre: tuple[float, float],
    scale: float,
    contrast: float,
    blur_px: float,
    noise: Floats,
) -> Pixels:
    """Return a copy of a frame with a drone in it.

    Args:
        pixels: HxWx3 or HxW.
        crops: alpha in 0..1, and the difference to the background in units of `contrast`, (CROP_PX, CROP_PX).
        centre: x, y in frame pixels; a pixel's centre lies at +0.5.
        scale: frame pixels per crop pixel.
        contrast: grey levels.
        blur_px: standard deviation of the camera's blur.
        noise: grey levels, (window_px(scale), window_px(scale)): the noise of what the drone covers.
    """
    side = window_px(scale)
    left, top = math.floor(centre[0] - side / 2), math.floor(centre[1] - side / 2)
    offset = centre[0] - left, centre[1] - top
    alpha, difference = (_resampled(crop, scale, offset, side, blur_px) for crop in crops)
    height, width = pixels.shape[:2]
    rows, columns = slice(max(0, -top), min(side, height - top)), slice(max(0, -left), min(side, width - left))
    copy = pixels.copy()
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return copy
    window = copy[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
    alpha, difference, noise = (plane[rows, columns] for plane in (alpha, difference, noise))
    if window.ndim == 3:
        alpha, difference, noise = alpha[..., None], difference[..., None], noise[..., None]
    covered = np.broadcast_to(alpha > 1 / 255, window.shape)
    background = np.median(window[~covered].reshape(-1, *window.shape[2:]), axis=0) if not covered.all() else window
    mixed = window * (1 - alpha) + alpha * (background + noise) + contrast * difference
    window[...] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return copy


def window_px(scale: float) -> int:
    """Return the side of the square that a pasted drone may change."""
    return math.ceil(CROP_PX * scale) + 4


def _resampled(crop: Floats, scale: float, offset: tuple[float, float], side: int, blur_px: float) -> Floats:
    """Return the crop at another scale, centred at `offset` of a square window."""
    if scale < 1:  # area averaging, so that nothing thin is lost
        crop = np.asarray(cv2.GaussianBlur(crop, (0, 0), 0.5 / scale), np.float32)
    shift = [middle - scale * CROP_PX / 2 + (scale - 1) / 2 for middle in offset]
    transform = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
    placed = cv2.warpAffine(crop, transform, (side, side), flags=cv2.INTER_LINEAR)
    missing = blur_px**2 - (CROP_SIGMA_PX * max(1.0, scale)) ** 2
    return np.asarray(cv2.GaussianBlur(placed, (0, 0), math.sqrt(missing)) if missing > 0.01 else placed, np.float32)


def _grey(pixels: Pixels) -> Floats:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels, np.float32)


def _robust_deviation(values: Floats) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _gradient(grey: Floats) -> Floats:
    dx, dy = (cv2.Sobel(grey, cv2.CV_32F, *axis, ksize=1, scale=0.5) for axis in ((1, 0), (0, 1)))
    return np.hypot(dx, dy)
