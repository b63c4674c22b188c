"""Frames -> how far the whole picture moved since the one before.  Pure.

Phase correlation (Kuglin & Hines, 1975) of small grey pictures.  Its peak is now and then a false one, or that of a
large target before a plain sky; so it is believed only where most of the picture fits better than as it lay before.
Least squares on the gradients (Lucas & Kanade, 1981) then place it exactly.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH_PX = 160  # of the small picture; a shift is then known to about a twentieth of one of its pixels
BLUR_PX = 1.0  # so that grey levels are no whole numbers, noise is less, and gradients reach as far as a step
MIN_RESPONSE = 0.08  # below this peak the pictures do not match: a scene cut, or nothing to hold on to
BETTER = 0.9  # of the difference that is left elsewhere
NEAR_PX = 1.0  # small pixels; so near to each other the pictures do not tell one place from another
MAX_SHIFT = 0.2  # of the picture's width, until the reference is renewed
FARTHEST = 0.3  # ... and that is believed: a farther peak is a false one, as after a thermal camera's shutter
STEPS = 2  # of least squares, ...
EXACT_PX = 0.02  # ... and no more after one so short
OUTLIER = 2.5  # times the mean difference: what moves by itself, as a target, and is left out
LEAST_PRECISION_PX = 0.25  # of least squares, small pixels: below, there is too little contrast for them


class CameraMotion:
    """One a camera and session.

    Each picture is held against a reference that is kept for as long as the view overlaps it, so that the small bias of
    the estimate does not add up to a drift.
    """

    def __init__(self) -> None:
        self._reference: NDArray[np.float32] | None = None
        self._window: NDArray[np.float32] | None = None
        self._position = (0.0, 0.0)  # of the newest picture against the reference, small pixels

    def update(self, pixels: NDArray[np.uint8]) -> tuple[float, float] | None:
        """The shift (x, y) in pixels of `pixels`, or None where it is unknown.

        None is told of the first frame and of pictures that do not match at all; a false peak, as a large target before
        a plain sky gives it, is no motion.
        """
        height, width = pixels.shape[:2]
        factor = width / WIDTH_PX
        small = cv2.resize(pixels, (WIDTH_PX, max(8, round(height / factor))), interpolation=cv2.INTER_AREA)
        grey = (cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small).astype(np.float32)
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), BLUR_PX), np.float32)
        reference, before = self._reference, self._position
        if self._window is None or self._window.shape != grey.shape:
            self._window = cv2.createHanningWindow(grey.shape[::-1], cv2.CV_32F).astype(np.float32)
            reference = None
        if reference is None:
            self._renew(grey)
            return None
        # Windowed here, since OpenCV would multiply its input in place, again and again.
        found, response = cv2.phaseCorrelate(reference * self._window, grey * self._window)
        if response < MIN_RESPONSE:
            self._renew(grey)
            return None
        if max(abs(found[0]), abs(found[1])) > FARTHEST * WIDTH_PX:
            self._renew(grey)  # what follows is measured from here: the reference may be the shutter
            return 0.0, 0.0
        place = (found[0], found[1]) if believable(reference, grey, found, before) else before
        x, y = self._position = refined(reference, grey, place)
        if max(abs(x), abs(y)) > MAX_SHIFT * WIDTH_PX:
            self._renew(grey)
        return (x - before[0]) * factor, (y - before[1]) * factor

    def _renew(self, grey: NDArray[np.float32]) -> None:
        self._reference, self._position = grey, (0.0, 0.0)


def believable(
    reference: NDArray[np.float32], grey: NDArray[np.float32], found: Sequence[float], before: tuple[float, float]
) -> bool:
    """Whether the picture lies better on the reference there than where it lay before, and than unmoved."""
    others = [one for one in (before, (0.0, 0.0)) if max(abs(found[0] - one[0]), abs(found[1] - one[1])) > NEAR_PX]
    there = residual(reference, grey, found) if others else 0.0
    return all(there < BETTER * residual(reference, grey, other) for other in others)


def residual(reference: NDArray[np.float32], grey: NDArray[np.float32], position: Sequence[float]) -> float:
    """The median difference, in grey levels, of two small pictures where they overlap, in whole pixels."""
    (x, y), (height, width) = map(round, position), grey.shape
    now = grey[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    then = reference[max(0, -y) : height + min(0, -y), max(0, -x) : width + min(0, -x)]
    return float(np.median(np.abs(now - then))) if now.size else np.inf


def refined(
    reference: NDArray[np.float32], grey: NDArray[np.float32], place: tuple[float, float]
) -> tuple[float, float]:
    """The place near to this one where the picture fits best; this one where the pictures do not tell."""
    x, y = place
    height, width = grey.shape
    for _ in range(STEPS):
        margin_x, margin_y = int(abs(x)) + 3, int(abs(y)) + 3
        inside = np.s_[margin_y : height - margin_y, margin_x : width - margin_x]
        then = cv2.warpAffine(reference, np.array([[1, 0, x], [0, 1, y]], np.float32), (width, height))
        difference = (grey - then)[inside]
        if difference.size < width:
            return place
        difference -= difference.mean()
        apart = np.abs(difference)
        alike = (apart < OUTLIER * apart.mean() + 1e-3).astype(np.float32)
        across, down = (cv2.Sobel(then, cv2.CV_32F, *axis, ksize=1, scale=0.5)[inside] for axis in ((1, 0), (0, 1)))
        across, down, rest = across * alike, down * alike, difference * alike
        normal = np.array(
            [[(across * across).sum(), (across * down).sum()], [(across * down).sum(), (down * down).sum()]]
        )
        least = float(np.linalg.eigvalsh(normal)[0])
        if least <= 0 or float((rest * rest).sum()) / float(alike.sum()) / least > LEAST_PRECISION_PX**2:
            return place
        step_x, step_y = np.linalg.solve(normal, [-(across * rest).sum(), -(down * rest).sum()])
        x, y = x + float(step_x), y + float(step_y)
        if max(abs(x - place[0]), abs(y - place[1])) > NEAR_PX:
            return place
        if max(abs(step_x), abs(step_y)) < EXACT_PX:
            break
    return x, y
