"""The pixel work of motion candidates: differences to moved past frames, cells, scores and peaks.  Pure.

The native library does it in one pass over the image; without it, OpenCV and NumPy compute the same.
"""

import threading
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from model.native import pixels as native
from model.native.library import is_available
from model.native.pixels import Cells, Moved
from pipeline.segmentation.frame_history import BLUR_REACH_PX, SMOOTH_STEPS, PastFrame

REDUCTION = 3  # of the image in which near and blurred targets are sought
CELL_PX = 4  # of the means
SAMPLE_PX = 8  # between the pixels whose median difference is that of the whole image
PEAK_PX = 9  # peaks are at least half as far from each other
MIN_SCORE = 1.5
STILL_PX = 0.02  # a background that moved by less has not moved

Pixels = tuple[NDArray[np.intp], NDArray[np.intp]]  # rows and columns


class Peak(NamedTuple):
    """A local maximum: its score and place in an image, pixels."""

    score: float
    row: int
    column: int


class PixelWork(Protocol):
    """What is done with all pixels of a frame."""

    def differences(self, newest: NDArray[np.uint16], past: Sequence[Moved], overlay: Pixels | None) -> list[Cells]:
        """Return the smaller absolute difference to two past frames, in the frame's size and reduced, with its cells.

        What is returned is overwritten by the next call, of any camera.
        """
        ...

    def peaks(self, image: NDArray[np.float32], noise: NDArray[np.float32], most: int) -> list[Peak]:
        """Return an image's highest local maxima over the noise of its cells, best first; it is overwritten."""
        ...


@cache
def pixel_work() -> PixelWork:
    """Return the fastest that runs here."""
    return NativePixels() if is_available() else ReferencePixels()


def moved(newest: PastFrame, past: PastFrame) -> Moved:
    """Return a past frame, moved to where its background is in the newest one."""
    image = past.smooth
    factor = image.shape[1] / past.width_px
    dx, dy = ((now - then) * factor for now, then in zip(newest.position_px, past.position_px, strict=True))
    right, down = round(dx), round(dy)
    across, along = (dx - right, dy - down) if max(abs(dx), abs(dy)) > STILL_PX else (0.0, 0.0)
    return Moved(image, across, along, right, down, _seen(dx, image.shape[1]), _seen(dy, image.shape[0]))


def _seen(moved_px: float, side_px: int) -> tuple[int, int]:
    """Return from which line to which (exclusive) a frame moved by so much shows what the newest one does."""
    if abs(moved_px) <= 0.5:
        return 0, side_px
    first = round(max(moved_px, 0.0)) + BLUR_REACH_PX
    return first, max(first, side_px - round(max(-moved_px, 0.0)) - BLUR_REACH_PX)


