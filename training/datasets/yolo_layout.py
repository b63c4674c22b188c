"""Layouts of YOLO data sets: folders of images, splits and class names.

`data.yaml` names the classes and, in Ultralytics' format, the contents of `train`, `val` and `test`: folders, text
files that list images, or lists of these, below `path`.  Without splits, images are in `images/`, with the splits below
or above.  Alternatives are Darknet's `obj.data` (CVAT), and `classes.txt` (Label Studio) for the classes alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.config.yaml_file import parse_yaml
from pipeline.errors import ConfigError
from training.datasets.images import folders_in, images_in
from training.datasets.label_files import read_text, shortened
from training.datasets.recording import SPLIT_NAMED, DataError, split_in

YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
DARKNET_FILE = "obj.data"
CLASS_FILES = ("classes.txt", "obj.names")
EXPECTED_NAMES = "expected names: a list or a map of classes"
EXPECTED_PLACE = "expected a folder, a text file that lists images, or a list of these"


@dataclass(frozen=True)
class Description:
    """A data set's own description."""

    file: Path
    names: dict[int, str]  # class names by number
    splits: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # entries by split, each with its key
    folders: tuple[Path, ...] = ()  # base folders of entries
    has_keypoints: bool = False


@dataclass(frozen=True)
class Place:
    """Images of a split in one folder, or the faults of the entries that name them."""

    name: str
    split: str
    folder: Path
    images: tuple[Path, ...] = ()
    faults: tuple[str, ...] = ()


def read_description(folder: Path) -> Description | None:
    """Return the description, None where no file names classes; raise DataError for a malformed file."""
    files = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}
    for name in YAML_FILES:
        if (path := files.get(name)) and (name.startswith("data.") or _names_classes(path)):
            return _described(path, _yaml(path))
    if path := files.get(DARKNET_FILE):
        return _described(path, _darknet(path))
    for name in CLASS_FILES:
        if path := files.get(name):
            return _described(path, {"names": _lines(path)})
    return None


def find_places(folder: Path, description: Description | None) -> list[Place]:
    """Return the images that the description names, or else those in the usual folders."""
    if description is not None and description.splits:
        found = [
            place
            for split, entries in description.splits.items()
            for key, entry in entries
            for place in _entry_places(folder, description, split, key, entry)
        ]
        return _with_unique_names(found)
    usual = [images for images in (folder / "images", *sorted(folder.glob("*/images"))) if images.is_dir()]
    return [
        place
        for images in usual
        if images.with_name("labels").is_dir()
        for place in _folder_places(folder, images, split_in(images.relative_to(folder)))
    ]


def _described(path: Path, content: Any) -> Description:
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, str) and (file := _found((path.parent,), names)) and file.is_file():
        names = _lines(file)
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(str(number).isdecimal() for number in names):
        raise DataError(f"{path}: names = {shortened(names)}; {EXPECTED_NAMES}")
    folders = [path.parent]
    if isinstance(root := content.get("path"), str) and (stated := path.parent / root.replace("\\", "/")).is_dir():
        folders.insert(0, stated)
    splits: dict[str, list[tuple[str, str]]] = {}
    for key in SPLIT_NAMED:
        if content.get(key):
            splits.setdefault(SPLIT_NAMED[key], []).extend((key, entry) for entry in _listed(path, key, content[key]))
    numbered = {int(number): str(name) for number, name in names.items()}
    return Description(path, numbered, splits, tuple(dict.fromkeys(folders)), bool(content.get("kpt_shape")))


def _listed(path: Path, key: str, value: object) -> list[str]:
    entries = []
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, str):
            raise DataError(f"{path}: {key} = {shortened(entry)}; {EXPECTED_PLACE}")
        entries.append(entry.strip().replace("\\", "/"))
    return entries


def _yaml(path: Path) -> Any:
    try:
        return parse_yaml(read_text(path), str(path)).value
    except ConfigError as error:
        raise DataError(str(error)) from error


def _names_classes(path: Path) -> bool:
    """Return whether a YAML file of a generic name is of this format."""
    try:
        content = _yaml(path)
    except DataError:
        return False
    return isinstance(content, dict) and "names" in content


def _darknet(path: Path) -> dict[str, str]:
    """Return the pairs of lines `key = value`."""
    pairs = (line.partition("=") for line in _lines(path))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _entry_places(folder: Path, description: Description, split: str, key: str, entry: str) -> Iterator[Place]:
    found = _found(description.folders, entry)
    if found is not None and found.is_dir():
        yield from _folder_places(folder, found, split)
    elif found is not None and found.suffix.lower() == ".txt":
        yield from _list_places(folder, description, split, found)
    elif split != "test":  # exports name a test split whether they have one or not
        fault = f"{description.file}: {key} = {entry!r} does not exist; {EXPECTED_PLACE}"
        yield Place(f"{split}/{entry}", split, description.file, faults=(fault,))


def _folder_places(root: Path, images: Path, split: str | None) -> Iterator[Place]:
    """Yield each folder below that holds images; the folder itself where none does."""
    folders = [inner for inner in folders_in(images) if images_in(inner)] or [images]
    for inner in folders:
        place = _inside(root, inner)
        yield Place(place.as_posix(), split or split_in(place) or "train", inner, tuple(images_in(inner)))


def _list_places(root: Path, description: Description, split: str, path: Path) -> Iterator[Place]:
    """Yield each folder of the images that a text file lists."""
    groups: dict[Path, list[Path]] = {}
    faults: list[str] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not (name := line.strip().replace("\\", "/")):
            continue
        image = _found((path.parent, *description.folders), name)
        if image is None or not image.is_file():
            faults.append(f"{path}: line {number}: {name} does not exist; expected an image's path")
        else:
            groups.setdefault(image.parent, []).append(image)
    for folder, images in groups.items():
        yield Place(f"{split}/{_inside(root, folder)}", split, folder, tuple(dict.fromkeys(images)))
    if not groups and not faults:
        faults.append(f"{path}: lists no image; expected one path per line")
    if faults:
        yield Place(f"{split}/{path.stem}", split, path, faults=tuple(faults))


def _found(folders: tuple[Path, ...], name: str) -> Path | None:
    """Return the file or folder of a name, with leading parts of its path dropped where needed.

    Roboflow's names begin with `../` though the files are beside data.yaml, CVAT's with `data/`.
    """
    parts = Path(name).parts
    for folder in folders:
        if (path := folder / name).exists():
            return path
        for start in range(1, len(parts)):
            is_whole = parts[start - 1] in ("..", "data", folder.name) or len(parts) - start >= 2
            if is_whole and (path := folder.joinpath(*parts[start:])).exists():
                return path
    return None


def _inside(root: Path, folder: Path) -> Path:
    """Return the folder's path below the root, or else its name."""
    folder, root = folder.resolve(), root.resolve()
    return folder.relative_to(root) if folder.is_relative_to(root) else Path(folder.name)


def _with_unique_names(places: list[Place]) -> list[Place]:
    """Return the places with unique names: splits may share a folder."""
    taken: set[str] = set()
    named = []
    for place in places:
        name = place.name if place.name not in taken else f"{place.split}/{place.name}"
        while name in taken:
            name = f"{name}-{len(taken)}"
        taken.add(name)
        named.append(replace(place, name=name))
    return named
