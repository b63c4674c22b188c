"""Labelled clips in the dronedet format: `labels.json.gz`, a map of clips, and `clips/<name>.mp4`.

A clip without the key `camera` is one of the Drone-detection-dataset, which has one camera per band.
"""

import gzip
import zlib
from pathlib import Path

from training.datasets.clip import Clip
from training.datasets.label_files import is_number, parsed_json, shortened
from training.datasets.recording import CLIP_CLASSES, SENSORS, DataError, LabelledObject

LABELS_FILE = "labels.json.gz"
SPLITS = ("train", "val", "hard")
NUMBERS = ("fps", "width", "height")
KEYS = ("sensor", "clip_class", "split", *NUMBERS, "frames")


def read(folder: Path) -> list[Clip] | None:
    """Return the clips, sorted by name, None for another format; raise DataError for malformed values."""
    path = folder / LABELS_FILE
    if not path.exists():
        return None
    expected = "gzipped JSON, a map of clips"
    try:
        content = parsed_json(path, gzip.decompress(path.read_bytes()), expected)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"labels {path}: cannot be read; expected {expected}") from error
    if not isinstance(content, dict):
        raise DataError(f"labels {path}: is a {type(content).__name__}; expected a map of clips")
    return [_clip(path, folder / "clips" / f"{name}.mp4", name, content[name]) for name in sorted(content)]


def _one_of(path: Path, key: str, value: object, known: tuple[str, ...]) -> str:
    if value not in known:
        raise DataError(f"labels {path}: {key} is {value!r}; must be one of {', '.join(known)}")
    return str(value)


def _clip(path: Path, video: Path, name: str, entry: object) -> Clip:
    place = f"labels {path}: clip {name}"
    if not isinstance(entry, dict) or (missing := [key for key in KEYS if key not in entry]):
        given = f"has no {', '.join(missing)}" if isinstance(entry, dict) else f"is {shortened(entry)}"
        raise DataError(f"{place} {given}; expected {', '.join(KEYS)}")
    for key in NUMBERS:
        if not is_number(entry[key]):
            raise DataError(f"{place}: {key} = {shortened(entry[key])}; expected a number")
    if not isinstance(entry["frames"], list) or not all(isinstance(frame, list) for frame in entry["frames"]):
        raise DataError(f"{place}: frames = {shortened(entry['frames'])}; expected a list of objects for each frame")
    sensor = _one_of(path, f"{name}.sensor", entry["sensor"], SENSORS)
    camera = entry.get("camera", f"dronedet_{sensor}")
    if not isinstance(camera, str) or not camera:
        raise DataError(f"{place}: camera = {shortened(camera)}; expected a name")
    return Clip(
        name=name,
        path=video,
        sensor=sensor,
        clip_class=_one_of(path, f"{name}.clip_class", entry["clip_class"], CLIP_CLASSES),
        split=_one_of(path, f"{name}.split", entry["split"], SPLITS),
        fps=float(entry["fps"]),
        width_px=int(entry["width"]),
        height_px=int(entry["height"]),
        frames=tuple(
            tuple(_object(path, name, f"{place}: frame {number}", item) for item in frame)
            for number, frame in enumerate(entry["frames"])
        ),
        camera=camera,
    )


def _object(path: Path, name: str, place: str, item: object) -> LabelledObject:
    if not isinstance(item, dict) or not item.keys() >= {"id", "class", "box"} or not is_number(item["id"]):
        raise DataError(f"{place}: has the object {shortened(item)}; expected id, class and box")
    box = item["box"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise DataError(f"{place}: box = {shortened(box)}; expected [x, y, width, height] in pixels")
    x, y, width, height = (float(value) for value in box)
    object_class = _one_of(path, f"{name} class", item["class"], CLIP_CLASSES)
    return LabelledObject(int(item["id"]), object_class, (x, y, x + width, y + height))
