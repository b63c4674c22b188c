"""The header of an image file: format, size and sample type, read without decoding a pixel.  Pure.

The format is recognised by the content, as by OpenCV.  An unreadable header is an ImageError: nothing is decoded whose
size is unknown.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.errors import ImageError
from pipeline.imaging.frame_size import require_frame_size
from pipeline.imaging.tiff_header import TiffPage, read_page

ACCEPTED = "JPEG, PNG, TIFF, BMP, WebP, PGM, PPM, GIF, JPEG 2000"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
_MAX_PNM_HEADER = 4096
_MAX_SEGMENTS = 4096  # of a JPEG, before its first scan
_MAX_BOXES = 1000  # of a JPEG 2000 file, before its codestream
_MARKER = re.compile(rb"\xff+([^\xff\0])", re.DOTALL)
_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers of a frame's header (ITU-T T.81, table B.1)
_SOS = 0xDA
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length

Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class ImageHeader:
    """Format and size of an image file, and the page's header of a TIFF."""

    format: str
    size_px: Size
    tiff: TiffPage | None = None


def read_header(file: BinaryIO, page: int = 0) -> ImageHeader:
    """Return the header of an image, or of a page of a TIFF.

    Raise ImageError if it is not of an accepted format, or larger than the limit.
    """
    file.seek(0)
    start = file.read(32)
    header = _tiff(file, page) if start.startswith(_TIFF_STARTS) else _other(file, start)
    require_frame_size(*header.size_px)
    return header


def jpeg_sizes(data: bytes | memoryview) -> Iterator[Size]:
    """Yield width and height of every frame header before the first scan (ITU-T T.81, B.1.1).

    Bytes between two segments that belong to neither are skipped, as libjpeg does.
    """
    at = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or found[1][0] == _SOS:
            return
        marker, at = found[1][0], found.end()
        if marker in _SOF and at + 7 <= len(data):
            yield int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 3 : at + 5], "big")
        if marker not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")


def _tiff(file: BinaryIO, page: int) -> ImageHeader:
    tiff = read_page(file, page)
    return ImageHeader("TIFF", (tiff.width_px, tiff.height_px), tiff)


def _other(file: BinaryIO, start: bytes) -> ImageHeader:
    for name, begins, size_of in _READERS:
        if start.startswith(begins):
            try:
                file.seek(0)
                size_px = size_of(file)
            except (struct.error, ValueError, OverflowError):
                size_px = None
            if size_px is None:
                raise ImageError(f"is damaged: no size can be read from its {name} header")
            return ImageHeader(name, size_px)
    raise ImageError(f"is broken or no image; must be one of {ACCEPTED}")


def _png(file: BinaryIO) -> Size | None:
    _, kind, width, height = struct.unpack(">8x4s4sII", file.read(24))
    return (width, height) if kind == b"IHDR" else None


def _jpeg(file: BinaryIO) -> Size | None:
    """Return the largest of the declared sizes."""
    return max(jpeg_sizes(file.read()), key=lambda size: size[0] * size[1], default=None)


def _bmp(file: BinaryIO) -> Size | None:
    header = file.read(26)
    if struct.unpack_from("<I", header, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", header, 18)
    else:
        width, height = struct.unpack_from("<ii", header, 18)
    return width, abs(height)  # rows from the top have a negative height


def _webp(file: BinaryIO) -> Size | None:
    header = file.read(30)
    kind = header[12:16]
    if header[8:12] != b"WEBP" or len(header) < 30:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(header[24:27], "little"), 1 + int.from_bytes(header[27:30], "little")
    if kind == b"VP8L" and header[20] == 0x2F:
        bits = int.from_bytes(header[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and header[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", header, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _pnm(file: BinaryIO) -> Size | None:
    match = _PNM.match(file.read(_MAX_PNM_HEADER))
    return (int(match[1]), int(match[2])) if match else None


def _gif(file: BinaryIO) -> Size | None:
    width, height = struct.unpack("<6xHH", file.read(10))
    return width, height


def _jp2(file: BinaryIO) -> Size | None:
    """Return the size from the codestream, which is in a box of its own (ISO/IEC 15444-1, annex I)."""
    place = 0
    for _ in range(_MAX_BOXES):
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = struct.unpack(">Q", file.read(8))[0]
        if kind == b"jp2c":
            return _codestream(file)
        if length < 8:
            return None
        place += length
    return None


def _codestream(file: BinaryIO) -> Size | None:
    start, width, height, left, top = struct.unpack(">4s4xIIII", file.read(24))
    return (width - left, height - top) if start == b"\xff\x4f\xff\x51" else None


_READERS: tuple[tuple[str, bytes | tuple[bytes, ...], Callable[[BinaryIO], Size | None]], ...] = (
    ("JPEG", b"\xff\xd8\xff", _jpeg),
    ("PNG", b"\x89PNG\r\n\x1a\n", _png),
    ("BMP", b"BM", _bmp),
    ("WebP", b"RIFF", _webp),
    ("PNM", tuple(b"P%d" % number for number in range(1, 7)), _pnm),
    ("GIF", (b"GIF87a", b"GIF89a"), _gif),
    ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n", _jp2),
    ("JPEG 2000", b"\xff\x4f\xff\x51", _codestream),
)
