"""Interface of all data sets: recordings, whose labelled frames are decoded on demand.

In: a format's own files.  Out: frames with an RGB image (H, W, 3) uint8 and a label map (H, W) uint8, 0 for background
and 1 + index into CLASSES elsewhere.  Imports neither torch nor a video decoder.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.metadata import BANDS, CLASSES
from pipeline.errors import ConfigError
from training.masks import Box, Image, box_mask

SENSORS = BANDS
SPLITS = ("train", "val", "hard", "test")
CLIP_CLASSES = ("drone", *CLASSES[1:])
LABEL_OF = {name: label for label, name in enumerate(CLIP_CLASSES, 1)}

DataCheck = Callable[[], str]  # returns a fault naming its file, "" without a fault

_SYNONYMS = {
    "drone": ("uav", "quadcopter", "quadrotor", "multirotor", "multicopter", "unmanned aerial vehicle"),
    "airplane": ("aeroplane", "plane", "aircraft", "fixed wing aircraft"),
    "helicopter": ("heli", "rotorcraft"),
}
_CLASS_NAMED = {name: name for name in CLIP_CLASSES} | {
    other: name for name, others in _SYNONYMS.items() for other in others
}
SPLIT_NAMED = {name: name for name in SPLITS} | {"training": "train", "valid": "val", "validation": "val"}
_SENSORS_NAMED = {"infrared": ("infrared", "ir", "thermal"), "visible": ("visible", "rgb", "vis")}
_SENSOR_NAMED = {name: sensor for sensor, names in _SENSORS_NAMED.items() for name in names}


class DataError(ConfigError):
    """An unusable data set; the message names file, value and what is expected."""


class BrokenDataError(DataError):
    """A data set in a known format, some files of which are unusable."""

    exit_code = 1


@dataclass(frozen=True)
class LabelledObject:
    """One object in one frame; `track_id` is constant within a recording, where known."""

    track_id: int
    object_class: str  # one of CLIP_CLASSES
    xyxy: Box  # pixels of the frame, right and bottom exclusive


@dataclass(frozen=True)
class LabelledFrame:
    """One decoded frame."""

    number: int
    image: Image  # (H, W, 3) RGB
    labels: Image  # (H, W)
    objects: tuple[LabelledObject, ...]
    file: Path | None = None  # the image file, where there is one
    encoded: bytes = b""  # content of the file


class LabelledRecording(ABC):
    """Labelled frames of one camera: a video, or images in a folder."""

    name: str  # unique in its data set
    sensor: str  # one of SENSORS
    clip_class: str  # one of CLIP_CLASSES: the class that it was recorded for, or that it mostly shows
    split: str  # one of SPLITS

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of labelled frames."""

    @property
    def skipped(self) -> int:
        """Number of images skipped because they have no mask."""
        return 0

    @property
    def crowds(self) -> int:
        """Number of annotations skipped because each covers several objects."""
        return 0

    @abstractmethod
    def may_show(self, number: int, object_class: str) -> bool:
        """Return whether a frame shows an object of the class; True where only its decoded mask has the answer."""

    @abstractmethod
    def read(self, numbers: Collection[int]) -> Iterator[LabelledFrame]:
        """Yield the given frames, in order; raise BrokenDataError for undecodable ones."""

    @abstractmethod
    def checks(self) -> list[DataCheck]:
        """Return the checks that `validate` runs, in any thread."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return everything that determines the frames, for the cache's digest."""


def label_map(image: Image, objects: Iterable[LabelledObject]) -> Image:
    """Return the pseudo-masks of all objects as one label map (H, W)."""
    labels = np.zeros(image.shape[:2], np.uint8)
    for item in objects:
        mask, left, top = box_mask(image, item.xyxy)
        labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = LABEL_OF[item.object_class]
    return labels


def objects_in(labels: Image) -> tuple[LabelledObject, ...]:
    """Return the 8-connected components of each class, with their tight boxes."""
    found: list[LabelledObject] = []
    for label in np.unique(labels[labels > 0]):
        _, _, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=8)
        for x, y, width, height, _ in stats[1:].tolist():
            box = (float(x), float(y), float(x + width), float(y + height))
            found.append(LabelledObject(len(found), CLIP_CLASSES[label - 1], box))
    return tuple(found)


def box_fault(box: Box, width_px: int, height_px: int) -> str:
    """Return a box's fault, "" without one; a box may cross the frame's edge but not lie beyond it."""
    x0, y0, x1, y1 = box
    shown = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not all(np.isfinite(box)) or x1 <= x0 or y1 <= y0:
        return f"{shown} has no area"
    if x1 <= 0 or y1 <= 0 or x0 >= width_px or y0 >= height_px:
        return f"{shown} lies outside the frame of {width_px}x{height_px} pixels"
    return ""


def class_of_name(name: object) -> str | None:
    """Return our class for a data set's class name; None for a class that is not learned."""
    return _CLASS_NAMED.get(str(name).strip().lower().replace("_", " ").replace("-", " "))


def known_class_names() -> str:
    """Return the recognised class names, separated by commas."""
    return ", ".join(_CLASS_NAMED)


def split_in(path: Path) -> str | None:
    """Return the split named by a folder or a word of a file's name."""
    parts = [part.lower().removesuffix("2017").replace(".", "_") for part in path.parts]
    words = [word for part in parts for word in part.split("_")]
    return next((SPLIT_NAMED[word] for word in words if word in SPLIT_NAMED), None)


def sensor_in(path: Path) -> str | None:
    """Return the sensor named by a folder or a word of a file's name."""
    words = [word for part in path.parts for word in part.lower().replace(".", "_").split("_")]
    return next((_SENSOR_NAMED[word] for word in words if word in _SENSOR_NAMED), None)
