"""Pseudo-masks: which pixels of a labelled box are the object.

In: a frame (H, W, 3) uint8 and a loose box xyxy in its pixels.  Out: a boolean mask and where it lies.
An object differs from the ring around its box.  Large ones are cut out by Otsu's threshold; tiny ones, which are a
blurred spot, at half of their peak contrast, keeping the spot nearest the box's centre.
"""

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]

TINY_BOX_PX = 14  # below, the half-peak rule
RING_QUANTILE = 0.9  # contrast inside must exceed this of the ring's
MIN_CONTRAST = 5.0  # grey levels above the ring's quantile; less is no contrast at all
ELLIPSE = 0.5  # of the box, where nothing is found: boxes are loose


def box_mask(image: Image, box: Box) -> tuple[Mask, int, int]:
    """The object's mask and the column and row of its top-left corner; empty (0, 0) if the box is off the frame."""
    height, width = image.shape[:2]
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    if right <= left or bottom <= top:
        return np.zeros((0, 0), bool), 0, 0
    inner = (left, top, right, bottom)
    contrast, floor = _contrast(image, inner)
    tiny = max(right - left, bottom - top) < TINY_BOX_PX
    mask = _half_peak(contrast, floor, 1) if tiny else _otsu(contrast, floor)
    if not mask.any():  # the ring holds other things, a tree line say: look for a spot against its near surroundings
        mask = _half_peak(*_spot_contrast(image, inner), 1 if tiny else 5)
    return (mask if mask.any() else _ellipse(mask.shape, ELLIPSE)), left, top


def _contrast(image: Image, inner: tuple[int, int, int, int]) -> tuple[npt.NDArray[np.float32], float]:
    """Inside the box, the largest channel's difference to the ring's median; and the ring's quantile of the same."""
    left, top, right, bottom = inner
    margin = max(4, (max(right - left, bottom - top) + 1) // 2)
    x0, y0 = max(0, left - margin), max(0, top - margin)
    patch = image[y0 : bottom + margin, x0 : right + margin].astype(np.float32)
    ring = np.ones(patch.shape[:2], bool)
    box = slice(top - y0, bottom - y0), slice(left - x0, right - x0)
    ring[box] = False
    if not ring.any():  # the box fills the frame
        ring[:] = True
    difference = np.abs(patch - np.median(patch[ring], axis=0)).max(axis=2)
    return difference[box], float(np.quantile(difference[ring], RING_QUANTILE))


def _spot_contrast(image: Image, inner: tuple[int, int, int, int]) -> tuple[npt.NDArray[np.float32], float]:
    """As `_contrast`, but each pixel against the median of a window of the box's size around it."""
    left, top, right, bottom = inner
    window = min(31, max(right - left, bottom - top, 5) | 1)
    margin = window // 2
    x0, y0 = max(0, left - margin), max(0, top - margin)
    patch = np.ascontiguousarray(image[y0 : bottom + margin, x0 : right + margin])
    difference = np.abs(patch.astype(np.float32) - cv2.medianBlur(patch, window)).max(axis=2)
    inside = difference[top - y0 : bottom - y0, left - x0 : right - x0]
    return inside, float(np.median(inside))


def _half_peak(contrast: npt.NDArray[np.float32], floor: float, gap_px: int) -> Mask:
    """Pixels above half of the peak near the centre, connected, over gaps too, to the one of most central contrast."""
    height, width = contrast.shape
    rows, columns = np.mgrid[:height, :width]
    offset = np.hypot((rows - (height - 1) / 2) / height, (columns - (width - 1) / 2) / width)
    central = contrast * np.exp(-4 * offset**2)  # the box's edges may touch something else
    peak = float(contrast.flat[int(central.argmax())])
    if peak < floor + MIN_CONTRAST:
        return np.zeros(contrast.shape, bool)
    above = (contrast > max((0.5 if gap_px == 1 else 0.35) * peak, floor)).astype(np.uint8)
    joined = cv2.morphologyEx(above, cv2.MORPH_CLOSE, np.ones((gap_px, gap_px), np.uint8))
    _, components = cv2.connectedComponents(joined, connectivity=8)
    chosen = np.asarray(components) == components.flat[int(np.where(above, central, -1).argmax())]
    return np.asarray(chosen & ((above if gap_px == 1 else _closed(above)) > 0), bool)


def _closed(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.uint8)


def _otsu(contrast: npt.NDArray[np.float32], floor: float) -> Mask:
    levels = np.clip(contrast, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    above = (contrast > max(float(otsu), floor)) & (contrast > MIN_CONTRAST)
    if above.sum() < 0.04 * above.size:
        return np.zeros(contrast.shape, bool)
    return _closed(above.astype(np.uint8)) > 0


def _ellipse(shape: tuple[int, ...], fraction: float) -> Mask:
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot((rows - (height - 1) / 2) / height, (columns - (width - 1) / 2) / width)
    return np.asarray((distance <= fraction / 2) | (distance == distance.min()))
