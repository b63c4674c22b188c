"""What every data set is read as: recordings, whose labelled frames are decoded when they are asked for.

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

DataCheck = Callable[[], str]  # "" where all is well, else what is wrong, with the file's name

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
    """A data set that cannot be used; names the file, the value and what is allowed."""


class BrokenDataError(DataError):
    """One in a known format, some files of which cannot be used."""

    exit_code = 1


@dataclass(frozen=True)
class LabelledObject:
    """One object in one frame; `track_id` is constant for an object within its recording, where that is known."""

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
    file: Path | None = None  # the image's own, where it has one
    encoded: bytes = b""  # its content


class LabelledRecording(ABC):
    """CachedFrames of one camera that belong together: a video, or pictures in a folder."""

    name: str  # unique in its data set
    sensor: str  # one of SENSORS
    clip_class: str  # one of CLIP_CLASSES: what it was recorded for, or what most of it shows
    split: str  # one of SPLITS

    @abstractmethod
    def __len__(self) -> int:
        """The labelled frames; their numbers are 0 to this."""

    @property
    def skipped(self) -> int:
        """Images left out because they have no mask."""
        return 0

    @property
    def crowds(self) -> int:
        """Annotations left out because each is of several objects at once."""
        return 0

    @abstractmethod
    def may_show(self, number: int, object_class: str) -> bool:
        """Whether a frame shows an object of the class; True where only decoding its mask would tell."""

    @abstractmethod
    def read(self, numbers: Collection[int]) -> Iterator[LabelledFrame]:
        """The wanted frames, in order.  Raises BrokenDataError for what cannot be decoded."""

    @abstractmethod
    def checks(self) -> list[DataCheck]:
        """What `validate` runs, in any thread."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that decides its frames, for the cache's digest."""


def label_map(image: Image, objects: Iterable[LabelledObject]) -> Image:
    """Pseudo-masks of all objects in one map (H, W)."""
    labels = np.zeros(image.shape[:2], np.uint8)
    for item in objects:
        mask, left, top = box_mask(image, item.xyxy)
        labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = LABEL_OF[item.object_class]
    return labels


def objects_in(labels: Image) -> tuple[LabelledObject, ...]:
    """The 8-connected components of each class, with their tight boxes."""
    found: list[LabelledObject] = []
    for label in np.unique(labels[labels > 0]):
        _, _, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=8)
        for x, y, width, height, _ in stats[1:].tolist():
            box = (float(x), float(y), float(x + width), float(y + height))
            found.append(LabelledObject(len(found), CLIP_CLASSES[label - 1], box))
    return tuple(found)


def box_fault(box: Box, width_px: int, height_px: int) -> str:
    """What is wrong with a box; one that crosses the frame's edge is right, one that lies beyond it is not."""
    x0, y0, x1, y1 = box
    shown = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not all(np.isfinite(box)) or x1 <= x0 or y1 <= y0:
        return f"{shown} has no area"
    if x1 <= 0 or y1 <= 0 or x0 >= width_px or y0 >= height_px:
        return f"{shown} lies outside the frame of {width_px}x{height_px} pixels"
    return ""


def class_named(name: object) -> str | None:
    """Our class of a data set's own class name; None: one that is not learned."""
    return _CLASS_NAMED.get(str(name).strip().lower().replace("_", " ").replace("-", " "))


def known_class_names() -> str:
    return ", ".join(_CLASS_NAMED)


def split_in(path: Path) -> str | None:
    """The split that a folder or a word of a file's name says."""
    parts = [part.lower().removesuffix("2017").replace(".", "_") for part in path.parts]
    words = [word for part in parts for word in part.split("_")]
    return next((SPLIT_NAMED[word] for word in words if word in SPLIT_NAMED), None)


def sensor_in(path: Path) -> str | None:
    """The sensor that a folder or a word of a file's name says."""
    words = [word for part in path.parts for word in part.lower().replace(".", "_").split("_")]
    return next((_SENSOR_NAMED[word] for word in words if word in _SENSOR_NAMED), None)
