"""Image files that are masks or label maps.

In: a file's levels (H, W) or (H, W, C).  Out: a label map (H, W) uint8.  A mask has 0 and one level, or one a target.
Soft edges, and what JPEG does to a mask, are cut at half of the highest level.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.recording import LABEL_OF, BrokenDataError
from training.masks import Image, Mask

BETWEEN_LEVELS = 0.1  # of a mask's pixels; more are no mask but a picture
FLAT_SHARE = 0.9  # of a mask's marked pixels that are as their neighbours: its levels are numbers, not shades
LEAST_JPEG_LEVEL = 32  # compression changes levels by several: below, they mean nothing
NOISE = 0.12  # of the highest level: what compression adds at most, away from edges
FAINT = 0.3  # of the highest level: a region above, all of which is below half, is a level of its own
JPEG_MAGIC = b"\xff\xd8"
EXPECTED = "expected 0 and one level for the UAV"


def mask_of(path: Path, levels: npt.NDArray[Any], is_jpeg: bool) -> Image:
    """Return 1 where the UAV is.  Raise BrokenDataError for a picture, and where levels leave it open."""
    grey = np.asarray(levels if levels.ndim == 2 else levels[..., :3].max(axis=2), np.float32)
    marked = grey > 0
    if marked.any() and (is_jpeg or not _is_flat(grey, marked)):
        marked = _cut(path, grey, is_jpeg)
    elif _outside_commonest(grey[marked]) > BETWEEN_LEVELS * grey.size:
        raise _no_mask(path, grey)
    if marked.all():
        raise BrokenDataError(f"{path}: is no mask, no pixel is background; {EXPECTED}")
    return marked.astype(np.uint8)


def labels_of(path: Path, levels: npt.NDArray[Any]) -> Image:
    """Return the label map itself.  Raise BrokenDataError for values that are no labels."""
    if levels.ndim != 2 or levels.max(initial=0) > len(LABEL_OF):
        raise BrokenDataError(f"{path}: is no label map; expected one channel of 0 to {len(LABEL_OF)}")
    return np.asarray(levels, np.uint8)


def _no_mask(path: Path, grey: npt.NDArray[np.float32]) -> BrokenDataError:
    return BrokenDataError(f"{path}: is no mask but has {len(np.unique(grey[grey > 0]))} levels; {EXPECTED}")


def _outside_commonest(levels: npt.NDArray[np.float32]) -> int:
    _, counts = np.unique(levels, return_counts=True)
    return len(levels) - int(counts.max(initial=0))


def _is_flat(grey: npt.NDArray[np.float32], marked: Mask) -> bool:
    """Whether marked pixels equal their marked neighbours, as numbers of targets do and soft edges do not."""
    window = np.ones((3, 3), np.uint8)
    highest = cv2.dilate(grey, window)
    lowest = cv2.erode(np.where(marked, grey, np.float32(np.inf)), window)
    return float(np.mean((highest == lowest)[marked])) >= FLAT_SHARE


def _cut(path: Path, grey: npt.NDArray[np.float32], is_jpeg: bool) -> Mask:
    """Return the pixels of half the highest level and more."""
    highest = float(grey.max())
    if is_jpeg and highest < LEAST_JPEG_LEVEL:
        raise BrokenDataError(
            f"{path}: is a JPEG mask of levels up to {highest:g}, which compression has changed; "
            "expected a PNG, or 255 for the UAV"
        )
    between = (grey > NOISE * highest) & (grey < (1 - NOISE) * highest)
    if between.sum() > BETWEEN_LEVELS * grey.size:
        raise _no_mask(path, grey)
    faint = (grey >= FAINT * highest).astype(np.uint8)
    count, regions = cv2.connectedComponents(faint, connectivity=8)
    kept = np.unique(np.asarray(regions)[grey >= highest / 2])
    if lost := sorted(set(range(1, count)) - set(kept.tolist())):
        level = float(grey[np.asarray(regions) == lost[0]].max())
        raise BrokenDataError(f"{path}: has a region of level {level:g} beside {highest:g}; {EXPECTED}")
    return np.asarray(grey >= highest / 2, bool)
