"""YOLO boxes: a text file for each image, lines of class, centre x, centre y, width, height, in shares of it.

`data.yaml` names the classes.  Images and labels lie in `images/` and `labels/`, with the splits below or above them,
or without splits (then all is `train`).  An image without a text file shows nothing.
"""

from pathlib import Path

import yaml

from training.datasets.pictures import Picture, Pictures, by_class, folders_in, images_in
from training.datasets.recording import DataError, LabelledObject, class_named, known_class_names, split_in

NAMES_FILE = "data.yaml"


def read(folder: Path) -> list[Pictures] | None:
    """None: another format."""
    places = [(images, images.with_name("labels")) for images in (folder / "images", *sorted(folder.glob("*/images")))]
    places = [(images, labels) for images, labels in places if images.is_dir() and labels.is_dir()]
    if not places:
        return None
    classes = _classes(folder / NAMES_FILE)
    return [
        recording
        for images, labels in places
        for inner in folders_in(images)
        for recording in _recordings(folder, inner, labels / inner.relative_to(images), classes)
    ]


def _classes(path: Path) -> dict[int, str | None]:
    """Ours for each number of theirs."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = content["names"]
        numbered = dict(enumerate(names)) if isinstance(names, list) else {int(key): names[key] for key in names}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); allowed: YAML with the classes' names") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: has no names ({error!r}); allowed: names: a list or a map of classes") from error
    classes = {number: class_named(name) for number, name in numbered.items()}
    if not any(classes.values()):
        raise DataError(f"{path}: names {list(numbered.values())}: none is known; allowed: {known_class_names()}")
    return classes


def _recordings(root: Path, images: Path, labels: Path, classes: dict[int, str | None]) -> list[Pictures]:
    place = images.relative_to(root)
    split = split_in(place) or "train"
    files = images_in(images)
    if not files:
        return [Pictures(place.as_posix(), images, "visible", "drone", split, ())]
    return by_class(
        place.as_posix(), images, split, (_picture(file, labels / f"{file.stem}.txt", classes) for file in files)
    )


def _picture(image: Path, labels: Path, classes: dict[int, str | None]) -> Picture:
    try:
        lines = labels.read_text(encoding="utf-8").splitlines() if labels.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        return Picture(image, fault=f"{labels}: cannot be read ({error}); allowed: lines of five numbers")
    objects: list[LabelledObject] = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        try:
            if fields and (item := _object(len(objects), fields, classes)):
                objects.append(item)
        except ValueError:
            allowed = f"class (of {len(classes)}), centre x, centre y, width, height, in 0..1"
            return Picture(image, fault=f"{labels}: line {number} is {line!r}; allowed: {allowed}")
    return Picture(image, objects=tuple(objects), relative=True)


def _object(track_id: int, fields: list[str], classes: dict[int, str | None]) -> LabelledObject | None:
    """None: of a class that is not learned.  Raises ValueError."""
    x, y, width, height = (float(field) for field in fields[1:])
    number = int(fields[0])
    if number not in classes or max(x, y, width, height) > 2:  # pixels, not shares
        raise ValueError
    named = classes[number]
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return LabelledObject(track_id, named, box) if named else None
