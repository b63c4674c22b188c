"""A sequence of images in (a folder, a printf pattern, or one image); every frame out, with times by its number.

Where file names are numbered, a missing number is a gap.  A TIFF of several pages, as written by thermal cameras, is as
many frames.  Broken images are skipped; after the last one a SourceError names them.
"""

import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.capture.source import CodedPacket, CodedStream, DecodedFrame, FramePacer, PacketSink, unpaced
from pipeline.errors import ImageError, SourceError
from pipeline.imaging.agc import AutomaticGainControl
from pipeline.imaging.tiff_header import page_offsets

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
TIFF_SUFFIXES = (".tif", ".tiff")
CODECS = {".jpg": "mjpeg", ".jpeg": "mjpeg", ".png": "png"}  # of files that are packets as they are
NUMBER = re.compile(r"%(?:0(\d+))?d")


def is_file_with(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Return whether a path is a visible file with one of the suffixes."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def natural_order(path: Path) -> list[list[tuple[int, int, str]]]:
    """Return a key that sorts frame_10 after frame_9, folder by folder."""
    return [
        [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in re.split(r"(\d+)", part) if piece]
        for part in path.parts
    ]


def sequence(path: Path) -> list[Path]:
    """Return the images of a folder or a printf pattern, or an image's own path, in order."""
    if path.is_dir():
        return sorted((file for file in path.iterdir() if is_file_with(file, IMAGE_SUFFIXES)), key=natural_order)
    if path.is_file():
        return [path] if is_file_with(path, IMAGE_SUFFIXES) else []
    number = NUMBER.search(path.name)
    if number is None or not path.parent.is_dir():
        return []
    digits = r"(\d{%s,})" % (number[1] or 1)
    pattern = re.compile(re.escape(path.name[: number.start()]) + digits + re.escape(path.name[number.end() :]))
    numbered = [(int(match[1]), file) for file in path.parent.iterdir() if (match := pattern.fullmatch(file.name))]
    return [file for _, file in sorted(numbered)]


def frame_numbers(images: list[Path]) -> list[int]:
    """Return the 0-based frame number of each image, from the number in which the file names differ.

    The most frequent step is one frame.  Where names differ in more than a number, or the number does not rise in such
    steps (a time stamp), the images are numbered consecutively.
    """
    stems = [re.split(r"(\d+)", image.stem) for image in images]
    consecutive = list(range(len(images)))
    if len({len(stem) for stem in stems}) > 1:
        return consecutive
    differing = [pieces for pieces in zip(*stems, strict=True) if len(set(pieces)) > 1]
    if len(differing) != 1 or not all(map(str.isdecimal, differing[0])):
        return consecutive
    numbers = [int(piece) for piece in differing[0]]
    steps = Counter(after - before for before, after in pairwise(numbers))
    step = max(steps, key=lambda step: (steps[step], -step))
    if min(steps) < 1 or math.gcd(*steps) % step:
        return consecutive
    return [(number - numbers[0]) // step for number in numbers]


class ImageSequence:
    """Images as a recording; JPEG and PNG files are its packets, other files give none."""

    live = False
    on_packet: PacketSink | None = None

    def __init__(self, path: Path, images: list[Path], fps: float) -> None:
        self._path, self.fps = path, fps
        pages = [_page_count(image) for image in images]
        self._pages = [(image, page) for image, count in zip(images, pages, strict=True) for page in range(count)]
        several_pages = len(self._pages) > len(images)
        self._numbers = list(range(len(self._pages))) if several_pages else frame_numbers(images)
        self.count = self._numbers[-1] + 1
        self.length_s = self.count / fps
        self.lost = 0
        self._closed = False
        self._stream: CodedStream | None = None

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield a frame for each image."""
        return self.paced(unpaced)

    def paced(self, pacer: FramePacer) -> Iterator[DecodedFrame]:
        """Yield the frames, each when the pacer lets it pass."""
        broken: list[str] = []
        first_error = ""
        agc = AutomaticGainControl()
        for number, (image, page) in zip(self._numbers, self._pages, strict=True):
            if self._closed:
                return
            pts_s = number / self.fps
            receipt = pacer(pts_s)
            if receipt is None:
                continue
            started_ns = time.perf_counter_ns()
            try:
                pixels = _read_image(image, page)
            except ImageError as error:
                broken.append(image.name + (f" page {page + 1}" if page else ""))
                self.lost += 1
                first_error = first_error or f"{broken[0]} {error}"
                continue
            pixels = agc(pixels, pts_s)
            decode_ns = time.perf_counter_ns() - started_ns
            self._pass_on(image, (pixels.shape[1], pixels.shape[0]), pts_s)
            yield DecodedFrame(pixels, number, pts_s, receipt.mono_ns, receipt.utc_ns, None, decode_ns, stamp_s=pts_s)
        if broken:
            read = len(self._pages) - len(broken)
            names = ", ".join(broken[:5])
            raise SourceError(f"{self._path}: not images: {names}; {read} frames were read ({first_error})")

    def _pass_on(self, image: Path, size_px: tuple[int, int], pts_s: float) -> None:
        codec = CODECS.get(image.suffix.lower())
        if self.on_packet is None or codec is None:
            return
        if self._stream is None or (self._stream.codec, self._stream.size_px) != (codec, size_px):
            self._stream = CodedStream(codec, size_px)
        with suppress(OSError):  # it was just read
            self.on_packet(CodedPacket(self._stream, image.read_bytes(), pts_s, pts_s, True))

    @property
    def codec(self) -> str:
        """Return the file type of the first image."""
        return self._pages[0][0].suffix.lower().removeprefix(".")

    @property
    def stated_count(self) -> int:
        """Return the number of images."""
        return len(self._pages)

    def close(self) -> None:
        """End `frames`, from any thread."""
        self._closed = True


def _page_count(path: Path) -> int:
    """Return the number of declared pages: one that the file does not contain is reported as missing."""
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return 1
    with suppress(OSError), path.open("rb") as file:
        return max(1, sum(1 for _ in page_offsets(file)))
    return 1


def _read_image(path: Path, page: int) -> NDArray[Any]:
    """Return what `decoded` returns.  Raise ImageError."""
    from pipeline.imaging.files import decoded, decoded_page  # imported here: OpenCV is large, and no camera needs it

    try:
        return decoded_page(path, page) if page else decoded(np.fromfile(path, np.uint8))
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from error
