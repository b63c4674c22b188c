"""Measured trajectories of labelled objects: clips in, times, positions and sizes out, cached on disk.

Labelled boxes are interpolated between frames set by hand, so they move more smoothly than any detection.  Position and
size are therefore measured: on the pixels that stand out within the box (`training.masks`), in every frame, without the
camera's motion.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.segmentation.camera_motion import CameraMotion
from training.datasets import Clip
from training.masks import Box, Image, contrast_mask

VERSION = 1  # increment when what is measured changes
MIN_AREA_PX = 2
COLUMNS = ("time_s", "x_px", "y_px", "length_px", "area_px")
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Trajectory:
    """One object of one clip; `rows` (N, 5) are COLUMNS, positions relative to the background of the first frame."""

    clip: str
    sensor: str
    object_class: str
    split: str
    rows: Rows


def read_trajectories(folder: Path, clips: Iterable[Clip]) -> list[Trajectory]:
    """Return the trajectories of all objects of the clips, those measured earlier from the cache `folder`.

    Raise BrokenDataError for a clip that cannot be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [trajectory for clip in clips for trajectory in _of_clip(folder, clip)]


def _of_clip(folder: Path, clip: Clip) -> list[Trajectory]:
    digest = hashlib.sha256(json.dumps([VERSION, clip.settings()], default=str).encode()).hexdigest()[:16]
    path = folder / f"{clip.name}-{digest}.npz"
    if not path.exists():
        measured = _measure(clip)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{str(number): rows for number, rows in measured.items()})
        partial.replace(path)
    classes = {item.track_id: item.object_class for frame in clip.frames for item in frame}
    with np.load(path, allow_pickle=False) as stored:
        return [
            Trajectory(clip.name, clip.sensor, classes[int(number)], clip.split, stored[number])
            for number in sorted(stored.files)
        ]


def _measure(clip: Clip) -> dict[int, Rows]:
    """Return the rows of each object.  Where the camera's motion is unknown, it counts as none."""
    motion, background = CameraMotion(), np.zeros(2)
    measured: dict[int, list[Sequence[float]]] = {}
    for frame in clip.read(range(len(clip))):
        background += motion.update(frame.image) or (0.0, 0.0)
        for item in frame.objects:
            if spot := _spot(frame.image, item.xyxy):
                x, y, length, area = spot
                row = frame.number / clip.fps, x - background[0], y - background[1], length, area
                measured.setdefault(item.track_id, []).append(row)
    return {number: np.array(rows) for number, rows in measured.items()}


def _spot(image: Image, box: Box) -> tuple[float, float, float, float] | None:
    """Return centroid, longest side and area of the pixels that stand out in a box; None without any."""
    mask, left, top = contrast_mask(image, box)
    if mask.sum() < MIN_AREA_PX:
        return None
    y, x = np.nonzero(mask)
    length = max(np.ptp(x), np.ptp(y)) + 1
    return left + float(x.mean()) + 0.5, top + float(y.mean()) + 0.5, float(length), float(len(x))
