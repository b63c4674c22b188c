"""Small PMTiles files (version 3): every tile of every zoom is the same one."""

import struct

MVT, PNG = 1, 2  # tile types
MAX_ZOOM = 14
_NONE = 1  # compression


def pmtiles(tile: bytes, kind: int) -> bytes:
    """A file whose tiles are all this one."""
    tiles = (4 ** (MAX_ZOOM + 1) - 1) // 3
    directory = b"".join(map(_varint, (1, 0, tiles, len(tile), 1)))  # one entry: id, run, length, offset + 1
    metadata = b"{}"
    root_at = 127
    metadata_at = root_at + len(directory)
    tiles_at = metadata_at + len(metadata)
    places = (root_at, len(directory), metadata_at, len(metadata), tiles_at, 0, tiles_at, len(tile), tiles, 1, 1)
    header = b"PMTiles\x03" + struct.pack("<11Q", *places) + bytes([1, _NONE, _NONE, kind, 0, MAX_ZOOM])
    header += struct.pack("<4iB2i", -1_800_000_000, -850_000_000, 1_800_000_000, 850_000_000, 0, 0, 0)
    return header + directory + metadata + tile


def water_tile() -> bytes:
    """A vector tile: water all over."""
    square = [9, 0, 0, 26, *map(_zigzag, (4096, 0, 0, 4096, -4096, 0)), 15]  # move, three lines, close
    value = _field(4, _field(1, b"ocean"))
    feature = _varint(8 * 2 + 2) + _packed([0, 0]) + b"\x18\x03" + _field(4, b"".join(map(_varint, square)))
    layer = b"\x78\x02" + _field(1, b"water") + _field(2, feature) + _field(3, b"kind") + value + b"\x28\x80\x20"
    return _field(3, layer)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _packed(values: list[int]) -> bytes:
    content = b"".join(map(_varint, values))
    return _varint(len(content)) + content


def _field(number: int, content: bytes) -> bytes:
    return _varint(number * 8 + 2) + _varint(len(content)) + content
