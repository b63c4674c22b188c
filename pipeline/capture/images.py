"""A sequence of images in (a folder, a printf pattern, or one image), every picture out, with times by its number.

Broken images are left out; after the last one a SourceError names them.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.capture.picture import Gate, Picture, ungated
from pipeline.errors import SourceError
from pipeline.thermal import GainControl, decoded

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
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
        self._path, self._images, self.fps = path, images, fps
        self.length_s = len(images) / fps
        self._closed = False

    def pictures(self) -> Iterator[Picture]:
        return self.paced(ungated)

    def paced(self, gate: Gate) -> Iterator[Picture]:
        broken: list[str] = []
        gain = GainControl()
        for index, image in enumerate(self._images):
            if self._closed:
                return
            pts_s = index / self.fps
            receipt = gate(pts_s)
            if receipt is None:
                continue
            started_ns = time.perf_counter_ns()
            pixels = _read_image(image)
            if pixels is None:
                broken.append(image.name)
                continue
            pixels = gain(pixels, pts_s)
            decode_ns = time.perf_counter_ns() - started_ns
            yield Picture(pixels, pts_s, receipt.mono_ns, receipt.utc_ns, None, decode_ns)
        if broken:
            read = len(self._images) - len(broken)
            raise SourceError(f"{self._path}: not images: {', '.join(broken[:5])}; {read} frames were read")

    def close(self) -> None:
        self._closed = True


def _read_image(path: Path) -> NDArray[Any] | None:
    """As `decoded`."""
    try:
        return decoded(np.fromfile(path, np.uint8))
    except OSError:
        return None
