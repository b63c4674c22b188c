"""Labelled clip sets in the dronedet format.

In: a folder with `labels.json.gz` and `clips/<name>.mp4`.  Out: typed clips, boxes as xyxy in frame pixels.
Used by training and by evaluation; needs neither torch nor a video decoder.
"""

import gzip
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABELS_FILE = "labels.json.gz"
SENSORS = ("infrared", "visible")
CLIP_CLASSES = ("drone", "bird", "airplane", "helicopter")
SPLITS = ("train", "val", "hard")


class LabelsError(Exception):
    """A labelled clip set that cannot be read; names the file, the key and what is allowed."""


@dataclass(frozen=True)
class LabelledObject:
    """One object in one frame; `track_id` is constant for an object within its clip."""

    track_id: int
    object_class: str  # one of CLIP_CLASSES
    xyxy: tuple[float, float, float, float]  # pixels of the frame


@dataclass(frozen=True)
class Clip:
    """One labelled video; `frames[k]` belongs to the k-th decoded frame and may be one longer than the video."""

    name: str
    path: Path
    sensor: str
    clip_class: str
    split: str
    fps: float
    width_px: int
    height_px: int
    frames: tuple[tuple[LabelledObject, ...], ...]


def read_clips(folder: str | Path, splits: Collection[str] = SPLITS, names: Collection[str] = ()) -> list[Clip]:
    """The clips of the given splits, sorted by name; only those in `names`, if any are given.

    Raises LabelsError for an unreadable file, an unknown split or name, and values outside the format.
    """
    folder = Path(folder)
    path = folder / LABELS_FILE
    for split in splits:
        _one_of(path, "split", split, SPLITS)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, EOFError, ValueError) as error:
        raise LabelsError(f"labels {path}: cannot be read ({error}); allowed: gzipped JSON, a map of clips") from error
    unknown = sorted(set(names) - content.keys())
    if unknown:
        raise LabelsError(f"labels {path}: no clip {unknown[0]!r}; allowed: {', '.join(sorted(content)[:4])} ...")
    wanted = sorted(set(names) or content)
    clips = [_clip(path, folder / "clips" / f"{name}.mp4", name, content[name]) for name in wanted]
    return [clip for clip in clips if clip.split in splits]


def _one_of(path: Path, key: str, value: object, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise LabelsError(f"labels {path}: {key} is {value!r}; allowed: {', '.join(allowed)}")
    return str(value)


def _clip(path: Path, video: Path, name: str, entry: dict[str, Any]) -> Clip:
    try:
        return Clip(
            name=name,
            path=video,
            sensor=_one_of(path, f"{name}.sensor", entry["sensor"], SENSORS),
            clip_class=_one_of(path, f"{name}.clip_class", entry["clip_class"], CLIP_CLASSES),
            split=_one_of(path, f"{name}.split", entry["split"], SPLITS),
            fps=float(entry["fps"]),
            width_px=int(entry["width"]),
            height_px=int(entry["height"]),
            frames=tuple(tuple(_object(path, name, item) for item in frame) for frame in entry["frames"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LabelsError(f"labels {path}: clip {name} does not follow the format ({error!r})") from error


def _object(path: Path, name: str, item: dict[str, Any]) -> LabelledObject:
    x, y, width, height = (float(value) for value in item["box"])
    object_class = _one_of(path, f"{name} class", item["class"], CLIP_CLASSES)
    return LabelledObject(int(item["id"]), object_class, (x, y, x + width, y + height))
