"""A video whose objects are labelled by boxes; its masks are pseudo-masks."""

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.frame_size import FFMPEG_LIMIT
from training.datasets.recording import (
    BrokenDataError,
    Check,
    LabelledFrame,
    LabelledObject,
    Recording,
    box_fault,
    label_map,
)


@dataclass(frozen=True)
class Clip(Recording):
    """One labelled video; `frames[k]` belongs to the k-th decoded frame and may be one longer than the video."""

    name: str
    path: Path
    sensor: str
    clip_class: str
    split: str
    fps: float
    width_px: int
    height_px: int
    frames: tuple[tuple[LabelledObject, ...], ...]

    def __len__(self) -> int:
        return len(self.frames)

    def may_show(self, number: int, object_class: str) -> bool:
        return any(item.object_class == object_class for item in self.frames[number])

    def read(self, numbers: Collection[int]) -> Iterator[LabelledFrame]:
        import av

        wanted = {number for number in numbers if number < len(self.frames)}
        try:
            with av.open(str(self.path), options=FFMPEG_LIMIT) as container:
                container.streams.video[0].thread_type = "AUTO"
                container.streams.video[0].codec_context.options = FFMPEG_LIMIT
                for number, decoded in enumerate(container.decode(video=0)):
                    if number in wanted:
                        image = np.asarray(decoded.to_ndarray(format="rgb24"), np.uint8)
                        objects = self.frames[number]
                        yield LabelledFrame(number, image, label_map(image, objects), objects)
                        wanted.remove(number)
                    if not wanted:
                        return
        except (av.FFmpegError, IndexError) as error:
            raise BrokenDataError(f"{self.path}: cannot be decoded ({error}); allowed: a video") from error

    def checks(self) -> list[Check]:
        return [self._fault]

    def settings(self) -> dict[str, Any]:
        return asdict(self)

    def _fault(self) -> str:
        """Of the file, its first frame, and the boxes."""
        try:
            first = next(self.read([0]), None)
        except BrokenDataError as error:
            return str(error)
        if first is None:
            return f"{self.path}: holds no labelled frame; allowed: a video with one label for each frame"
        height_px, width_px = first.image.shape[:2]
        if (width_px, height_px) != (self.width_px, self.height_px):
            stated = f"{self.width_px}x{self.height_px}"
            return f"{self.path}: has frames of {width_px}x{height_px} pixels; allowed: {stated}, as labelled"
        for number, objects in enumerate(self.frames):
            for item in objects:
                if fault := box_fault(item.xyxy, width_px, height_px):
                    return f"{self.path}: frame {number}: {fault}"
        return ""


def opened_clip(
    name: str, path: Path, sensor: str, split: str, clip_class: str, frames: tuple[tuple[LabelledObject, ...], ...]
) -> Clip:
    """A clip whose frame rate and size are the video's own; 0 where it cannot be opened, which `validate` names."""
    import av

    fps, width_px, height_px = 0.0, 0, 0
    try:
        with av.open(str(path), options=FFMPEG_LIMIT) as container:
            stream = container.streams.video[0]
            fps, width_px, height_px = float(stream.average_rate or 0), stream.width, stream.height
    except (av.FFmpegError, IndexError):
        pass
    return Clip(name, path, sensor, clip_class, split, fps, width_px, height_px, frames)
