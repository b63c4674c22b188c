"""Labelled clips in the dronedet format: `labels.json.gz`, a map of clips, and `clips/<name>.mp4`."""

import gzip
import json
from pathlib import Path
from typing import Any

from training.datasets.clip import Clip
from training.datasets.recording import CLIP_CLASSES, SENSORS, DataError, LabelledObject

LABELS_FILE = "labels.json.gz"
SPLITS = ("train", "val", "hard")


def read(folder: Path) -> list[Clip] | None:
    """All clips, sorted by name; None: another format.  Raises DataError for values outside the format."""
    path = folder / LABELS_FILE
    if not path.exists():
        return None
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"labels {path}: cannot be read ({error}); allowed: gzipped JSON, a map of clips") from error
    if not isinstance(content, dict):
        raise DataError(f"labels {path}: is a {type(content).__name__}; allowed: a map of clips")
    return [_clip(path, folder / "clips" / f"{name}.mp4", name, content[name]) for name in sorted(content)]


def _one_of(path: Path, key: str, value: object, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise DataError(f"labels {path}: {key} is {value!r}; allowed: {', '.join(allowed)}")
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
        raise DataError(f"labels {path}: clip {name} does not follow the format ({error!r})") from error


def _object(path: Path, name: str, item: dict[str, Any]) -> LabelledObject:
    x, y, width, height = (float(value) for value in item["box"])
    object_class = _one_of(path, f"{name} class", item["class"], CLIP_CLASSES)
    return LabelledObject(int(item["id"]), object_class, (x, y, x + width, y + height))