class NativePixels:
    """Pixel work through the native library."""

    def differences(self, newest: NDArray[np.uint16], past: Sequence[Moved], overlay: Pixels | None) -> list[Cells]:
        """See `PixelWork`."""
        levels = _memory(newest.shape, threading.get_ident())
        native.differences(newest, past, overlay, SAMPLE_PX, *levels)
        return levels

    def peaks(self, image: NDArray[np.float32], noise: NDArray[np.float32], most: int) -> list[Peak]:
        """See `PixelWork`."""
        found = native.peaks(Cells(image, np.ascontiguousarray(noise)), MIN_SCORE, PEAK_PX // 2, most)
        return [Peak(*row) for row in found.tolist()]


class ReferencePixels:
    """Pixel work by OpenCV."""

    def differences(self, newest: NDArray[np.uint16], past: Sequence[Moved], overlay: Pixels | None) -> list[Cells]:
        """See `PixelWork`."""
        levels = _memory(newest.shape, threading.get_ident())
        *found, scratch = _scratch(newest.shape, threading.get_ident())
        for frame, out in zip(past, found, strict=True):
            subtract(newest, frame, overlay, out, scratch)
        for (image, means), size in zip(levels, (newest.shape, _reduced_shape(newest.shape)), strict=True):
            first, second = (_resized(each, size) for each in found)
            np.minimum(np.abs(first), np.abs(second), out=image)
            means[:] = _resized(image, means.shape)
        return levels

    def peaks(self, image: NDArray[np.float32], noise: NDArray[np.float32], most: int) -> list[Peak]:
        """See `PixelWork`."""
        cv2.divide(image, cv2.resize(noise, image.shape[::-1]), dst=image)
        highest = cv2.dilate(image, np.ones((PEAK_PX, PEAK_PX), np.uint8))
        above = np.flatnonzero(image > MIN_SCORE)  # few: only there are pixels compared with their surroundings
        above = above[image.ravel()[above] == highest.ravel()[above]]
        values = image.ravel()[above]
        best = np.argsort(-values, kind="stable")[:most]
        places = (np.divmod(int(above[index]), image.shape[1]) for index in best)
        return [Peak(float(values[index]), *place) for index, place in zip(best, places, strict=True)]


def subtract(
    newest: NDArray[np.uint16],
    past: Moved,
    overlay: Pixels | None,
    out: NDArray[np.float32],
    scratch: NDArray[np.float32],
) -> None:
    """Write the difference, grey levels, to a past frame; 0 where either shows an overlay, or the past one saw less."""
    image, shown, right, down = _levels(past.image), _levels(newest), past.right, past.down
    now, then = (
        tuple(slice(first - moved_by, end - moved_by) for (first, end), moved_by in zip(seen, shift, strict=True))
        for seen, shift in (((past.rows, past.columns), (0, 0)), ((past.rows, past.columns), (down, right)))
    )
    out[:] = 0
    if not out[now].size:
        return
    if past.across or past.along:
        image = _moved(image, past.across, past.along, scratch)
    # A step of gain control moves every pixel.
    sampled = (
        np.clip(np.arange(0, side, SAMPLE_PX) - moved_by, 0, side - 1)
        for side, moved_by in zip(out.shape, (down, right), strict=True)
    )
    step = np.median(shown[::SAMPLE_PX, ::SAMPLE_PX] - image[np.ix_(*sampled)])
    np.subtract(shown[now], image[then], out=out[now])
    out[now] -= step
    if overlay is not None:
        out[overlay] = 0
        height, width = out.shape
        rows, columns = overlay[0] + down, overlay[1] + right  # the past frame's moves with its background
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        out[rows[inside], columns[inside]] = 0


def _levels(image: NDArray[np.uint16]) -> NDArray[np.float32]:
    return image * np.float32(1 / SMOOTH_STEPS)


def _moved(image: NDArray[np.float32], dx: float, dy: float, out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Write the image moved by at most a pixel, interpolated linearly; `cv2.warpAffine` takes five times as long."""
    across, along = (np.array([max(d, 0.0), 1 - abs(d), max(-d, 0.0)], np.float32) for d in (dx, dy))
    cv2.filter2D(image, -1, np.outer(along, across), dst=out, borderType=cv2.BORDER_REPLICATE)
    return out


def _resized(image: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the image in a smaller size, each pixel a mean."""
    return np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), np.float32)


def _reduced_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(1, side // REDUCTION) for side in shape)


# Reused by all cameras: memory of this size is otherwise mapped anew, and cleared, at every operation.
@lru_cache(maxsize=8)
def _memory(shape: tuple[int, ...], _thread: int) -> list[Cells]:
    return [
        Cells(np.empty(size, np.float32), np.empty([max(1, side // CELL_PX) for side in size], np.float32))
        for size in (shape, _reduced_shape(shape))
    ]


@lru_cache(maxsize=4)
def _scratch(shape: tuple[int, ...], _thread: int) -> list[NDArray[np.float32]]:
    return [np.empty(shape, np.float32) for _ in range(3)]
