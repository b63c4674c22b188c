"""Work on images beside the networks through the native library: motion candidates, camera motion, chips.

`pipeline.segmentation` says what each is for; without the library it computes the same by OpenCV.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.errors import EngineError
from model.native.library import library


class Moved(NamedTuple):
    """A past frame, uint16 (H, W) in steps of 1/256 grey level, and where its background is now.

    Attributes:
        image: the frame.
        across: the part of a pixel by which it moved to the right, -0.5 to 0.5 ...
        along: ... and down; both in addition to:
        right: whole pixels.
        down: likewise.
        columns: from which column to which (exclusive) it saw what the newest frame shows.
        rows: likewise.
    """

    image: NDArray[np.uint16]
    across: float
    along: float
    right: int
    down: int
    columns: tuple[int, int]
    rows: tuple[int, int]


class Cells(NamedTuple):
    """An image, float32 (H, W), and the means of its cells, float32 (h, w)."""

    image: NDArray[np.float32]
    means: NDArray[np.float32]


class Fit(NamedTuple):
    """How `refined` ends, and what it leaves out.

    Attributes:
        iterations: of least squares, at most.
        converged_px: a step this short ends them.
        outlier_ratio: times the mean difference: what differs more is left out.
        error_px: of the position; above it there is too little contrast.
        reach_px: from the start; farther away nothing is found.
    """

    iterations: int
    converged_px: float
    outlier_ratio: float
    error_px: float
    reach_px: float


class _Past(ctypes.Structure):
    _fields_ = [
        ("image", ctypes.c_void_p),
        ("across", ctypes.c_float),
        ("along", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("right", "down", "x0", "x1", "y0", "y1")),
    ]


class _Pixels(ctypes.Structure):
    _fields_ = [("rows", ctypes.c_void_p), ("columns", ctypes.c_void_p), ("count", ctypes.c_int64)]


class _Level(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("height", "width", "rows", "columns")),
        ("image", ctypes.c_void_p),
        ("cells", ctypes.c_void_p),
    ]


class _Fit(ctypes.Structure):
    _fields_ = [
        ("iterations", ctypes.c_int),
        *((name, ctypes.c_double) for name in ("converged", "outlier_ratio", "error", "reach")),
    ]


class _Image(ctypes.Structure):
    _fields_ = [("pixels", ctypes.c_void_p), ("height", ctypes.c_int), ("width", ctypes.c_int)]


_NO_PIXELS = np.empty(0, np.int64)
PEAK = np.dtype([("score", np.float32), ("row", np.int32), ("column", np.int32)])


def differences(
    newest: NDArray[np.uint16],
    past: Sequence[Moved],
    overlay: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
    sampled_px: int,
    whole: Cells,
    reduced: Cells,
) -> None:
    """Write the smaller absolute difference of a frame to two past ones, in its size and reduced, and their cells.

    Args:
        newest: the frame, uint16 (H, W) in steps of 1/256 grey level.
        past: two frames.
        overlay: rows and columns, in the order of an image, of the pixels in which every frame shows an overlay.
        sampled_px: between pixels whose median difference is that of the whole image.
        whole: what is written, in the frame's size.
        reduced: likewise, smaller.
    """
    moved = (_Past * 2)(
        *(
            _Past(one.image.ctypes.data, one.across, one.along, one.right, one.down, *one.columns, *one.rows)
            for one in past
        )
    )
    rows, columns = map(np.ascontiguousarray, overlay or (_NO_PIXELS, _NO_PIXELS))
    pixels = _Pixels(rows.ctypes.data, columns.ctypes.data, len(rows))
    levels = _level(whole), _level(reduced)
    failed = library().dasnet_motion_differences(
        newest.ctypes.data, moved, ctypes.byref(pixels), sampled_px, *map(ctypes.byref, levels)
    )
    if failed:
        raise EngineError(f"differences of frames of {newest.shape}: out of memory")


def blurred(image: NDArray[np.uint8], kernel: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return an image, uint8 (H, W), blurred by a symmetric kernel of five values, in steps of 1/256 grey level."""
    out, half = np.empty(image.shape, np.uint16), np.ascontiguousarray(kernel.ravel()[2:])
    if library().dasnet_blur(ctypes.byref(_image(image)), half.ctypes.data, out.ctypes.data):
        raise EngineError(f"image of {image.shape}: out of memory")
    return out


def peaks(level: Cells, min_score: float, reach_px: int, most: int) -> NDArray[np.void]:
    """Return the highest local maxima of an image over its noise, best first, as a record array of PEAK.

    Args:
        level: the image, which is overwritten, and the noise of its cells.
        min_score: that a maximum must exceed.
        reach_px: a maximum is the highest this far in each direction.
        most: how many there are at most.
    """
    found = np.empty(most, PEAK)
    count = library().dasnet_motion_peaks(
        ctypes.byref(_level(level)), ctypes.c_float(min_score), reach_px, most, found.ctypes.data
    )
    if count < 0:
        raise EngineError(f"peaks of an image of {level.image.shape}: out of memory")
    return found[:count]


def cut(images: Sequence[NDArray[np.uint8]], origins: NDArray[np.float64], side_px: int) -> NDArray[np.uint8]:
    """Return square crops, uint8 (N, len(images), side, side), interpolated linearly, reflected at the edges.

    Args:
        images: uint8 (H, W), contiguous.
        origins: where the first pixel of each crop lies, x and y, float64 (N, len(images), 2).
        side_px: of the crops.
    """
    crops = np.empty((*origins.shape[:2], side_px, side_px), np.uint8)
    places = np.ascontiguousarray(origins, np.float64)
    of_all = (_Image * len(images))(*map(_image, images))
    if library().dasnet_cut(of_all, len(images), places.ctypes.data, len(places), side_px, crops.ctypes.data):
        raise EngineError(f"{len(places)} crops: out of memory")
    return crops


def residual(reference: NDArray[np.float32], image: NDArray[np.float32], x: int, y: int) -> float:
    """Return the median absolute difference of an image and a reference, moved by x and y, where they overlap."""
    median = ctypes.c_double()
    arguments = reference.ctypes.data, image.ctypes.data, *image.shape, x, y, ctypes.byref(median)
    if library().dasnet_residual(*arguments):
        raise EngineError(f"images of {image.shape}: out of memory")
    return median.value


def refined(
    reference: NDArray[np.float32], image: NDArray[np.float32], start: tuple[float, float], fit: Fit
) -> tuple[float, float]:
    """Return the place (x, y) near `start` where an image fits a reference best; `start` with too little contrast."""
    place = (ctypes.c_double * 2)(*start)
    arguments = reference.ctypes.data, image.ctypes.data, *image.shape, ctypes.byref(_Fit(*fit)), place
    if library().dasnet_refine(*arguments):
        raise EngineError(f"images of {image.shape}: out of memory")
    return place[0], place[1]


def _image(image: NDArray[np.uint8]) -> _Image:
    return _Image(image.ctypes.data, *image.shape)


def _level(cells: Cells) -> _Level:
    return _Level(*cells.image.shape, *cells.means.shape, cells.image.ctypes.data, cells.means.ctypes.data)
