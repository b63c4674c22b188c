"""TIFF files of every sample type, uncompressed, written by hand: no encoder here writes them all."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = {"u": 1, "i": 2, "f": 3, "b": 1}
SHORT, LONG = 3, 4


def write_tiff(
    path: Path,
    pages: Sequence[NDArray[Any]],
    *,
    planar: bool = False,
    bits: int | None = None,
    photometric: int | None = None,
    order: str = "<",
    tags: dict[int, tuple[int, list[int]]] | None = None,
) -> Path:
    """Each page (H, W) or (H, W, channels).  `bits`: per sample, fewer than the array's (1: packed by rows).

    `tags`: number -> (type, values), instead of those that the page would have.
    """
    content = bytearray(struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 0))
    link = 4
    for page in pages:
        height, width = page.shape[:2]
        channels = page.shape[2] if page.ndim == 3 else 1
        samples = page.astype(page.dtype.newbyteorder(order))
        planes = (
            [samples[..., c].tobytes() for c in range(channels)] if planar and channels > 1 else [samples.tobytes()]
        )
        if bits == 1:
            planes = [np.packbits(page.astype(bool), axis=1).tobytes()]
        offsets = []
        for plane in planes:
            offsets.append(len(content))
            content += plane + b"\0" * (len(plane) % 2)
        entries: dict[int, tuple[int, list[int]]] = {
            256: (LONG, [width]),
            257: (LONG, [height]),
            258: (SHORT, [bits or page.dtype.itemsize * 8] * channels),
            259: (SHORT, [1]),
            262: (SHORT, [photometric if photometric is not None else 2 if channels >= 3 else 1]),
            273: (LONG, offsets),
            277: (SHORT, [channels]),
            278: (LONG, [height]),
            279: (LONG, [len(plane) for plane in planes]),
            284: (SHORT, [2 if planar else 1]),
            339: (SHORT, [KINDS[page.dtype.kind]] * channels),
            **(tags or {}),
        }
        encoded = []
        for number, (kind, values) in sorted(entries.items()):
            packed = struct.pack(f"{order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)
            if len(packed) > 4:
                place = len(content)
                content += packed + b"\0" * (len(packed) % 2)
                packed = struct.pack(f"{order}I", place)
            encoded.append(struct.pack(f"{order}HHI", number, kind, len(values)) + packed.ljust(4, b"\0"))
        content[link : link + 4] = struct.pack(f"{order}I", len(content))
        content += struct.pack(f"{order}H", len(encoded)) + b"".join(encoded)
        link = len(content)
        content += b"\0\0\0\0"
    path.write_bytes(bytes(content))
    return path
