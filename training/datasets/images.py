"""Folders of image files as recordings: each labelled by a mask, by a label map, or by boxes and outlines.

The bytes of 8-bit files are passed on unchanged, so that a cache can store them.
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
from training.masks import Box, Image, Mask

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
COLOUR_DIFFERENCE = 6.0  # mean difference between channels above which an image is in colour
MAX_ASPECT_DIFFERENCE = 0.02  # relative, between an image and itself resized to whole pixels

Size = tuple[int, int]  # width and height, pixels


@dataclass(frozen=True)
class Annotation:
    """One labelled object of an image, as its file has it."""

    place: str  # file and position, for messages
    object_class: str  # one of CLIP_CLASSES
    box: Box
    outline: Outline = ()  # without one, a pseudo-mask is made from the box


@dataclass(frozen=True)
class LabelledImage:
    """An image file and its labels: `mask`, or `label_map`, or else `annotations`."""

    image: Path
    mask: Path | None = None  # above 0: the UAV
    label_map: Path | None = None  # 0 background, 1 + index into CLASSES
    annotations: tuple[Annotation, ...] = ()
    annotated_px: Size | None = None  # the size that annotations refer to; None: not stated
    relative: bool = False  # coordinates are relative to the frame's width and height
    crowds: int = 0  # skipped annotations of several objects in one
    fault: str = ""  # of its labels


@dataclass(frozen=True)
class ImageFolder(LabelledRecording):
    """Labelled images in order; frame numbers are their indices."""

    name: str
    folder: Path
    sensor: str
    clip_class: str
    split: str
    images: tuple[LabelledImage, ...]
    without_mask: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def skipped(self) -> int:
        """Number of images skipped because they have no mask."""
        return self.without_mask

    @property
    def crowds(self) -> int:
        """Number of skipped annotations of several objects in one."""
        return sum(image.crowds for image in self.images)

    def may_show(self, number: int, object_class: str) -> bool:
        """Return whether a frame may show an object of the class."""
        labelled = self.images[number]
        if labelled.label_map is not None:
            return True
        if labelled.mask is not None:
            return object_class == "drone"
        return any(item.object_class == object_class for item in labelled.annotations)

    def read(self, numbers: Collection[int]) -> Iterator[LabelledFrame]:
        """Yield the given frames, in order."""
        for number in sorted(set(numbers)):
            if number < len(self.images):
                yield read_labelled_image(self.images[number], number)

    def checks(self) -> list[DataCheck]:
        """Return the checks of the data."""
        if not self.images and not self.without_mask:
            return [lambda: f"{self.folder}: holds no image; expected {' '.join(IMAGE_SUFFIXES)}"]
        return [_ImageCheck(image) for image in self.images]

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the frames."""
        return {**asdict(self), "files": [_stamps(image) for image in self.images]}


@dataclass(frozen=True)
class _ImageCheck:
    labelled: LabelledImage

    def __call__(self) -> str:
        try:
            read_labelled_image(self.labelled, 0)
        except BrokenDataError as error:
            return str(error)
        return ""


def _stamps(labelled: LabelledImage) -> list[tuple[int, int]]:
    """Return sizes in bytes and modification times: a changed file needs another cache."""
    files = (path for path in (labelled.image, labelled.mask, labelled.label_map) if path is not None)
    return [(state.st_size, state.st_mtime_ns) for path in files if (state := _state(path))]


