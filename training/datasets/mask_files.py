"""Image files with masks or label maps.

In: a file's levels (H, W) or (H, W, C).  Out: a label map (H, W) uint8.  A mask has 0 and one level, or a level per
target.  Soft edges and JPEG artefacts are thresholded at half of the highest level.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.recording import LABEL_OF, BrokenDataError
from training.masks import Image, Mask

MAX_BETWEEN_SHARE = 0.1  # of pixels between levels; an image with more is not a mask
FLAT_SHARE = 0.9  # of marked pixels that equal their neighbours: levels are then numbers, not shades
MIN_JPEG_LEVEL = 32  # compression changes levels by several: lower ones are meaningless
NOISE_SHARE = 0.12  # of the highest level: the most that compression adds away from edges
FAINT_SHARE = 0.3  # of the highest level: a region above, all below half, is a level of its own
JPEG_MAGIC = b"\xff\xd8"
EXPECTED = "expected 0 and one level for the UAV"


def mask_of(path: Path, levels: npt.NDArray[Any], is_jpeg: bool) -> Image:
    """Return 1 where the UAV is; raise BrokenDataError for a photo, and where levels are ambiguous."""
    grey = np.asarray(levels if levels.ndim == 2 else levels[..., :3].max(axis=2), np.float32)
    marked = grey > 0
    if marked.any() and (is_jpeg or not _is_flat(grey, marked)):
        marked = _thresholded(path, grey, is_jpeg)
    elif _outside_commonest(grey[marked]) > MAX_BETWEEN_SHARE * grey.size:
        raise _no_mask(path, grey)
    if marked.all():
        raise BrokenDataError(f"{path}: is not a mask, no pixel is background; {EXPECTED}")
    return marked.astype(np.uint8)


def labels_of(path: Path, levels: npt.NDArray[Any]) -> Image:
    """Return the label map; raise BrokenDataError for values that are not labels."""
    if levels.ndim != 2 or levels.max(initial=0) > len(LABEL_OF):
        raise BrokenDataError(f"{path}: is not a label map; expected one channel of 0 to {len(LABEL_OF)}")
    return np.asarray(levels, np.uint8)


def _no_mask(path: Path, grey: npt.NDArray[np.float32]) -> BrokenDataError:
    return BrokenDataError(f"{path}: is not a mask: it has {len(np.unique(grey[grey > 0]))} levels; {EXPECTED}")


def _outside_commonest(levels: npt.NDArray[np.float32]) -> int:
    _, counts = np.unique(levels, return_counts=True)
    return len(levels) - int(counts.max(initial=0))


def _is_flat(grey: npt.NDArray[np.float32], marked: Mask) -> bool:
    """Return whether marked pixels equal their marked neighbours, as numbers of targets do and soft edges do not."""
    window = np.ones((3, 3), np.uint8)
    highest = cv2.dilate(grey, window)
    lowest = cv2.erode(np.where(marked, grey, np.float32(np.inf)), window)
    return float(np.mean((highest == lowest)[marked])) >= FLAT_SHARE


def _thresholded(path: Path, grey: npt.NDArray[np.float32], is_jpeg: bool) -> Mask:
    """Return the pixels of at least half the highest level."""
    highest = float(grey.max())
    if is_jpeg and highest < MIN_JPEG_LEVEL:
        raise BrokenDataError(
            f"{path}: is a JPEG mask of levels up to {highest:g}, which compression has changed; "
            "expected a PNG, or 255 for the UAV"
        )
    between = (grey > NOISE_SHARE * highest) & (grey < (1 - NOISE_SHARE) * highest)
    if between.sum() > MAX_BETWEEN_SHARE * grey.size:
        raise _no_mask(path, grey)
    faint = (grey >= FAINT_SHARE * highest).astype(np.uint8)
    count, regions = cv2.connectedComponents(faint, connectivity=8)
    kept = np.unique(np.asarray(regions)[grey >= highest / 2])
    if lost := sorted(set(range(1, count)) - set(kept.tolist())):
        level = float(grey[np.asarray(regions) == lost[0]].max())
        raise BrokenDataError(f"{path}: has a region of level {level:g} beside {highest:g}; {EXPECTED}")
    return np.asarray(grey >= highest / 2, bool)
