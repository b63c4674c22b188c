"""Clips for tests: small videos, packets in a ring, and what a clip's file holds."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from pipeline.capture.clip_recovery import complete_bytes
from pipeline.capture.source import CodedPacket, CodedStream
from pipeline.store.clips import ClipRecord, partial, read_record, record_path, video_path
from support.events import until

FPS = 25
SIZE_PX = (160, 128)
MJPEG = CodedStream("mjpeg", SIZE_PX)


def images(count: int) -> Iterator[np.ndarray[Any, Any]]:
    """Yield different images."""
    for number in range(count):
        image = np.full((SIZE_PX[1], SIZE_PX[0], 3), 40 + number % 100, np.uint8)
        image[10 + number % 90 :][:12, number * 3 % 140 :][:, :16] = (255, 20, 20 + number % 200)
        yield image


def video(path: Path, codec: str = "libx264", frames: int = 2 * FPS, group: int = 10, b_frames: int = 0) -> Path:
    options = {
        "libx264": {"g": str(group), "bf": str(b_frames), "preset": "ultrafast"},
        "libx265": {"preset": "ultrafast", "x265-params": f"keyint={group}:bframes={b_frames}:log-level=0"},
    }
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=FPS, options=options.get(codec, {}))
        stream.width, stream.height = SIZE_PX
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if b_frames:
            stream.codec_context.max_b_frames = b_frames
        for image in images(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
    return path


def jpegs(count: int) -> list[bytes]:
    return [cv2.imencode(".jpg", image)[1].tobytes() for image in images(count)]


def packet(number: int, data: bytes = b"x" * 1000, key: bool = True, stream: CodedStream = MJPEG) -> CodedPacket:
    return CodedPacket(stream, data, number / FPS, number / FPS, key)


def until_clip(folder: Path, alert: str, timeout_s: float = 20) -> ClipRecord:
    until(record_path(folder, alert).exists, timeout_s)
    return read_record(record_path(folder, alert))


def holds(folder: Path, alert: str, pts_s: float) -> bool:
    """Whether what is on the disk of a clip that is being written can be read beyond a time of its session."""
    path = partial(video_path(folder, alert))
    if not path.exists():
        return False
    content = path.read_bytes()
    try:
        opened: Any = av.open(io.BytesIO(content[: complete_bytes(io.BytesIO(content))]))
        with opened as container:
            times_s = [float(each.pts * each.time_base) for each in container.demux(video=0) if each.size]
    except av.error.InvalidDataError:  # not a fragment so far
        return False
    return bool(times_s) and read_record(partial(record_path(folder, alert))).zero_pts_s + max(times_s) > pts_s


def clip_packets(folder: Path, alert: str) -> list[Any]:
    with av.open(str(video_path(folder, alert))) as container:
        return [each for each in container.demux(video=0) if each.size]


def decoded(folder: Path, alert: str) -> list[Any]:
    with av.open(str(video_path(folder, alert))) as container:
        return list(container.decode(video=0))


def nal_units(data: bytes, length_prefixed: bool) -> list[bytes]:
    """The NAL units of an access unit, as in MP4 or with start codes."""
    if not length_prefixed:
        pieces = data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
        return [piece for piece in pieces if piece]
    units, place = [], 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        units.append(data[place + 4 : place + 4 + size])
        place += 4 + size
    return units
