"""Recordings: a path in; its videos and image sequences out, each opened as a source."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from pipeline.capture.decoding import ASSUMED_FPS
from pipeline.capture.images import IMAGE_SUFFIXES, NUMBER, ImageSequence, is_file_with, natural_order, sequence
from pipeline.capture.open_video import OpenVideo
from pipeline.capture.source import CodedPacket, DecodedFrame, PacketSink, Recording
from pipeline.capture.video_file import VIDEO_SUFFIXES, VideoFile
from pipeline.errors import SourceError

ACCEPTED = (
    f"a video ({' '.join(VIDEO_SUFFIXES)}), a folder with videos, a folder of images ({' '.join(IMAGE_SUFFIXES)}), "
    "or a pattern such as frame_%05d.png"
)
STREAM = re.compile(r"(.*)[?&]stream=(\d+)")


def find_recordings(path: Path) -> list[Path]:
    """Return a file or pattern itself; of a folder all videos in and below it, or itself if it holds only images."""
    if path.is_file() or sequence(path):
        return [path]
    if not path.is_dir():
        problem = "matches no file" if NUMBER.search(path.name) else "does not exist"
        raise SourceError(f"{path}: {problem}; expected {ACCEPTED}")
    videos = [file for file in path.rglob("*") if is_file_with(file, VIDEO_SUFFIXES)]
    if videos:
        return sorted(videos, key=natural_order)
    if sequence(path):
        return [path]
    raise SourceError(f"{path}: contains no recording; expected {ACCEPTED}")


def open_recording(
    path: Path, fps: float | None = None, *, low_delay: bool = False, stream: int | None = None
) -> VideoFile | ImageSequence:
    """Open a video or an image sequence.  Raise SourceError.

    Args:
        path: of a video, a folder of images, a printf pattern, or an image.
        fps: replaces the times of a video, and sets those of images (default 25 frames/s).
        low_delay: decode as for a live camera, which needs each frame before the next one arrives.
        stream: index of a video's stream; by default see `streams.choose`.
    """
    images = sequence(path)
    if images:
        return ImageSequence(path, images, fps or ASSUMED_FPS)
    if path.is_file():
        return VideoFile(path, fps, low_delay, stream)
    problem = "contains no images" if path.is_dir() else "does not exist"
    raise SourceError(f"{path}: {problem}; expected {ACCEPTED}")


def source_names(paths: Sequence[Path], roots: Sequence[Path]) -> list[str]:
    """Return names for recordings found in the roots: file names, or relative paths where file names are equal."""
    if not paths:
        return []
    common = os.path.commonpath([root.absolute() if root.is_dir() else root.absolute().parent for root in roots])
    counts = Counter(path.name for path in paths)
    return [path.name if counts[path.name] == 1 else os.path.relpath(path.absolute(), common) for path in paths]


def frame_count(path: Path) -> int | None:
    """Return the number of frames that a recording declares; None if it does not."""
    recording = open_recording(path)
    try:
        return recording.stated_count
    finally:
        recording.close()


def split_stream(place: str) -> tuple[str, int | None]:
    """Return path and stream index of `film.mkv?stream=1`; None for the default stream."""
    match = None if Path(place).exists() else STREAM.fullmatch(place)
    return (match[1], int(match[2])) if match else (place, None)


class Playlist:
    """Recordings one after another as one, with continuous times.  Errors are raised after the last of them."""

    live = False
    on_packet: PacketSink | None = None

    def __init__(self, paths: list[Path], stream: int | None = None) -> None:
        self._paths, self._stream = paths, stream
        self._current: Recording | None = self._open(paths[0])
        self.fps, self.codec = self._current.fps, self._current.codec
        self._lost_before = 0  # in the recordings read to their end
        self._closed = False

    @property
    def lost(self) -> int:
        """Return how many frames could not be decoded so far."""
        return self._lost_before + (self._current.lost if self._current else 0)

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield the frames of all recordings."""
        start, start_s, errors = 0, 0.0, []
        for path in self._paths:
            try:
                recording = self._current = self._current or self._open(path)
            except SourceError as error:
                errors.append(str(error))
                continue
            try:
                for frame in recording.frames():
                    yield replace(frame, number=start + frame.number, pts_s=start_s + frame.pts_s)
            except SourceError as error:
                errors.append(str(error))
            start, start_s = start + recording.count, start_s + recording.length_s
            self._lost_before, self._current = self._lost_before + recording.lost, None
            recording.close()
            if self._closed:
                return
        if errors:
            raise SourceError("; ".join(errors))

    def close(self) -> None:
        """End `frames`, from any thread."""
        self._closed = True
        current = self._current
        if current is not None:
            current.close()

    def _pass_on(self, packet: CodedPacket) -> None:
        if self.on_packet is not None:
            self.on_packet(packet)

    def _open(self, path: Path) -> Recording:
        recording = open_recording(path, stream=self._stream)
        recording.on_packet = self._pass_on
        log_other_streams(recording, file=path.name)
        return recording


def log_other_streams(source: object, **where: str) -> None:
    """Log the video streams of a container that are not read."""
    if isinstance(source, OpenVideo) and source.other_streams:
        log = structlog.get_logger().bind(**where)
        log.info("other video streams are not read", stream=source.stream, others=", ".join(source.other_streams))
