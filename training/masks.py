"""Pseudo-masks: which pixels of a labelled box are the object.

In: a frame (H, W, 3) uint8 and a loose box xyxy in its pixels.  Out: a boolean mask and where it lies.
An object differs from the background, a plane fitted to the ring around its box.  Its pixels are those above a share of
its peak contrast, and above what the ring shows, that hang together around the box's centre.
"""

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]

TINY_BOX_PX = 14  # below, the object is a spot of one colour; above, it may have light and dark parts, and gaps
GAP_PX = 5  # that parts of a large object may lie apart
OPPOSITE = 0.4  # what contrast of the other sign counts
SMOOTHING_PX = 0.6
SHARE = 0.22  # of the peak contrast: half of it would leave out soft edges and thin parts
CLUTTERED_SHARE = {True: 0.5, False: 0.35}  # of a tiny object and of a large one, where other things are close
RING_QUANTILE = 0.9  # contrast inside must exceed this of the ring's ...
NOISE = 2.0  # ... and this many deviations of its noise
FAINT = 5.0  # grey levels; less is not counted, and a peak that is not this much above the ring is none
ELLIPSE = 0.5  # of the box, where nothing is found: boxes are loose


def box_mask(image: Image, box: Box) -> tuple[Mask, int, int]:
    """The object's mask and the column and row of its top-left corner; empty (0, 0) if the box is off the frame."""
    height, width = image.shape[:2]
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2]))), min(height, int(np.ceil(box[3])))
    if right <= left or bottom <= top:
        return np.zeros((0, 0), bool), 0, 0
    inner = (left, top, right, bottom)
    tiny = max(right - left, bottom - top) < TINY_BOX_PX
    gap_px = 1 if tiny else GAP_PX
    mask = _around_peak(*_contrast(image, inner, tiny), SHARE, gap_px)
    if not mask.any():  # the ring holds other things, a tree line say: look for a spot against its near surroundings
        mask = _around_peak(*_spot_contrast(image, inner), CLUTTERED_SHARE[tiny], gap_px)
    return (mask if mask.any() else _ellipse(mask.shape, ELLIPSE)), left, top


def _contrast(image: Image, inner: tuple[int, int, int, int], tiny: bool) -> tuple[Floats, float]:
    """Inside the box, the difference to the background; and what of it the ring shows too.

    Of a tiny object along its own colour, which keeps noise out; of a large one in the channel that shows it best, less
    where it is lighter if the object is dark, and the other way round: clouds are, and only seldom the object's parts.
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
        contrast = np.abs(difference).max(axis=2) * np.where(contrast < 0, OPPOSITE, 1)
    around = contrast[ring]
    middle = float(np.median(around))
    noise = 1.4826 * float(np.median(np.abs(around - middle)))  # the deviation, if it is normal
    return contrast[box], max(float(np.quantile(around, RING_QUANTILE)), middle + NOISE * noise)


def _plane(patch: Floats, ring: Mask) -> Floats:
    """The background (H, W, 3): a plane a channel through the ring, without what stands out of it."""
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
    """As `_contrast`, but each pixel against the median of a window of the box's size around it."""
    left, top, right, bottom = inner
    window = min(31, max(right - left, bottom - top, 5) | 1)
    margin = window // 2
    x0, y0 = max(0, left - margin), max(0, top - margin)
    patch = np.ascontiguousarray(image[y0 : bottom + margin, x0 : right + margin])
    difference = np.abs(patch.astype(np.float32) - cv2.medianBlur(patch, window)).max(axis=2)
    inside = difference[top - y0 : bottom - y0, left - x0 : right - x0]
    return inside, float(np.median(inside))


def _centrality(shape: tuple[int, ...]) -> Floats:
    """1 in the middle, less towards the box's edges, which may touch something else."""
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    offset = np.hypot((rows - (height - 1) / 2) / height, (columns - (width - 1) / 2) / width)
    return np.asarray(np.exp(-4 * offset**2), np.float32)


def _around_peak(contrast: Floats, floor: float, share: float, gap_px: int) -> Mask:
    """Pixels above the floor and a share of the peak, connected, over gaps too, to the one of most central contrast.

    Nothing where no pixel stands out.
    """
    central = contrast * _centrality(contrast.shape)
    peak = float(contrast.flat[int(central.argmax())])
    above = (contrast > max(share * peak, floor, FAINT)).astype(np.uint8)
    if peak < floor + FAINT or not above.any():
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
