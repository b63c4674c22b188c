"""YOLO labels: a text file per image, a line per object, coordinates relative to the image's size.

A line is a class and a box (centre x, centre y, width, height), or a class and a polygon (x, y of three or more
points), which becomes a mask.  The text is in `labels/` where the image is in `images/`, otherwise beside it; an image
without text has no objects.  See `yolo_layout` for the folders of images.
"""

from pathlib import Path

from training.datasets.images import Annotation, ImageFolder, LabelledImage, by_class
from training.datasets.label_files import is_number, read_text, shortened
from training.datasets.recording import DataError, class_of_name, known_class_names
from training.datasets.yolo_layout import YAML_FILES, Description, Place, find_places, read_description

MAX_COORDINATE = 2.0  # larger ones are in pixels


def read(folder: Path) -> list[ImageFolder] | None:
    """Return the recordings, None for another format; raise DataError where class names or all labels are missing."""
    description = read_description(folder)
    places = find_places(folder, description)
    if not places:
        return None
    if description is None:
        expected = "expected YAML with the classes' names, or classes.txt"
        raise DataError(f"{folder / YAML_FILES[0]}: is missing; {expected}")
    reader = _Reader(description)
    recordings = [recording for place in places for recording in reader.recordings(place)]
    images = [image for place in places for image in place.images]
    if images and not reader.found_labels:
        first = label_folder(images[0]) / f"{images[0].stem}.txt"
        raise DataError(f"data {folder}: none of its {len(images)} images has labels; expected {first}")
    return recordings


class _Reader:
    """Reads the labels of images."""

    def __init__(self, description: Description) -> None:
        self.found_labels = False  # text files, or an empty label folder: then no image has objects
        self._has_keypoints = description.has_keypoints
        self._classes = {number: class_of_name(name) for number, name in description.names.items()}
        self._folders: dict[Path, dict[str, Path]] = {}
        if not any(self._classes.values()):
            names = list(description.names.values())
            raise DataError(f"{description.file}: names {names}: none is known; expected some of {known_class_names()}")

    def recordings(self, place: Place) -> list[ImageFolder]:
        if not place.images:
            faults = tuple(LabelledImage(place.folder, fault=fault) for fault in place.faults)
            return [ImageFolder(place.name, place.folder, "visible", "drone", place.split, faults)]
        return by_class(place.name, place.folder, place.split, [self._labelled_image(image) for image in place.images])

    def _labelled_image(self, image: Path) -> LabelledImage:
        text = self._label_file(image)
        if text is None:
            return LabelledImage(image, relative=True)
        try:
            lines = read_text(text).splitlines()
        except DataError as error:
            return LabelledImage(image, fault=str(error))
        annotations = []
        for number, line in enumerate(lines, 1):
            fields = line.split()
            place = f"{text}: line {number}"
            try:
                if fields and (item := self._annotation(place, fields)):
                    annotations.append(item)
            except ValueError:
                shape = "a box (centre x, centre y, width, height) or a polygon (x, y of three or more points)"
                expected = f"a class (of {len(self._classes)}), then {shape}, relative to the image, 0 to 1"
                return LabelledImage(image, fault=f"{place} is {shortened(line)}; expected {expected}")
        return LabelledImage(image, annotations=tuple(annotations), relative=True)

    def _annotation(self, place: str, fields: list[str]) -> Annotation | None:
        """Return the annotation, None for a class that is not learned; raise ValueError for a malformed line."""
        number, *values = (float(field) for field in fields)
        if number not in self._classes or not all(
            is_number(value) and abs(value) <= MAX_COORDINATE for value in values
        ):
            raise ValueError
        if self._has_keypoints:
            values = values[:4]
        named = self._classes[int(number)]
        if len(values) == 4:
            x, y, width, height = values
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            return Annotation(place, named, box) if named else None
        if len(values) < 6 or len(values) % 2:
            raise ValueError
        box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        return Annotation(place, named, box, (tuple(values),)) if named else None

    def _label_file(self, image: Path) -> Path | None:
        folders = (label_folder(image), image.parent)
        found = next((file for folder in folders if (file := self._texts_in(folder).get(image.stem))), None)
        self.found_labels |= found is not None or (folders[0] != folders[1] and folders[0].is_dir())
        return found

    def _texts_in(self, folder: Path) -> dict[str, Path]:
        """Return the text files of a folder by stem; suffixes may be in capitals."""
        if folder not in self._folders:
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            self._folders[folder] = {file.stem: file for file in files if file.suffix.lower() == ".txt"}
        return self._folders[folder]


def label_folder(image: Path) -> Path:
    """Return the folder beside the last `images` of its path, or the image's own."""
    parts = image.parent.parts
    if "images" not in parts:
        return image.parent
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])
