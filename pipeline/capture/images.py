"""A sequence of images in (a folder, a printf pattern, or one image), every picture out, with times by its number.

A TIFF with several pages, as thermal cameras write, is as many pictures.

Broken images are left out; after the last one a SourceError names them.
"""

import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.capture.picture import Gate, Picture, ungated
from pipeline.errors import SourceError
from pipeline.thermal import GainControl

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
TIFF_SUFFIXES = (".tif", ".tiff")
BIG_TIFF = 43
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
        gain = GainControl()
        for index, (image, page) in enumerate(self._pages):
            if self._closed:
                return
            pts_s = index / self.fps
            receipt = gate(pts_s)
            if receipt is None:
                continue
            started_ns = time.perf_counter_ns()
            pixels = _read_image(image, page)
            if pixels is None:
                broken.append(image.name + (f" page {page + 1}" if page else ""))
                continue
            pixels = gain(pixels, pts_s)
            decode_ns = time.perf_counter_ns() - started_ns
            yield Picture(pixels, pts_s, receipt.mono_ns, receipt.utc_ns, None, decode_ns)
        if broken:
            read = len(self._pages) - len(broken)
            raise SourceError(f"{self._path}: not images: {', '.join(broken[:5])}; {read} frames were read")

    @property
    def codec(self) -> str:
        return self._pages[0][0].suffix.lower().removeprefix(".")

    @property
    def stated_count(self) -> int:
        return len(self._pages)

    def close(self) -> None:
        self._closed = True


def _page_count(path: Path) -> int:
    """A page that the file promises and does not hold counts too: it is missed, which shall be said.

    OpenCV counts only what it can read, hence this walk along the directories (TIFF 6.0, section 2; BigTIFF).
    """
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return 1
    pages: set[int] = set()
    with suppress(OSError, struct.error, KeyError), path.open("rb") as file:
        order = {b"II": "<", b"MM": ">"}[file.read(2)]
        is_big = struct.unpack(f"{order}H", file.read(2))[0] == BIG_TIFF
        entries, entry_bytes, offset = ("Q", 20, "Q") if is_big else ("H", 12, "I")

        def number(layout: str) -> int:
            return int(struct.unpack(order + layout, file.read(struct.calcsize(order + layout)))[0])

        file.seek(8 if is_big else 4)
        while (place := number(offset)) and place not in pages:
            pages.add(place)
            file.seek(place)
            file.seek(number(entries) * entry_bytes, os.SEEK_CUR)
    return max(1, len(pages))


def _read_image(path: Path, page: int) -> NDArray[Any] | None:
    """As `decoded`."""
    from pipeline.image_file import decoded, decoded_page  # here: OpenCV is large, and no camera needs it

    if page:
        return decoded_page(path, page)
    try:
        return decoded(np.fromfile(path, np.uint8))
    except OSError:
        return None
