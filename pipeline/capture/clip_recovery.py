"""Clips that a killed capture worker left: what can be read of them stays, marked as incomplete.

In: the `.partial` files of one camera.  Out: clips with their records, or nothing where nothing can be read.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import av
import structlog

from pipeline.capture.clip_file import ERRORS, count, seal
from pipeline.store.clips import (
    PARTIAL,
    RECORD,
    ClipRecord,
    partial,
    read_record,
    record_path,
    record_without_clip,
    video_path,
    write_record,
)
from pipeline.store.metrics import ClipMetrics

REASON = "the capture worker ended while it was written"


def recover(folder: Path, camera: str, metrics: ClipMetrics) -> None:
    """Complete or remove the clips of a camera that an earlier worker was writing."""
    log = structlog.get_logger().bind(camera=camera)
    for about in sorted(folder.glob(f"*{PARTIAL}{RECORD}")):
        alert = about.name.removesuffix(PARTIAL + RECORD)
        record: ClipRecord | None = None
        try:
            record = read_record(about)
            if record.camera != camera:
                continue
            _recover(folder, record)
        except ERRORS as error:
            metrics.lost("killed")
            log.warning("clip lost: its capture worker was killed", alert=alert, reason=str(error))
            for path in (about, partial(video_path(folder, alert))):
                path.unlink(missing_ok=True)
            if record is not None:
                _write_loss(folder, record)
        else:
            metrics.written.inc()
            metrics.incomplete.inc(not record.is_complete)
            log.warning("clip recovered", alert=alert, packets=record.packets, reason=record.reason)


def _write_loss(folder: Path, record: ClipRecord) -> None:
    """Say what became of a clip, if the disk can take it."""
    lost = record_without_clip(
        record.alert,
        record.camera,
        record.session,
        record.first_detection_pts_s,
        f"{REASON}; nothing can be read of it",
    )
    with suppress(OSError):
        write_record(record_path(folder, record.alert), lost)


def _recover(folder: Path, record: ClipRecord) -> None:
    """Complete one clip.  Raise ERRORS."""
    video, about = video_path(folder, record.alert), record_path(folder, record.alert)
    if record.ended and video.exists():  # killed between the two last steps
        partial(about).replace(about)
        return
    if video.exists():
        raise ValueError("its record is missing")
    with partial(video).open("r+b") as file:
        file.truncate(complete_bytes(file))
    record.packets, record.first_pts_s, record.last_pts_s = 0, None, None
    record.covers_first_detection = False
    with av.open(str(partial(video))) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size and packet.pts is not None:
                count(record, record.zero_pts_s + float(packet.pts * packet.time_base))
    if not record.packets:
        raise ValueError("it holds no packet")
    seal(folder, record, "killed", REASON)


def complete_bytes(file: BinaryIO) -> int:
    """Return the length of a fragmented MP4 file without what follows its last complete fragment."""
    end = 0
    for kind, after in _boxes(file):
        if kind in (b"moov", b"mdat"):
            end = after
    return end


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield kind and end of each complete top-level box."""
    length, position = file.seek(0, 2), 0
    while position + 8 <= length:
        file.seek(position)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:  # 64 bits follow
            size = int.from_bytes(file.read(8), "big")
        position += size
        if size < 8 or position > length:
            return
        yield kind, position
