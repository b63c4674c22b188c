"""Camera motion estimation: frames -> the global shift since the previous frame.  Pure.

Phase correlation (Kuglin & Hines, 1975) of small grey images.  Its peak is sometimes false, or that of a large target
before a plain sky; so it is accepted only where most of the image fits better than at the previous position.  Least
squares on the gradients (Lucas & Kanade, 1981) then refine it to a fraction of a pixel.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model.native import pixels as native
from model.native.library import is_available

WIDTH_PX = 160  # of the small image, in which shifts are estimated to about a twentieth of a pixel
BLUR_PX = 1.0  # reduces noise and quantisation, and lets gradients reach as far as a step
MIN_RESPONSE = 0.08  # below this peak the images do not match: a scene cut, or no texture
MATCHING_LEVELS = 1.5  # median grey levels between images of the same scene, peak or not: it may be a plain sky
MAX_RESIDUAL_RATIO = 0.9  # of an accepted peak, against the residual elsewhere
MIN_DISTANCE_PX = 1.0  # small pixels: residuals do not distinguish positions nearer to each other than this
MAX_SHIFT = 0.2  # of the image's width, until the reference is renewed
MAX_JUMP = 0.3  # of the width: a farther peak is false, as after a thermal camera's shutter
MAX_ITERATIONS = 2  # of least squares
CONVERGED_PX = 0.02  # a step this short ends them
OUTLIER_RATIO = 2.5  # times the mean difference: what moves by itself, as a target, is left out
MAX_ERROR_PX = 0.25  # of least squares, small pixels: above, there is too little contrast
FIT = native.Fit(MAX_ITERATIONS, CONVERGED_PX, OUTLIER_RATIO, MAX_ERROR_PX, MIN_DISTANCE_PX)


class CameraMotion:
    """The motion of one camera in one session.

    Each image is compared with a reference that is kept for as long as the view overlaps it, so that the small bias of
    the estimate does not add up to a drift.

    Attributes:
        is_measured: whether the last shift was; else the images match, but show nothing to measure it by, as a plain
            sky does, and it is taken for none.
    """

    def __init__(self) -> None:
        self.is_measured = False
        self._reference: NDArray[np.float32] | None = None
        self._window: NDArray[np.float32] | None = None
        self._position = (0.0, 0.0)  # of the newest image against the reference, small pixels

    def update(self, pixels: NDArray[np.uint8]) -> tuple[float, float] | None:
        """Return the shift (x, y) of this frame against the previous one in its pixels; None where it is unknown.

        It is unknown for the first frame and where images do not match at all.  A false peak, as a large target before
        a plain sky causes it, counts as no motion; so does no peak, but then `is_measured` is False.

        Args:
            pixels: HxWx3 RGB or HxW.
        """
        height, width = pixels.shape[:2]
        factor = width / WIDTH_PX
        small = cv2.resize(pixels, (WIDTH_PX, max(8, round(height / factor))), interpolation=cv2.INTER_AREA)
        grey = (cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small).astype(np.float32)
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), BLUR_PX), np.float32)
        reference, before = self._reference, self._position
        self.is_measured = False
        if self._window is None or self._window.shape != grey.shape:
            self._window = cv2.createHanningWindow(grey.shape[::-1], cv2.CV_32F).astype(np.float32)
            reference = None
        if reference is None:
            self._renew(grey)
            return None
        # Windowed here, since OpenCV would multiply its input in place, again and again.
        found, response = cv2.phaseCorrelate(reference * self._window, grey * self._window)
        if response < MIN_RESPONSE:
            is_same = residual(reference, grey, before) <= MATCHING_LEVELS
            self._renew(grey)
            return (0.0, 0.0) if is_same else None
        self.is_measured = True
        if max(abs(found[0]), abs(found[1])) > MAX_JUMP * WIDTH_PX:
            self._renew(grey)  # later frames are measured from here: the reference may show the shutter
            return 0.0, 0.0
        peak = (found[0], found[1]) if is_plausible(reference, grey, found, before) else before
        x, y = self._position = refined(reference, grey, peak)
        if max(abs(x), abs(y)) > MAX_SHIFT * WIDTH_PX:
            self._renew(grey)
        return (x - before[0]) * factor, (y - before[1]) * factor

    def _renew(self, grey: NDArray[np.float32]) -> None:
        self._reference, self._position = grey, (0.0, 0.0)


def is_plausible(
    reference: NDArray[np.float32], grey: NDArray[np.float32], peak: Sequence[float], before: tuple[float, float]
) -> bool:
    """Return whether the image fits the reference better at the peak than at its previous position and unmoved."""
    others = [
        other
        for other in (before, (0.0, 0.0))
        if max(abs(peak[0] - other[0]), abs(peak[1] - other[1])) > MIN_DISTANCE_PX
    ]
    at_peak = residual(reference, grey, peak) if others else 0.0
    return all(at_peak < MAX_RESIDUAL_RATIO * residual(reference, grey, other) for other in others)


def residual(reference: NDArray[np.float32], grey: NDArray[np.float32], position: Sequence[float]) -> float:
    """Return the median difference, in grey levels, of two small images where they overlap, in whole pixels."""
    if is_available():
        return native.residual(reference, grey, round(position[0]), round(position[1]))
    return reference_residual(reference, grey, position)


def reference_residual(reference: NDArray[np.float32], grey: NDArray[np.float32], position: Sequence[float]) -> float:
    """Return the same as `residual`, by NumPy."""
    (x, y), (height, width) = map(round, position), grey.shape
    current = grey[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
    earlier = reference[max(0, -y) : height + min(0, -y), max(0, -x) : width + min(0, -x)]
    return float(np.median(np.abs(current - earlier))) if current.size else np.inf


def refined(
    reference: NDArray[np.float32], grey: NDArray[np.float32], start: tuple[float, float]
) -> tuple[float, float]:
    """Return the position near `start` where the image fits best; `start` where there is too little contrast."""
    if is_available():
        return native.refined(reference, grey, start, FIT)
    return reference_refined(reference, grey, start)


def reference_refined(
    reference: NDArray[np.float32], grey: NDArray[np.float32], start: tuple[float, float]
) -> tuple[float, float]:
    """Return the same as `refined`, by OpenCV and NumPy."""
    x, y = start
    height, width = grey.shape
    for _ in range(MAX_ITERATIONS):
        margin_x, margin_y = int(abs(x)) + 3, int(abs(y)) + 3
        inside = np.s_[margin_y : height - margin_y, margin_x : width - margin_x]
        warped = cv2.warpAffine(reference, np.array([[1, 0, x], [0, 1, y]], np.float32), (width, height))
        difference = (grey - warped)[inside]
        if difference.size < width:
            return start
        difference -= difference.mean()
        magnitude = np.abs(difference)
        inliers = (magnitude < OUTLIER_RATIO * magnitude.mean() + 1e-3).astype(np.float32)
        gx, gy = (cv2.Sobel(warped, cv2.CV_32F, *axis, ksize=1, scale=0.5)[inside] for axis in ((1, 0), (0, 1)))
        gx, gy, rest = gx * inliers, gy * inliers, difference * inliers
        normal = np.array([[(gx * gx).sum(), (gx * gy).sum()], [(gx * gy).sum(), (gy * gy).sum()]])
        smallest = float(np.linalg.eigvalsh(normal)[0])
        if smallest <= 0 or float((rest * rest).sum()) / float(inliers.sum()) / smallest > MAX_ERROR_PX**2:
            return start
        step_x, step_y = np.linalg.solve(normal, [-(gx * rest).sum(), -(gy * rest).sum()])
        x, y = x + float(step_x), y + float(step_y)
        if max(abs(x - start[0]), abs(y - start[1])) > MIN_DISTANCE_PX:
            return start
        if max(abs(step_x), abs(step_y)) < CONVERGED_PX:
            break
    return x, y
