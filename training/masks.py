"""Pseudo-masks: the object's pixels within a labelled box.

In: a frame (H, W, 3) uint8 and a loose box xyxy in its pixels.  Out: a boolean mask and its position.
The background is a plane fitted to the ring around the box.  The object's pixels are those whose contrast exceeds a
share of the peak and the ring's own contrast, connected to the strongest central pixel.
"""

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]

TINY_BOX_PX = 14  # below, the object is a spot of one colour; above, it may have light and dark parts, and gaps
GAP_PX = 5  # largest gap between parts of a large object
OPPOSITE_WEIGHT = 0.4  # weight of contrast of the opposite sign
SMOOTHING_PX = 0.6
PEAK_SHARE = 0.22  # threshold relative to the peak contrast; half the peak would lose soft edges and thin parts
CLUTTERED_PEAK_SHARE = {True: 0.5, False: 0.35}  # of tiny and of large objects on cluttered background
RING_QUANTILE = 0.9  # contrast inside must exceed this quantile of the ring's contrast ...
NOISE_DEVIATIONS = 2.0  # ... and this many standard deviations of its noise
MIN_CONTRAST = 5.0  # grey levels, of a pixel, and of the peak above the ring
ELLIPSE_SHARE = 0.5  # of the box, the fallback where nothing stands out: boxes are loose


def box_mask(image: Image, box: Box) -> tuple[Mask, int, int]:
    """Return the object's mask and the column and row of its top-left corner; empty if the box is off the frame.

    Where nothing stands out, the mask is an ellipse in the box.
    """
    mask, left, top = contrast_mask(image, box)
    return (mask if mask.any() or not mask.size else _ellipse(mask.shape, ELLIPSE_SHARE)), left, top


def contrast_mask(image: Image, box: Box) -> tuple[Mask, int, int]:
    """Return the same as `box_mask`, but no pixel where nothing stands out."""
    height, width = image.shape[:2]
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    if right <= left or bottom <= top:
        return np.zeros((0, 0), bool), 0, 0
    inner = (left, top, right, bottom)
    tiny = max(right - left, bottom - top) < TINY_BOX_PX
    gap_px = 1 if tiny else GAP_PX
    mask = _around_peak(*_contrast(image, inner, tiny), PEAK_SHARE, gap_px)
    if not mask.any():  # the ring is cluttered, by a tree line say: detect a spot against its near surroundings
        mask = _around_peak(*_spot_contrast(image, inner), CLUTTERED_PEAK_SHARE[tiny], gap_px)
    return mask, left, top


def _contrast(image: Image, inner: tuple[int, int, int, int], tiny: bool) -> tuple[Floats, float]:
    """Return the contrast to the background inside the box, and the level that the ring reaches too.

    A tiny object's contrast is projected on its own colour, which suppresses noise; a large one's is that of the
    strongest channel, reduced where its sign is opposite to the object's: that is mostly cloud.
    """
    left, top, right, bottom = inner
    margin = max(4, (max(right - left, bottom - top) + 1) // 2)
    x0, y0 = max(0, left - margin), max(0, top - margin)
    patch = image[y0 : bottom + margin, x0 : right + margin].astype(np.float32)
    ring = np.ones(patch.shape[:2], bool)
    box = slice(top - y0, bottom - y0), slice(left - x0, right - x0)
    ring[box] = False
    if not ring.any():  # the box fills the frame
        ring[:] = True
    difference = np.asarray(cv2.GaussianBlur(patch - _plane(patch, ring), (0, 0), SMOOTHING_PX), np.float32)
    strength = np.linalg.norm(difference[box], axis=2)
    peak = int((strength * _centrality(strength.shape)).argmax())
    colour = difference[box].reshape(-1, 3)[peak]
    contrast = difference @ (colour / max(1e-6, float(np.linalg.norm(colour))))
    if not tiny:
        contrast = np.abs(difference).max(axis=2) * np.where(contrast < 0, OPPOSITE_WEIGHT, 1)
    around = contrast[ring]
    middle = float(np.median(around))
    noise = 1.4826 * float(np.median(np.abs(around - middle)))  # the deviation, if it is normal
    return contrast[box], max(float(np.quantile(around, RING_QUANTILE)), middle + NOISE_DEVIATIONS * noise)


def _plane(patch: Floats, ring: Mask) -> Floats:
    """Return the background (H, W, 3): for each channel a plane fitted to the ring, without outliers."""
    rows, columns = np.mgrid[-1 : 1 : patch.shape[0] * 1j, -1 : 1 : patch.shape[1] * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(rows), rows, columns], axis=-1)
    plane = np.broadcast_to(np.median(patch[ring], axis=0), patch.shape)
    for _ in range(2):
        error = np.abs(patch - plane).max(axis=2)
        fitted = ring & (error <= 3 * (1.4826 * np.median(error[ring]) + 0.5))
        if fitted.sum() < 12:
            break
        plane = terms @ np.linalg.lstsq(terms[fitted], patch[fitted], rcond=None)[0]
    return np.asarray(plane, np.float32)


def _spot_contrast(image: Image, inner: tuple[int, int, int, int]) -> tuple[Floats, float]:
    """Return the same as `_contrast`, each pixel against the median of a window of the box's size around it."""
    left, top, right, bottom = inner
    window = min(31, max(right - left, bottom - top, 5) | 1)
    margin = window // 2
    x0, y0 = max(0, left - margin), max(0, top - margin)
    patch = np.ascontiguousarray(image[y0 : bottom + margin, x0 : right + margin])
    difference = np.abs(patch.astype(np.float32) - cv2.medianBlur(patch, window)).max(axis=2)
    inside = difference[top - y0 : bottom - y0, left - x0 : right - x0]
    return inside, float(np.median(inside))


def _centrality(shape: tuple[int, ...]) -> Floats:
    """Return weights: 1 in the middle, less towards the box's edges, which may touch something else."""
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    offset = np.hypot((rows - (height - 1) / 2) / height, (columns - (width - 1) / 2) / width)
    return np.asarray(np.exp(-4 * offset**2), np.float32)


def _around_peak(contrast: Floats, floor: float, share: float, gap_px: int) -> Mask:
    """Return pixels above the floor and a share of the peak that connect, over gaps too, to the strongest central one.

    The mask is empty where no pixel stands out.
    """
    central = contrast * _centrality(contrast.shape)
    peak = float(contrast.flat[int(central.argmax())])
    above = (contrast > max(share * peak, floor, MIN_CONTRAST)).astype(np.uint8)
    if peak < floor + MIN_CONTRAST or not above.any():
        return np.zeros(contrast.shape, bool)
    joined = cv2.morphologyEx(above, cv2.MORPH_CLOSE, np.ones((gap_px, gap_px), np.uint8))
    _, components = cv2.connectedComponents(joined, connectivity=8)
    chosen = np.asarray(components) == components.flat[int(np.where(above, central, -1).argmax())]
    return np.asarray(chosen & ((above if gap_px == 1 else _closed(above)) > 0), bool)


def _closed(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.uint8)


def _ellipse(shape: tuple[int, ...], fraction: float) -> Mask:
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot((rows - (height - 1) / 2) / height, (columns - (width - 1) / 2) / width)
    return np.asarray((distance <= fraction / 2) | (distance == distance.min()))
