"""COCO: JSON files with `images`, `annotations` and `categories`.

They are in the folder, in `annotations/` or beside the images of a split; the file's or folder's name gives the split
(default: `train`).  Polygons and run-length masks become masks; boxes without them become pseudo-masks.  Where an image
was resized after annotation, its annotations are resized too.  Crowds (`iscrowd`) are skipped and counted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.datasets.images import Annotation, ImageFolder, LabelledImage, Size, by_class
from training.datasets.label_files import JSON_FILES, is_number, read_json, shortened
from training.datasets.outlines import Outline, Polygon, RunLengths
from training.datasets.recording import DataError, class_of_name, known_class_names, split_in

KEYS = ("images", "annotations", "categories")
MAX_MASK_PIXELS = 1 << 28  # of a run-length mask
EXPECTED_BOX = "expected [x, y, width, height] in pixels"
EXPECTED_OUTLINE = "expected a list of polygons [x, y, x, y, x, y, ...], or a run-length mask with size and counts"

Entry = Mapping[str, Any]


def read(folder: Path) -> list[ImageFolder] | None:
    """Return the recordings, None for another format; raise DataError for labels that break COCO's rules."""
    files = [path for pattern in (JSON_FILES, f"*/{JSON_FILES}") for path in sorted(folder.glob(pattern))]
    found = [(path, content) for path in files if (content := _content(path)) is not None]
    return [recording for path, content in found for recording in _recordings(folder, path, content)] or None


def _content(path: Path) -> dict[str, Any] | None:
    content = read_json(path, f"COCO with {', '.join(KEYS)}")
    return content if isinstance(content, dict) and content.keys() >= set(KEYS) else None


def _recordings(root: Path, path: Path, content: dict[str, Any]) -> list[ImageFolder]:
    classes = _classes(path, _entries(path, content, "categories"))
    images = _images(path, _entries(path, content, "images"))
    labels = _by_image(path, _entries(path, content, "annotations"), images)
    inner = path.relative_to(root).with_suffix("")
    split = split_in(inner) or "train"
    name = inner.as_posix()
    if not images:
        return [ImageFolder(name, path, "visible", "drone", split, ())]
    folder = _image_folder(root, path, split, [_file_name(entry) for entry in images.values()])
    labelled = [_labelled_image(path, folder, entry, labels[key], classes) for key, entry in images.items()]
    crowds = sum(image.crowds for image in labelled)
    if crowds and not any(image.annotations or image.fault for image in labelled):
        raise DataError(
            f"labels {path}: all {crowds} annotations are crowds (iscrowd = 1), which are skipped; "
            "expected iscrowd = 0 for annotations of one object (CVAT writes 1 for every mask drawn by brush)"
        )
    return by_class(name, folder, split, labelled)


def _entries(path: Path, content: dict[str, Any], key: str) -> list[Entry]:
    entries = content[key]
    if not isinstance(entries, list):
        raise DataError(f"labels {path}: {key} = {shortened(entries)}; expected a list")
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"labels {path}: {key}[{place}] = {shortened(entry)}; expected a map")
    return entries


def _classes(path: Path, categories: list[Entry]) -> dict[Any, str | None]:
    """Return our class for each category id; None: not learned."""
    for place, entry in enumerate(categories):
        if not _is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise DataError(f"labels {path}: categories[{place}] = {shortened(entry)}; expected id and name")
    classes = {entry["id"]: class_of_name(entry["name"]) for entry in categories}
    if not any(classes.values()):
        names = [entry["name"] for entry in categories]
        raise DataError(f"labels {path}: categories {names}: none is known; expected some of {known_class_names()}")
    return classes


def _images(path: Path, entries: list[Entry]) -> dict[Any, Entry]:
    """Return the images by id."""
    images: dict[Any, Entry] = {}
    ids: dict[str, Any] = {}
    for place, entry in enumerate(entries):
        number = entry.get("id")
        if not _is_id(number):
            raise DataError(f"labels {path}: images[{place}] has id {shortened(number)}; expected a number")
        if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
            given = shortened(entry.get("file_name"))
            raise DataError(f"labels {path}: image {number!r}: file_name = {given}; expected an image's path")
        if number in images:
            raise DataError(f"labels {path}: image {number!r} occurs twice; expected a unique id for each image")
        if (name := _file_name(entry)) in ids:
            raise DataError(f"labels {path}: images {ids[name]!r} and {number!r} are both {name}; expected one of them")
        images[number], ids[name] = entry, number
    return images


def _by_image(path: Path, annotations: list[Entry], images: dict[Any, Entry]) -> dict[Any, list[tuple[str, Entry]]]:
    """Return each image's annotations, with their places for messages."""
    labels: dict[Any, list[tuple[str, Entry]]] = {number: [] for number in images}
    for index, entry in enumerate(annotations):
        number = entry.get("id")
        place = f"labels {path}: " + (f"annotation {number!r}" if _is_id(number) else f"annotations[{index}] (no id)")
        image = entry.get("image_id")
        if not _is_id(image) or image not in labels:
            some = ", ".join(repr(each) for each in list(images)[:3]) + ", ..." * (len(images) > 3)
            raise DataError(f"{place}: image_id = {shortened(image)}; expected an id of images ({some or 'none'})")
        labels[image].append((place, entry))
    return labels


