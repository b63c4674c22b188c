"""Image files as a recording: each labelled by a mask, by a label map, or by boxes and polygons.

The bytes of a file of 8 bits go through unchanged, so that a cache can keep them as they are.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import ImageError
from pipeline.image_file import decode, decoded
from pipeline.thermal import GainControl
from training.datasets.recording import (
    LABEL_OF,
    BrokenDataError,
    Check,
    LabelledFrame,
    LabelledObject,
    Recording,
    box_fault,
    label_map,
    objects_in,
    sensor_in,
)
from training.masks import Box, Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
BETWEEN_LEVELS = 0.1  # of a mask's pixels; more are no mask but a picture
COLOUR_DIFFERENCE = 6.0  # mean difference between the channels above which a picture has colour
SUPERSAMPLING = 8  # of polygons

Polygon = tuple[float, ...]  # x, y, x, y, ... in pixels


@dataclass(frozen=True)
class Picture:
    """An image file and what labels it: `mask`, or `label_map`, or else `objects`."""

    image: Path
    mask: Path | None = None  # above 0: the UAV
    label_map: Path | None = None  # 0 background, 1 + index into CLASSES
    objects: tuple[LabelledObject, ...] = ()
    polygons: tuple[tuple[Polygon, ...], ...] = ()  # of each object; one without has a pseudo-mask
    relative: bool = False  # boxes are shares of the frame's width and height
    fault: str = ""  # of its labels, found when they were read


@dataclass(frozen=True)
class Pictures(Recording):
    """Pictures in their order; their numbers are their places."""

    name: str
    folder: Path
    sensor: str
    clip_class: str
    split: str
    pictures: tuple[Picture, ...]
    without_mask: int = 0

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def skipped(self) -> int:
        return self.without_mask

    def may_show(self, number: int, object_class: str) -> bool:
        picture = self.pictures[number]
        if picture.label_map is not None:
            return True
        if picture.mask is not None:
            return object_class == "drone"
        return any(item.object_class == object_class for item in picture.objects)

    def read(self, numbers: Collection[int]) -> Iterator[LabelledFrame]:
        for number in sorted(set(numbers)):
            if number < len(self.pictures):
                yield read_picture(self.pictures[number], number)

    def checks(self) -> list[Check]:
        if not self.pictures and not self.without_mask:
            return [lambda: f"{self.folder}: holds no image; allowed: {' '.join(IMAGE_SUFFIXES)}"]
        return [_PictureCheck(picture) for picture in self.pictures]

    def settings(self) -> dict[str, Any]:
        return {**asdict(self), "files": [_stamps(picture) for picture in self.pictures]}


@dataclass(frozen=True)
class _PictureCheck:
    picture: Picture

    def __call__(self) -> str:
        try:
            read_picture(self.picture, 0)
        except BrokenDataError as error:
            return str(error)
        return ""


def _stamps(picture: Picture) -> list[tuple[int, int]]:
    """Sizes in bytes and times of change: a file that changed makes another cache."""
    files = (path for path in (picture.image, picture.mask, picture.label_map) if path is not None)
    return [(state.st_size, state.st_mtime_ns) for path in files if (state := _state(path))]


def _state(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:
        return None


def read_picture(picture: Picture, number: int) -> LabelledFrame:
    """Raises BrokenDataError for a broken image, a mask that is none or does not fit, and boxes outside the frame."""
    if picture.fault:
        raise BrokenDataError(picture.fault)
    content = _content(picture.image)
    image, encoded = _shown(picture.image, content)
    height_px, width_px = image.shape[:2]
    if picture.mask is not None or picture.label_map is not None:
        path = picture.label_map or picture.mask
        assert path is not None
        levels = _decoded(path, _content(path), cv2.IMREAD_UNCHANGED)
        if levels.shape[:2] != image.shape[:2]:
            stated = f"{levels.shape[1]}x{levels.shape[0]}"
            allowed = f"{width_px}x{height_px}, as {picture.image}"
            raise BrokenDataError(f"{path}: is a mask of {stated} pixels; allowed: {allowed}")
        labels = _labels_of(path, levels) if picture.label_map else _mask_of(path, levels)
        return LabelledFrame(number, image, labels, objects_in(labels), picture.image, encoded)
    objects = tuple(replace(item, xyxy=_in_pixels(picture, item.xyxy, image)) for item in picture.objects)
    for item in objects:
        if fault := box_fault(item.xyxy, width_px, height_px):
            raise BrokenDataError(f"{picture.image}: {fault}")
    return LabelledFrame(number, image, _drawn(image, objects, picture.polygons), objects, picture.image, encoded)


def _in_pixels(picture: Picture, box: Box, image: Image) -> Box:
    height, width = image.shape[:2] if picture.relative else (1, 1)
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenDataError(f"{path}: cannot be read ({error.strerror}); allowed: an image") from error


def _decoded(path: Path, content: bytes, flags: int) -> npt.NDArray[Any]:
    try:
        return decode(np.frombuffer(content, np.uint8), flags)
    except ImageError as error:
        raise BrokenDataError(f"{path}: {error}") from error


def _shown(path: Path, content: bytes) -> tuple[Image, bytes]:
    """The RGB picture as a camera's worker would show it, and the file's bytes if they say the same."""
    try:
        picture = decoded(np.frombuffer(content, np.uint8))
    except ImageError as error:
        raise BrokenDataError(f"{path}: {error}") from error
    shown = GainControl()(picture)
    shown = np.repeat(shown[..., None], 3, axis=2) if shown.ndim == 2 else shown
    return shown, content if picture.dtype == np.uint8 else b""


def _mask_of(path: Path, levels: npt.NDArray[Any]) -> Image:
    """1 where any colour is above 0.  A mask has two levels, apart from soft edges; a picture has many."""
    grey = levels if levels.ndim == 2 else levels[..., :3].max(axis=2)
    marked = grey > 0
    values, counts = np.unique(grey[marked], return_counts=True)
    between = marked.sum() - counts.max(initial=0)
    if between > BETWEEN_LEVELS * grey.size:
        raise BrokenDataError(f"{path}: is no mask but has {len(values)} levels; allowed: 0 and one level for the UAV")
    if marked.all():
        raise BrokenDataError(f"{path}: is no mask, no pixel is background; allowed: 0 and one level for the UAV")
    return marked.astype(np.uint8)


def _labels_of(path: Path, levels: npt.NDArray[Any]) -> Image:
    if levels.ndim != 2 or levels.max(initial=0) > len(LABEL_OF):
        raise BrokenDataError(f"{path}: is no label map; allowed: one channel of 0 to {len(LABEL_OF)}")
    return np.asarray(levels, np.uint8)


def _drawn(image: Image, objects: tuple[LabelledObject, ...], polygons: tuple[tuple[Polygon, ...], ...]) -> Image:
    outlined = [place for place in range(len(objects)) if place < len(polygons) and polygons[place]]
    labels = label_map(image, (item for place, item in enumerate(objects) if place not in outlined))
    for place in outlined:
        fill(labels, polygons[place], LABEL_OF[objects[place].object_class])
    return labels


def fill(labels: Image, polygons: Iterable[Polygon], label: int) -> None:
    """Enter the pixels that polygons cover by half or more; of a smaller object, the one that it covers best."""
    shapes = [np.reshape(polygon, (-1, 2)) for polygon in polygons]
    corners = np.concatenate(shapes)
    left, top = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)), labels.shape[::-1]).astype(int).tolist()
    if right <= left or bottom <= top:
        return
    canvas = np.zeros(((bottom - top) * SUPERSAMPLING, (right - left) * SUPERSAMPLING), np.uint8)
    for shape in shapes:
        fixed = np.rint((shape - (left, top)) * SUPERSAMPLING * 16 - 8).astype(np.int32)  # 4 bits of fraction
        cv2.fillPoly(canvas, [fixed], 255, cv2.LINE_8, 4)
    cover = cv2.resize(canvas, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    labels[top:bottom, left:right][cover >= max(1, min(128, int(cover.max())))] = label


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")


def folders_in(folder: Path) -> list[Path]:
    """The folder and those below it that hold files, or nothing at all."""
    below = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    return [path for path in below if (content := list(path.iterdir())) == [] or any(map(Path.is_file, content))]


def sensor_of(place: Path, images: Iterable[Path]) -> str:
    """What the folder's name says; otherwise infrared if the first picture has no colour."""
    named = sensor_in(place)
    first = next(iter(images), None)
    if named or first is None:
        return named or "visible"
    try:
        image, _ = _shown(first, _content(first))
    except BrokenDataError:  # which `validate` will name
        return "visible"
    spread = image.max(axis=2).astype(np.int16) - image.min(axis=2)
    return "visible" if float(spread.mean()) > COLOUR_DIFFERENCE else "infrared"


def by_class(name: str, folder: Path, split: str, pictures: Iterable[Picture]) -> list[Pictures]:
    """A recording for each class that pictures show; a drone decides, and pictures of nothing are with the drones.

    So training can draw classes equally often, however seldom they are.
    """
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        shown = {item.object_class for item in picture.objects} or {"drone"}
        groups.setdefault(min(shown, key=LABEL_OF.__getitem__), []).append(picture)
    sensor = sensor_of(Path(name), (picture.image for group in groups.values() for picture in group))
    return [Pictures(f"{name}/{shown}", folder, sensor, shown, split, tuple(group)) for shown, group in groups.items()]
