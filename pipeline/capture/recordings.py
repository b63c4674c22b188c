"""Recordings: a path in; the videos and image sequences that it stands for out, each opened as a source."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from pipeline.capture.decoding import ASSUMED_FPS, OpenVideo
from pipeline.capture.images import IMAGE_SUFFIXES, NUMBER, ImageSequence, is_file_with, naturally, sequence
from pipeline.capture.source import DecodedFrame, Recording
from pipeline.capture.video_file import VIDEO_SUFFIXES, VideoFile
from pipeline.errors import SourceError

ALLOWED = (
    f"a video ({' '.join(VIDEO_SUFFIXES)}), a folder with videos, a folder of images ({' '.join(IMAGE_SUFFIXES)}), "
    "or a pattern such as frame_%05d.png"
)
STREAM = re.compile(r"(.*)[?&]stream=(\d+)")


def find_recordings(path: Path) -> list[Path]:
    """A file or pattern: itself.  A folder: the videos in and below it, or, where there are none, itself as images."""
    if path.is_file() or sequence(path):
        return [path]
    if not path.is_dir():
        problem = "matches no file" if NUMBER.search(path.name) else "does not exist"
        raise SourceError(f"{path}: {problem}; allowed: {ALLOWED}")
    videos = [file for file in path.rglob("*") if is_file_with(file, VIDEO_SUFFIXES)]
    if videos:
        return sorted(videos, key=naturally)
    if sequence(path):
        return [path]
    raise SourceError(f"{path}: holds no recording; allowed: {ALLOWED}")


def open_recording(
    path: Path, fps: float | None = None, *, one_by_one: bool = False, stream: int | None = None
) -> VideoFile | ImageSequence:
    """`fps` replaces the times of a video, and gives those of images (25 a second if left out).

    `one_by_one`: decode as for a live camera, which needs each picture before the next one is there.
    `stream`: the index of a video's stream; left out, see `streams.choose`.
    """
    images = sequence(path)
    if images:
        return ImageSequence(path, images, fps or ASSUMED_FPS)
    if path.is_file():
        return VideoFile(path, fps, one_by_one, stream)
    problem = "holds no images" if path.is_dir() else "does not exist"
    raise SourceError(f"{path}: {problem}; allowed: {ALLOWED}")


def source_names(paths: Sequence[Path], roots: Sequence[Path]) -> list[str]:
    """What to call recordings found in the roots: by file name, equally named ones by relative path."""
    if not paths:
        return []
    common = os.path.commonpath([root.absolute() if root.is_dir() else root.absolute().parent for root in roots])
    counts = Counter(path.name for path in paths)
    return [path.name if counts[path.name] == 1 else os.path.relpath(path.absolute(), common) for path in paths]


def frame_count(path: Path) -> int | None:
    """How many pictures a recording says it has; None: it does not say."""
    recording = open_recording(path)
    try:
        return recording.stated_count
    finally:
        recording.close()


def split_stream(place: str) -> tuple[str, int | None]:
    """`film.mkv?stream=1`: the path, and the index of the stream to read; None: the film's own choice."""
    match = None if Path(place).exists() else STREAM.fullmatch(place)
    return (match[1], int(match[2])) if match else (place, None)


class Playlist:
    """Recordings one after another as one, with times that go on.  Faults are raised after the last of them."""

    live = False

    def __init__(self, paths: list[Path], stream: int | None = None) -> None:
        self._paths, self._stream = paths, stream
        self._current: Recording | None = self._open(paths[0])
        self.fps, self.codec = self._current.fps, self._current.codec
        self._lost = 0  # in those read to their end
        self._closed = False

    @property
    def lost(self) -> int:
        return self._lost + (self._current.lost if self._current else 0)

    def frames(self) -> Iterator[DecodedFrame]:
        start, start_s, faults = 0, 0.0, []
        for path in self._paths:
            try:
                recording = self._current = self._current or self._open(path)
            except SourceError as error:
                faults.append(str(error))
                continue
            try:
                for picture in recording.frames():
                    yield replace(picture, number=start + picture.number, pts_s=start_s + picture.pts_s)
            except SourceError as error:
                faults.append(str(error))
            start, start_s = start + recording.count, start_s + recording.length_s
            self._lost, self._current = self._lost + recording.lost, None
            recording.close()
            if self._closed:
                return
        if faults:
            raise SourceError("; ".join(faults))

    def close(self) -> None:
        self._closed = True
        current = self._current
        if current is not None:
            current.close()

    def _open(self, path: Path) -> Recording:
        recording = open_recording(path, stream=self._stream)
        log_other_streams(recording, file=path.name)
        return recording


def log_other_streams(source: object, **where: str) -> None:
    """Name the video streams of a container that are not read."""
    if isinstance(source, OpenVideo) and source.other_streams:
        log = structlog.get_logger().bind(**where)
        log.info("other video streams are not read", stream=source.stream, others=", ".join(source.other_streams))
