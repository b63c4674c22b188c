"""A sequence of images in (a folder, a printf pattern, or one image), every picture out, with times by its number.

A TIFF with several pages, as thermal cameras write, is as many pictures.

Broken images are left out; after the last one a SourceError names them.
"""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.capture.picture import Gate, Picture, ungated
from pipeline.errors import ImageError, SourceError
from pipeline.thermal import GainControl
from pipeline.tiff_header import page_offsets

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
TIFF_SUFFIXES = (".tif", ".tiff")
NUMBER = re.compile(r"%(?:0(\d+))?d")


def is_file_with(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def naturally(path: Path) -> list[list[tuple[int, int, str]]]:
    """Sorts frame_10 after frame_9, folder by folder."""
    return [
        [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in re.split(r"(\d+)", part) if piece]
        for part in path.parts
    ]


def sequence(path: Path) -> list[Path]:
    """The images that a folder, a printf pattern or an image's own path stands for, in order."""
    if path.is_dir():
        return sorted((file for file in path.iterdir() if is_file_with(file, IMAGE_SUFFIXES)), key=naturally)
    if path.is_file():
        return [path] if is_file_with(path, IMAGE_SUFFIXES) else []
    number = NUMBER.search(path.name)
    if number is None or not path.parent.is_dir():
        return []
    digits = r"(\d{%s,})" % (number[1] or 1)
    pattern = re.compile(re.escape(path.name[: number.start()]) + digits + re.escape(path.name[number.end() :]))
    numbered = [(int(match[1]), file) for file in path.parent.iterdir() if (match := pattern.fullmatch(file.name))]
    return [file for _, file in sorted(numbered)]


class ImageSequence:
    live = False

    def __init__(self, path: Path, images: list[Path], fps: float) -> None:
        self._path, self.fps = path, fps
        self._pages = [(image, page) for image in images for page in range(_page_count(image))]
        self.length_s = len(self._pages) / fps
        self._closed = False

    def pictures(self) -> Iterator[Picture]:
        return self.paced(ungated)

    def paced(self, gate: Gate) -> Iterator[Picture]:
        broken: list[str] = []
        first = ""  # and what is wrong with it
        gain = GainControl()
        for index, (image, page) in enumerate(self._pages):
            if self._closed:
                return
            pts_s = index / self.fps
            receipt = gate(pts_s)
            if receipt is None:
                continue
            started_ns = time.perf_counter_ns()
            try:
                pixels = _read_image(image, page)
            except ImageError as error:
                broken.append(image.name + (f" page {page + 1}" if page else ""))
                first = first or f"{broken[0]} {error}"
                continue
            pixels = gain(pixels, pts_s)
            decode_ns = time.perf_counter_ns() - started_ns
            yield Picture(pixels, pts_s, receipt.mono_ns, receipt.utc_ns, None, decode_ns)
        if broken:
            read = len(self._pages) - len(broken)
            names = ", ".join(broken[:5])
            raise SourceError(f"{self._path}: not images: {names}; {read} frames were read ({first})")

    @property
    def stated_count(self) -> int:
        return len(self._pages)

    def close(self) -> None:
        self._closed = True


def _page_count(path: Path) -> int:
    """A page that the file promises and does not hold counts too: it is missed, which shall be said."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return 1
    with suppress(OSError), path.open("rb") as file:
        return max(1, sum(1 for _ in page_offsets(file)))
    return 1


def _read_image(path: Path, page: int) -> NDArray[Any]:
    """As `decoded`.  Raise ImageError."""
    from pipeline.image_file import decoded, decoded_page  # here: OpenCV is large, and no camera needs it

    try:
        return decoded_page(path, page) if page else decoded(np.fromfile(path, np.uint8))
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error