def _state(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:
        return None


def read_labelled_image(labelled: LabelledImage, number: int) -> LabelledFrame:
    """Return a decoded frame; raise BrokenDataError for a broken image, a wrong mask, and boxes outside the frame."""
    if labelled.fault:
        raise BrokenDataError(labelled.fault)
    content = _content(labelled.image)
    image, encoded = _decode_as_shown(labelled.image, content)
    if labelled.mask is not None or labelled.label_map is not None:
        labels = _from_mask_file(labelled, image)
        objects = objects_in(labels)
    else:
        labels, objects = _from_annotations(labelled, image)
    return LabelledFrame(number, image, labels, objects, labelled.image, encoded)


def _from_mask_file(labelled: LabelledImage, image: Image) -> Image:
    path = labelled.label_map or labelled.mask
    assert path is not None
    content = _content(path)
    levels = _decoded(path, content, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if levels.shape[:2] != image.shape[:2]:
        stated = f"{levels.shape[1]}x{levels.shape[0]}"
        expected = f"{image.shape[1]}x{image.shape[0]}, as {labelled.image}"
        raise BrokenDataError(f"{path}: is a mask of {stated} pixels; must be {expected}")
    return labels_of(path, levels) if labelled.label_map else mask_of(path, levels, content.startswith(JPEG_MAGIC))


def _from_annotations(labelled: LabelledImage, image: Image) -> tuple[Image, tuple[LabelledObject, ...]]:
    shown_px = image.shape[1], image.shape[0]
    stated_px = (1, 1) if labelled.relative else labelled.annotated_px or shown_px
    if labelled.annotations and not labelled.relative and not same_proportions(stated_px, shown_px):
        stated, shown = (f"{width}x{height}" for width, height in (stated_px, shown_px))
        raise BrokenDataError(
            f"{labelled.annotations[0].place}: is for an image of {stated} pixels, {labelled.image} has {shown}; "
            "expected the same size, or the same proportions"
        )
    across, down = shown_px[0] / stated_px[0], shown_px[1] / stated_px[1]
    objects: list[LabelledObject] = []
    for item in labelled.annotations:
        x0, y0, x1, y1 = item.box
        box = (x0 * across, y0 * down, x1 * across, y1 * down)
        if fault := box_fault(box, *shown_px):
            raise BrokenDataError(f"{item.place}: {fault}, in {labelled.image}")
        objects.append(LabelledObject(len(objects), item.object_class, box))
    pairs = list(zip(objects, labelled.annotations, strict=True))
    labels = label_map(image, (item for item, annotation in pairs if not annotation.outline))
    for annotation in labelled.annotations:
        if annotation.outline:
            _draw(labels, annotation, across, down, labelled.image)
    return labels, tuple(objects)


def _draw(labels: Image, annotation: Annotation, across: float, down: float, image: Path) -> None:
    outline = annotation.outline
    shape = np.zeros_like(labels)
    if isinstance(outline, RunLengths):
        shape[_run_length_mask(annotation.place, outline, labels.shape)] = 1
    else:
        fill(shape, scaled_polygons(outline, across, down), 1)
    if not shape.any():
        raise BrokenDataError(f"{annotation.place}: its outline covers no pixel of {image}; must cover the object")
    labels[shape > 0] = LABEL_OF[annotation.object_class]


def _run_length_mask(place: str, outline: RunLengths, shape: tuple[int, ...]) -> Mask:
    height_px, width_px = shape
    if not same_proportions((outline.width_px, outline.height_px), (width_px, height_px)):
        stated = f"{outline.width_px}x{outline.height_px}"
        raise BrokenDataError(
            f"{place}: is a mask of {stated} pixels for an image of {width_px}x{height_px}; "
            "expected the same size, or the same proportions"
        )
    try:
        return resized_mask(decoded_mask(outline), width_px, height_px)
    except ValueError as error:
        raise BrokenDataError(f"{place}: {error}") from error


def same_proportions(first_px: Size, second_px: Size) -> bool:
    """Return whether two sizes have the same aspect ratio, apart from rounding; rotation by 90 degrees differs."""
    (width, height), (other_width, other_height) = first_px, second_px
    across, down = other_width * height, other_height * width
    by_one_pixel = max(width + height, other_width + other_height)
    is_turned = first_px == second_px[::-1] and width != height
    return not is_turned and abs(across - down) <= min(by_one_pixel, MAX_ASPECT_DIFFERENCE * max(across, down))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenDataError(f"{path}: cannot be read ({error.strerror}); expected an image") from error


def _decoded(path: Path, content: bytes, flags: int) -> npt.NDArray[Any]:
    try:
        return decode(np.frombuffer(content, np.uint8), flags)
    except ImageError as error:
        raise BrokenDataError(f"{path}: {error}") from error


def _decode_as_shown(path: Path, content: bytes) -> tuple[Image, bytes]:
    """Return the RGB image as a capture worker would make it, and the file's bytes if they decode to it."""
    try:
        image = decoded(np.frombuffer(content, np.uint8))
    except ImageError as error:
        raise BrokenDataError(f"{path}: {error}") from error
    shown = AutomaticGainControl()(image)
    shown = np.repeat(shown[..., None], 3, axis=2) if shown.ndim == 2 else shown
    return shown, content if image.dtype == np.uint8 else b""


def images_in(folder: Path) -> list[Path]:
    """Return the images directly in a folder in natural order (10 after 9): labels may refer to them by index."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")
    return sorted(found, key=lambda path: ([_numbered(part) for part in re.split(r"(\d+)", path.name)], path.name))


def _numbered(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (0, part)


def folders_in(folder: Path) -> list[Path]:
    """Return the folder and its subfolders that hold files or are empty."""
    below = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    return [path for path in below if (content := list(path.iterdir())) == [] or any(map(Path.is_file, content))]


def sensor_of(place: Path, images: Iterable[Path]) -> str:
    """Return the sensor that the folder's name gives; otherwise infrared if the first image is grey."""
    named = sensor_in(place)
    first = next(iter(images), None)
    if named or first is None:
        return named or "visible"
    try:
        image, _ = _decode_as_shown(first, _content(first))
    except BrokenDataError:  # reported by `validate`
        return "visible"
    spread = image.max(axis=2).astype(np.int16) - image.min(axis=2)
    return "visible" if float(spread.mean()) > COLOUR_DIFFERENCE else "infrared"


def by_class(name: str, folder: Path, split: str, images: Iterable[LabelledImage]) -> list[ImageFolder]:
    """Return a recording for each class: images with a drone, or without objects, belong to the drones.

    Training can then draw classes equally often, however rare they are.
    """
    groups: dict[str, list[LabelledImage]] = {}
    for labelled in images:
        shown = {item.object_class for item in labelled.annotations} or {"drone"}
        groups.setdefault(min(shown, key=LABEL_OF.__getitem__), []).append(labelled)
    sensor = sensor_of(Path(name), (labelled.image for group in groups.values() for labelled in group))
    return [
        ImageFolder(f"{name}/{shown}", folder, sensor, shown, split, tuple(group)) for shown, group in groups.items()
    ]
