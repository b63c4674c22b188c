"""Image files as a recording: each labelled by a mask, by a label map, or by boxes and outlines.

The bytes of a file of 8 bits go through unchanged, so that a cache can keep them as they are.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import ImageError
from pipeline.imaging.agc import AutomaticGainControl
from pipeline.imaging.files import decode, decoded
from training.datasets.mask_files import JPEG_MAGIC, labels_of, mask_of
from training.datasets.outlines import Outline, RunLengths, decoded_mask, fill, resized_mask, scaled_polygons
from training.datasets.recording import (
    LABEL_OF,
    BrokenDataError,
    DataCheck,
    LabelledFrame,
    LabelledObject,
    LabelledRecording,
    box_fault,
    label_map,
    objects_in,
    sensor_in,
)
from training.masks import Box, Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
COLOUR_DIFFERENCE = 6.0  # mean difference between the channels above which a picture has colour
MOST_UNLIKE = 0.02  # by how much proportions may differ that are those of one image, resized to whole pixels

Size = tuple[int, int]  # width and height, pixels


@dataclass(frozen=True)
class Annotation:
    """One labelled object of a picture, as its file says it."""

    place: str  # the file, and where in it, for messages
    object_class: str  # one of CLIP_CLASSES
    box: Box
    outline: Outline = ()  # without one, the box becomes a pseudo-mask


@dataclass(frozen=True)
class LabelledImage:
    """An image file and what labels it: `mask`, or `label_map`, or else `annotations`."""

    image: Path
    mask: Path | None = None  # above 0: the UAV
    label_map: Path | None = None  # 0 background, 1 + index into CLASSES
    annotations: tuple[Annotation, ...] = ()
    annotated_px: Size | None = None  # the image's size as its annotations have it; None: not said
    relative: bool = False  # coordinates are shares of the frame's width and height
    crowds: int = 0  # annotations of several objects in one, left out
    fault: str = ""  # of its labels, found when they were read


@dataclass(frozen=True)
class ImageFolder(LabelledRecording):
    """ImageFolder in their order; their numbers are their places."""

    name: str
    folder: Path
    sensor: str
    clip_class: str
    split: str
    pictures: tuple[LabelledImage, ...]
    without_mask: int = 0

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def skipped(self) -> int:
        return self.without_mask

    @property
    def crowds(self) -> int:
        return sum(picture.crowds for picture in self.pictures)

    def may_show(self, number: int, object_class: str) -> bool:
        picture = self.pictures[number]
        if picture.label_map is not None:
            return True
        if picture.mask is not None:
            return object_class == "drone"
        return any(item.object_class == object_class for item in picture.annotations)

    def read(self, numbers: Collection[int]) -> Iterator[LabelledFrame]:
        for number in sorted(set(numbers)):
            if number < len(self.pictures):
                yield read_labelled_image(self.pictures[number], number)

    def checks(self) -> list[DataCheck]:
        if not self.pictures and not self.without_mask:
            return [lambda: f"{self.folder}: holds no image; allowed: {' '.join(IMAGE_SUFFIXES)}"]
        return [_ImageCheck(picture) for picture in self.pictures]

    def settings(self) -> dict[str, Any]:
        return {**asdict(self), "files": [_stamps(picture) for picture in self.pictures]}


@dataclass(frozen=True)
class _ImageCheck:
    picture: LabelledImage

    def __call__(self) -> str:
        try:
            read_labelled_image(self.picture, 0)
        except BrokenDataError as error:
            return str(error)
        return ""


def _stamps(picture: LabelledImage) -> list[tuple[int, int]]:
    """Sizes in bytes and times of change: a file that changed makes another cache."""
    files = (path for path in (picture.image, picture.mask, picture.label_map) if path is not None)
    return [(state.st_size, state.st_mtime_ns) for path in files if (state := _state(path))]


def _state(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:
        return None


def read_labelled_image(picture: LabelledImage, number: int) -> LabelledFrame:
    """Raises BrokenDataError for a broken image, a mask that is none or does not fit, and boxes outside the frame."""
    if picture.fault:
        raise BrokenDataError(picture.fault)
    content = _content(picture.image)
    image, encoded = _shown(picture.image, content)
    if picture.mask is not None or picture.label_map is not None:
        labels = _from_mask_file(picture, image)
        objects = objects_in(labels)
    else:
        labels, objects = _from_annotations(picture, image)
    return LabelledFrame(number, image, labels, objects, picture.image, encoded)


def _from_mask_file(picture: LabelledImage, image: Image) -> Image:
    path = picture.label_map or picture.mask
    assert path is not None
    content = _content(path)
    levels = _decoded(path, content, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if levels.shape[:2] != image.shape[:2]:
        stated = f"{levels.shape[1]}x{levels.shape[0]}"
        allowed = f"{image.shape[1]}x{image.shape[0]}, as {picture.image}"
        raise BrokenDataError(f"{path}: is a mask of {stated} pixels; allowed: {allowed}")
    return labels_of(path, levels) if picture.label_map else mask_of(path, levels, content.startswith(JPEG_MAGIC))


def _from_annotations(picture: LabelledImage, image: Image) -> tuple[Image, tuple[LabelledObject, ...]]:
    shown_px = image.shape[1], image.shape[0]
    stated_px = (1, 1) if picture.relative else picture.annotated_px or shown_px
    if picture.annotations and not picture.relative and not same_proportions(stated_px, shown_px):
        stated, shown = (f"{width}x{height}" for width, height in (stated_px, shown_px))
        raise BrokenDataError(
            f"{picture.annotations[0].place}: is for an image of {stated} pixels, {picture.image} has {shown}; "
            "expected the same size, or the same proportions"
        )
    across, down = shown_px[0] / stated_px[0], shown_px[1] / stated_px[1]
    objects: list[LabelledObject] = []
    for item in picture.annotations:
        x0, y0, x1, y1 = item.box
        box = (x0 * across, y0 * down, x1 * across, y1 * down)
        if fault := box_fault(box, *shown_px):
            raise BrokenDataError(f"{item.place}: {fault}, in {picture.image}")
        objects.append(LabelledObject(len(objects), item.object_class, box))
    pairs = list(zip(objects, picture.annotations, strict=True))
    labels = label_map(image, (item for item, annotation in pairs if not annotation.outline))
    for annotation in picture.annotations:
        if annotation.outline:
            _enter(labels, annotation, across, down)
    return labels, tuple(objects)


def _enter(labels: Image, annotation: Annotation, across: float, down: float) -> None:
    label, outline = LABEL_OF[annotation.object_class], annotation.outline
    if not isinstance(outline, RunLengths):
        fill(labels, scaled_polygons(outline, across, down), label)
        return
    height_px, width_px = labels.shape
    if not same_proportions((outline.width_px, outline.height_px), (width_px, height_px)):
        stated = f"{outline.width_px}x{outline.height_px}"
        raise BrokenDataError(
            f"{annotation.place}: is a mask of {stated} pixels for an image of {width_px}x{height_px}; "
            "expected the same size, or the same proportions"
        )
    try:
        labels[resized_mask(decoded_mask(outline), width_px, height_px)] = label
    except ValueError as error:
        raise BrokenDataError(f"{annotation.place}: {error}") from error


def same_proportions(first_px: Size, second_px: Size) -> bool:
    """Whether both sizes are of one image, apart from rounding; turned by a quarter it is another."""
    (width, height), (other_width, other_height) = first_px, second_px
    across, down = other_width * height, other_height * width
    by_one_pixel = max(width + height, other_width + other_height)
    is_turned = first_px == second_px[::-1] and width != height
    return not is_turned and abs(across - down) <= min(by_one_pixel, MOST_UNLIKE * max(across, down))


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
    shown = AutomaticGainControl()(picture)
    shown = np.repeat(shown[..., None], 3, axis=2) if shown.ndim == 2 else shown
    return shown, content if picture.dtype == np.uint8 else b""


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder, by name, 10 after 9: labels may be told by an image's place alone."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")
    return sorted(found, key=lambda path: ([_numbered(part) for part in re.split(r"(\d+)", path.name)], path.name))


def _numbered(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (0, part)


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


def by_class(name: str, folder: Path, split: str, pictures: Iterable[LabelledImage]) -> list[ImageFolder]:
    """A recording for each class that pictures show; a drone decides, and pictures of nothing are with the drones.

    So training can draw classes equally often, however seldom they are.
    """
    groups: dict[str, list[LabelledImage]] = {}
    for picture in pictures:
        shown = {item.object_class for item in picture.annotations} or {"drone"}
        groups.setdefault(min(shown, key=LABEL_OF.__getitem__), []).append(picture)
    sensor = sensor_of(Path(name), (picture.image for group in groups.values() for picture in group))
    return [
        ImageFolder(f"{name}/{shown}", folder, sensor, shown, split, tuple(group)) for shown, group in groups.items()
    ]
