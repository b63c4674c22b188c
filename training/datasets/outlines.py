"""Exact shapes of labelled objects, drawn into label maps: polygons, and COCO's run-length masks."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from training.masks import Image, Mask

SUPERSAMPLING = 8  # of polygons

Polygon = tuple[float, ...]  # x, y, x, y, ...


@dataclass(frozen=True)
class RunLengths:
    """A mask of a whole image: run lengths of background and object in turn, in column-major order."""

    width_px: int
    height_px: int
    counts: tuple[int, ...] | str  # text: COCO's compressed form


Outline = tuple[Polygon, ...] | RunLengths


def decoded_mask(runs: RunLengths) -> Mask:
    """Return the mask (height, width); raise ValueError with a readable message where the runs do not fill it."""
    size = f"{runs.width_px}x{runs.height_px} pixels"
    if isinstance(runs.counts, str):
        return _decompressed(runs, size)
    if sum(runs.counts) != runs.width_px * runs.height_px:
        raise ValueError(f"its run lengths add up to {sum(runs.counts)} pixels; expected those of {size}")
    is_object = np.arange(len(runs.counts)) % 2 == 1
    return np.repeat(is_object, runs.counts).reshape(runs.width_px, runs.height_px).T


def _decompressed(runs: RunLengths, size: str) -> Mask:
    try:
        from faster_coco_eval.core import mask  # pycocotools reads out of bounds for malformed runs
    except ImportError as error:
        raise ValueError("compressed run lengths need faster-coco-eval: pip install dasnet[coco]") from error
    try:
        made = mask.decode({"size": [runs.height_px, runs.width_px], "counts": runs.counts})
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"its compressed run lengths are malformed; expected those of {size}") from error
    return np.asarray(made > 0, bool)


def resized_mask(mask: Mask, width_px: int, height_px: int) -> Mask:
    """Return the pixels that the mask covers by half or more; the best covered pixel of a smaller object."""
    if mask.shape == (height_px, width_px):
        return mask
    method = cv2.INTER_AREA if width_px < mask.shape[1] else cv2.INTER_LINEAR
    cover = cv2.resize(mask.astype(np.float32), (width_px, height_px), interpolation=method)
    highest = float(cover.max())
    return np.asarray((cover >= min(0.5, highest)) & (highest > 0), bool)


def scaled_polygons(polygons: Iterable[Polygon], across: float, down: float) -> list[Polygon]:
    """Return polygons with x and y multiplied by two factors."""
    return [tuple(value * (down if place % 2 else across) for place, value in enumerate(one)) for one in polygons]


def fill(labels: Image, polygons: Iterable[Polygon], label: int) -> None:
    """Label the pixels that polygons cover by half or more; the best covered pixel of a smaller object."""
    shapes = [np.reshape(polygon, (-1, 2)) for polygon in polygons]
    corners = np.concatenate(shapes)
    left, top = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)), labels.shape[::-1]).astype(int).tolist()
    if right <= left or bottom <= top:
        return
    canvas = np.zeros(((bottom - top) * SUPERSAMPLING, (right - left) * SUPERSAMPLING), np.uint8)
    for shape in shapes:
        fixed = np.rint((shape - (left, top)) * SUPERSAMPLING * 16 - 8).astype(np.int32)  # 4 bits of fraction
        cv2.fillPoly(canvas, [fixed], 255, cv2.LINE_8, 4)
    cover = cv2.resize(canvas, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    labels[top:bottom, left:right][cover >= max(1, min(128, int(cover.max())))] = label
