"""Recordings: a path in; the videos and image sequences that it stands for out, each opened as a source."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.capture.decoding import ASSUMED_FPS
from pipeline.capture.images import IMAGE_SUFFIXES, NUMBER, ImageSequence, is_file_with, naturally, sequence
from pipeline.capture.picture import Picture, Recording
from pipeline.capture.video_file import VIDEO_SUFFIXES, VideoFile
from pipeline.errors import SourceError

ALLOWED = (
    f"a video ({' '.join(VIDEO_SUFFIXES)}), a folder with videos, a folder of images ({' '.join(IMAGE_SUFFIXES)}), "
    "or a pattern such as frame_%05d.png"
)


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


def open_recording(path: Path, fps: float | None = None, *, one_by_one: bool = False) -> Recording:
    """`fps` replaces the times of a video, and gives those of images (25 a second if left out).

    `one_by_one`: decode as for a live camera, which needs each picture before the next one is there.
    """
    images = sequence(path)
    if images:
        return ImageSequence(path, images, fps or ASSUMED_FPS)
    if path.is_file():
        return VideoFile(path, fps, one_by_one)
    problem = "holds no images" if path.is_dir() else "does not exist"
    raise SourceError(f"{path}: {problem}; allowed: {ALLOWED}")


def frame_count(path: Path) -> int | None:
    """How many pictures a recording says it has; None: it does not say."""
    images = sequence(path)
    if images:
        return ImageSequence(path, images, ASSUMED_FPS).stated_count
    video = VideoFile(path)
    try:
        return video.stated_count
    finally:
        video.close()


class Playlist:
    """Recordings one after another as one, with times that go on.  Faults are raised after the last of them."""

    live = False

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._current: Recording | None = open_recording(paths[0])
        self.fps, self.codec = self._current.fps, self._current.codec
        self._closed = False

    def pictures(self) -> Iterator[Picture]:
        start_s, faults = 0.0, []
        for path in self._paths:
            try:
                recording = self._current = self._current or open_recording(path)
            except SourceError as error:
                faults.append(str(error))
                continue
            try:
                for picture in recording.pictures():
                    yield replace(picture, pts_s=start_s + picture.pts_s)
            except SourceError as error:
                faults.append(str(error))
            start_s += recording.length_s
            recording.close()
            self._current = None
            if self._closed:
                return
        if faults:
            raise SourceError("; ".join(faults))

    def close(self) -> None:
        self._closed = True
        current = self._current
        if current is not None:
            current.close()