def _labelled_image(
    path: Path, folder: Path, entry: Entry, labels: list[tuple[str, Entry]], classes: dict[Any, str | None]
) -> LabelledImage:
    image = folder / _file_name(entry)
    objects: list[Annotation] = []
    crowds = 0
    try:
        place = f"labels {path}: image {entry['id']!r}"
        size = _stated_size(entry)
        for place, item in labels:
            object_class = _class_of(item, classes)
            if object_class and item.get("iscrowd"):
                crowds += 1
            elif object_class:
                objects.append(Annotation(place, object_class, _box(item), _outline(item, size)))
    except ValueError as error:
        return LabelledImage(image, fault=f"{place}: {error}")
    return LabelledImage(image, annotations=tuple(objects), annotated_px=size, crowds=crowds)


def _stated_size(entry: Entry) -> Size | None:
    width, height = entry.get("width"), entry.get("height")
    if width is None and height is None:
        return None
    if not is_number(width) or not is_number(height) or min(width, height) < 1:
        raise ValueError(f"width = {shortened(width)}, height = {shortened(height)}; expected pixels, above 0")
    return round(width), round(height)


def _class_of(item: Entry, classes: dict[Any, str | None]) -> str | None:
    category = item.get("category_id")
    if not _is_id(category) or category not in classes:
        known = ", ".join(repr(each) for each in classes)
        raise ValueError(f"category_id = {shortened(category)}; expected an id of categories ({known})")
    return classes[category]


def _box(item: Entry) -> tuple[float, float, float, float]:
    if "bbox" not in item:
        raise ValueError(f"has no bbox; {EXPECTED_BOX}")
    box = item["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(f"bbox = {shortened(box)}; {EXPECTED_BOX}")
    x, y, width, height = (float(value) for value in box)
    if x + width <= 1 and y + height <= 1 and 0 < max(width, height) < 1:
        raise ValueError(f"bbox = {shortened(box)} is relative to the image's size; {EXPECTED_BOX}")
    return x, y, x + width, y + height


def _outline(item: Entry, size: Size | None) -> Outline:
    """Return the object's outline; () without one."""
    outline = item.get("segmentation")
    if isinstance(outline, dict):
        return _run_lengths(outline, size)
    if not outline:
        return ()
    if not isinstance(outline, list) or not all(isinstance(polygon, list) for polygon in outline):
        raise ValueError(f"segmentation = {shortened(outline)}; {EXPECTED_OUTLINE}")
    return tuple(_polygon(polygon) for polygon in outline if polygon)


def _polygon(polygon: list[Any]) -> Polygon:
    if not all(map(is_number, polygon)) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"segmentation has the polygon {shortened(polygon)}; {EXPECTED_OUTLINE}")
    return tuple(float(value) for value in polygon)


def _run_lengths(outline: Entry, size: Size | None) -> RunLengths:
    stated, counts = outline.get("size"), outline.get("counts")
    is_size = (
        isinstance(stated, list) and len(stated) == 2 and all(type(value) is int and value > 0 for value in stated)
    )
    if not isinstance(stated, list) or not is_size:
        raise ValueError(f"segmentation has size {shortened(stated)}; expected [height, width] in pixels")
    height, width = stated
    if size is not None and (width, height) != size:
        there = f"{size[0]}x{size[1]}"
        raise ValueError(
            f"segmentation is a mask of {width}x{height} pixels, must have the {there} that the image is stated to have"
        )
    if width * height > MAX_MASK_PIXELS:
        raise ValueError(f"segmentation is a mask of {width}x{height} pixels; must be {MAX_MASK_PIXELS} or fewer")
    if isinstance(counts, list) and all(type(value) is int and value >= 0 for value in counts):
        return RunLengths(width, height, tuple(counts))
    if isinstance(counts, str):
        return RunLengths(width, height, counts)
    raise ValueError(f"segmentation has counts {shortened(counts)}; expected run lengths, or their compressed text")


def _is_id(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _file_name(entry: Entry) -> str:
    return str(entry["file_name"]).replace("\\", "/")


def _image_folder(root: Path, path: Path, split: str, names: list[str]) -> Path:
    """Return the folder of the first image; else the labels' folder, in which `validate` reports it missing."""
    part = path.stem.removeprefix("instances_")
    words = [word for name in dict.fromkeys((split, part)) for word in (name, f"images/{name}", f"{name}/images")]
    words += ["images", f"{split}2017", f"images/{split}2017"]
    places = [path.parent, root, *(root / word for word in words)]
    return next((place for name in names for place in places if (place / name).is_file()), path.parent)
