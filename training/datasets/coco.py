"""COCO: JSON files with `images`, `annotations` and `categories`.

They lie in the folder, in `annotations/` or beside the images of a split; the file's or folder's name says the split
(otherwise all is `train`).  Polygons become masks; boxes without them, and run-length masks, become pseudo-masks.
"""

import json
from pathlib import Path
from typing import Any

from training.datasets.pictures import Picture, Pictures, Polygon, by_class
from training.datasets.recording import DataError, LabelledObject, class_named, known_class_names, split_in

KEYS = ("images", "annotations", "categories")


def read(folder: Path) -> list[Pictures] | None:
    """None: another format."""
    files = [path for pattern in ("*.json", "*/*.json") for path in sorted(folder.glob(pattern))]
    found = [(path, content) for path in files if (content := _content(path)) is not None]
    return [recording for path, content in found for recording in _recordings(folder, path, content)] or None


def _content(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"labels {path}: is not JSON ({error}); allowed: COCO with {', '.join(KEYS)}") from error
    return content if isinstance(content, dict) and content.keys() >= set(KEYS) else None


def _recordings(root: Path, path: Path, content: dict[str, Any]) -> list[Pictures]:
    try:
        classes = {item["id"]: class_named(item["name"]) for item in content["categories"]}
        if not any(classes.values()):
            names = [item["name"] for item in content["categories"]]
            raise DataError(f"labels {path}: categories {names}: none is known; allowed: {known_class_names()}")
        labels: dict[Any, list[dict[str, Any]]] = {item["id"]: [] for item in content["images"]}
        for item in content["annotations"]:
            if classes[item["category_id"]]:
                labels[item["image_id"]].append(item)
        inner = path.relative_to(root)
        split = split_in(inner.with_suffix("")) or "train"
        folder = _image_folder(root, path, split, [item["file_name"] for item in content["images"]])
        pictures = [_picture(folder / item["file_name"], labels[item["id"]], classes) for item in content["images"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"labels {path}: does not follow the format ({error!r}); allowed: COCO") from error
    if not pictures:
        return [Pictures(inner.with_suffix("").as_posix(), path, "visible", "drone", split, ())]
    return by_class(inner.with_suffix("").as_posix(), folder, split, pictures)


def _image_folder(root: Path, path: Path, split: str, names: list[str]) -> Path:
    """Where the first image lies; else beside the labels, where `validate` finds it missing."""
    words = (split, f"{split}2017", "images", f"images/{split}", f"{split}/images", f"images/{split}2017")
    places = [path.parent, root, *(root / word for word in words)]
    return next((place for place in places if names and (place / names[0]).is_file()), path.parent)


def _picture(image: Path, items: list[dict[str, Any]], classes: dict[Any, str | None]) -> Picture:
    objects: list[LabelledObject] = []
    polygons = []
    for item in items:
        x, y, width, height = (float(value) for value in item["bbox"])
        box = (x, y, x + width, y + height)
        objects.append(LabelledObject(len(objects), str(classes[item["category_id"]]), box))
        polygons.append(_polygons(item.get("segmentation")))
    return Picture(image, objects=tuple(objects), polygons=tuple(polygons))


def _polygons(segmentation: object) -> tuple[Polygon, ...]:
    """Those with an area; run-length masks (a mapping) are none."""
    if not isinstance(segmentation, list):
        return ()
    shapes = (tuple(float(value) for value in polygon) for polygon in segmentation)
    return tuple(shape for shape in shapes if len(shape) >= 6 and len(shape) % 2 == 0)
