"""The directories of a TIFF file, one for each page (TIFF 6.0, section 2; BigTIFF), without its pixels."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from pipeline.errors import ImageError

_BIG_TIFF = 43
_MAX_ENTRIES = 4096  # of one page
_VALUE_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, LONG8
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS, _PLANAR, _FORMAT = 256, 257, 258, 262, 277, 284, 339
_NEEDED = {_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS, _PLANAR, _FORMAT}
_MAX_VALUES = 16  # of one entry that is needed: one for each sample of a pixel
_FORMATS = {1: "uint", 2: "int", 3: "float", 4: "void", 5: "complex int", 6: "complex float"}
_WHITE_IS_ZERO = 0


@dataclass(frozen=True)
class TiffPage:
    """What the directory of a page declares."""

    width_px: int
    height_px: int
    channels: int
    samples: str  # "uint16", "float32", ...
    planar: bool
    white_is_zero: bool

    @property
    def described(self) -> str:
        """Return number, type and layout of the samples."""
        layout = " in separate planes" if self.planar and self.channels > 1 else ""
        return f"{self.channels} {self.samples} sample{'s' if self.channels > 1 else ''} for each pixel{layout}"


@dataclass(frozen=True)
class _Layout:
    """The struct formats of offsets and counts, which are wider in BigTIFF."""

    order: str
    first_at: int
    count: str
    entry: str
    offset: str


def page_offsets(file: BinaryIO) -> Iterator[int]:
    """Yield the offsets of the directories, including one that is declared but missing."""
    seen: set[int] = set()
    with suppress(struct.error, KeyError, OSError, OverflowError, ValueError):  # the file ends before they do
        layout = _layout(file)
        place = _next_offset(file, layout, layout.first_at)
        while place and place not in seen:
            seen.add(place)
            yield place
            file.seek(place)
            entries = _number(file, layout.order + layout.count)
            size = struct.calcsize(layout.order + layout.entry)
            place = _next_offset(file, layout, file.tell() + entries * size)


def read_page(file: BinaryIO, page: int) -> TiffPage:
    """Return the directory of a page, 0-based.  Raise ImageError if it cannot be read."""
    try:
        place = next(islice(page_offsets(file), page, None))
        tags = dict(_entries(file, _layout(file), place))
        kinds, bits = set(tags.get(_FORMAT, (1,))), set(tags.get(_BITS, (1,)))
        described = [f"{_FORMATS.get(kind, 'unknown ')}{size}" for kind in sorted(kinds) for size in sorted(bits)]
        return TiffPage(
            tags[_WIDTH][0],
            tags[_HEIGHT][0],
            tags.get(_CHANNELS, (1,))[0],
            " and ".join(described),
            tags.get(_PLANAR, (1,))[0] == 2,
            tags.get(_PHOTOMETRIC, (1,))[0] == _WHITE_IS_ZERO,
        )
    except (struct.error, StopIteration, LookupError, OSError, OverflowError, ValueError) as error:
        raise ImageError(f"is damaged: page {page + 1} of the TIFF has no readable directory") from error


def _layout(file: BinaryIO) -> _Layout:
    file.seek(0)
    order = {b"II": "<", b"MM": ">"}[file.read(2)]
    is_big = _number(file, f"{order}H") == _BIG_TIFF
    return _Layout(order, 8, "Q", "HHQ8s", "Q") if is_big else _Layout(order, 4, "H", "HHI4s", "I")


def _entries(file: BinaryIO, layout: _Layout, place: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    file.seek(place)
    count, entry = _number(file, layout.order + layout.count), struct.Struct(layout.order + layout.entry)
    if count > _MAX_ENTRIES:
        raise ValueError
    for tag, kind, values, inline in entry.iter_unpack(file.read(count * entry.size)):
        if tag not in _NEEDED:
            continue
        packed = struct.Struct(f"{layout.order}{min(values, _MAX_VALUES)}{_VALUE_TYPES[kind]}")
        if struct.calcsize(f"{layout.order}{_VALUE_TYPES[kind]}") * values <= len(inline):
            content = inline[: packed.size]
        else:
            file.seek(struct.unpack(layout.order + layout.offset, inline)[0])
            content = file.read(packed.size)
        yield tag, packed.unpack(content)


def _next_offset(file: BinaryIO, layout: _Layout, at: int) -> int:
    file.seek(at)
    return _number(file, layout.order + layout.offset)


def _number(file: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, file.read(struct.calcsize(layout)))[0])
