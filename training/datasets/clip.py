"""Videos with objects labelled by boxes, from which pseudo-masks are made."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.capture.source import DecodedFrame
from pipeline.errors import SourceError
from training.datasets.recording import (
    BrokenDataError,
    DataCheck,
    LabelledFrame,
    LabelledObject,
    LabelledRecording,
    box_fault,
    label_map,
)
from training.masks import Image


@dataclass(frozen=True)
class Clip(LabelledRecording):
    """A labelled video; `frames[k]` has the labels of decoded frame k and may be one longer than the video."""

    name: str
    path: Path
    sensor: str
    clip_class: str
    split: str
    fps: float
    width_px: int
    height_px: int
    frames: tuple[tuple[LabelledObject, ...], ...]
    camera: str = ""  # that recorded it; "": unknown

    def __len__(self) -> int:
        return len(self.frames)

    def may_show(self, number: int, object_class: str) -> bool:
        """Return whether a frame may show an object of the class."""
        return any(item.object_class == object_class for item in self.frames[number])

    def read(self, numbers: Collection[int]) -> Iterator[LabelledFrame]:
        """Yield the given frames, in order."""
        wanted = {number for number in numbers if number < len(self.frames)}
        for decoded in self.decoded():
            if decoded.number in wanted:
                image, objects = as_rgb(decoded.pixels), self.frames[decoded.number]
                yield LabelledFrame(decoded.number, image, label_map(image, objects), objects)
                wanted.remove(decoded.number)
            if not wanted:
                return

    def decoded(self) -> Iterator[DecodedFrame]:
        """Yield the labelled frames as decoded, without their labels; raise BrokenDataError."""
        from pipeline.capture.recordings import open_recording

        try:
            recording = open_recording(self.path)
            try:
                for decoded in recording.frames():
                    if decoded.number >= len(self.frames):
                        return
                    yield decoded
            finally:
                recording.close()
        except SourceError as error:
            raise BrokenDataError(f"{self.path}: cannot be decoded ({_reason(self.path, error)})") from error

    def checks(self) -> list[DataCheck]:
        """Return the checks of the data."""
        return [self._fault]

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the frames."""
        return {name: value for name, value in asdict(self).items() if name != "camera"}

    def _fault(self) -> str:
        """Return the first fault of the file, its first frame and its boxes; "" without a fault."""
        try:
            first = next(self.read([0]), None)
        except BrokenDataError as error:
            return str(error)
        if first is None:
            return f"{self.path}: holds no labelled frame; expected a video with one label per frame"
        height_px, width_px = first.image.shape[:2]
        if (width_px, height_px) != (self.width_px, self.height_px):
            stated = f"{self.width_px}x{self.height_px}"
            return f"{self.path}: has frames of {width_px}x{height_px} pixels; must be {stated}, as labelled"
        for number, objects in enumerate(self.frames):
            for item in objects:
                if fault := box_fault(item.xyxy, width_px, height_px):
                    return f"{self.path}: frame {number}: {fault}"
        return ""


def open_clip(
    name: str, path: Path, sensor: str, split: str, clip_class: str, frames: tuple[tuple[LabelledObject, ...], ...]
) -> Clip:
    """Return a clip with the video's frame rate and size; 0 where it cannot be opened, which `validate` reports."""
    from pipeline.capture.recordings import open_recording

    fps, width_px, height_px = 0.0, 0, 0
    with suppress(SourceError):
        recording = open_recording(path)
        try:
            fps = recording.fps
            if first := next(recording.frames(), None):
                height_px, width_px = first.pixels.shape[:2]
        finally:
            recording.close()
    return Clip(name, path, sensor, clip_class, split, fps, width_px, height_px, frames)


def as_rgb(pixels: NDArray[np.uint8]) -> Image:
    """Return grey pixels (H, W) as RGB; RGB (H, W, 3) unchanged."""
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _reason(path: Path, error: SourceError) -> str:
    return str(error).removeprefix(f"{path}: ")
