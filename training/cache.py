"""On-disk cache of decoded frames and masks of labelled recordings, as JPEG and PNG in one file.

In: recordings and the numbers of their frames.  Out: `CachedFrames`, read through a memory map: for each frame an image
(H, W, 3) RGB uint8 and a label map (H, W) uint8 (0 background, 1 + index into CLASSES).  The folder's name is a digest
of all settings.  The bytes of image files are stored unchanged.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import cv2
import numpy as np

from pipeline.imaging.files import quiet_decoders
from training.datasets import LABEL_OF, LabelledRecording, validate
from training.masks import Box, Image

JPEG_QUALITY = 95
VERSION = 4  # increment when masks or encoding change


@dataclass(frozen=True)
class CachedFrame:
    """A frame's position in the file, and its labelled objects."""

    number: int
    offset: int
    image_bytes: int
    mask_bytes: int
    labels: tuple[int, ...]
    boxes: tuple[Box, ...]  # xyxy, frame pixels


@dataclass(frozen=True)
class CachedClip:
    """The cached frames of one recording."""

    name: str
    sensor: str
    clip_class: str
    frames: tuple[CachedFrame, ...]


class CachedFrames:
    """All cached clips; `read` decodes one frame."""

    def __init__(self, folder: Path) -> None:
        rows = json.loads((folder / "index.json").read_text())
        self.clips = [
            CachedClip(row["name"], row["sensor"], row["clip_class"], tuple(_row(item) for item in row["frames"]))
            for row in rows
        ]
        self._folder = folder
        self._bytes = np.memmap(folder / "frames.bin", dtype=np.uint8, mode="r")

    def __reduce__(self) -> tuple[type["CachedFrames"], tuple[Path]]:
        return CachedFrames, (self._folder,)  # other processes map the file instead of receiving its bytes

    def __len__(self) -> int:
        return sum(len(clip.frames) for clip in self.clips)

    def read(self, frame: CachedFrame) -> tuple[Image, Image]:
        """Return the image (H, W, 3) RGB and the label map (H, W) of a frame."""
        middle = frame.offset + frame.image_bytes
        with quiet_decoders():  # the image may be an unchanged file with faults that decoders report
            image = cv2.imdecode(self._bytes[frame.offset : middle], cv2.IMREAD_COLOR_RGB)
        mask = cv2.imdecode(self._bytes[middle : middle + frame.mask_bytes], cv2.IMREAD_GRAYSCALE)
        return cast(Image, image), cast(Image, mask)


def every_nth(recordings: Iterable[LabelledRecording], drones: int, others: int) -> dict[str, list[int]]:
    """Return frame numbers by recording: every `drones`-th of drone recordings, every `others`-th of the rest."""
    return {
        recording.name: list(range(0, len(recording), drones if recording.clip_class == "drone" else others))
        for recording in recordings
    }


def cache_frames(
    folder: str | Path, recordings: Sequence[LabelledRecording], numbers: Mapping[str, Sequence[int]]
) -> CachedFrames:
    """Return the given frames, validated and decoded unless an earlier call with the same settings did so.

    Raise DataError for faults of the recordings.
    """
    settings = [VERSION, JPEG_QUALITY, [(recording.settings(), numbers[recording.name]) for recording in recordings]]
    digest = hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:16]
    place = Path(folder) / digest
    if not (place / "index.json").exists():
        validate(recordings)
        place.mkdir(parents=True, exist_ok=True)
        partial = place / f"frames.{os.getpid()}.partial"
        with partial.open("wb") as file:
            rows = [_store(file, recording, numbers[recording.name]) for recording in recordings]
        partial.replace(place / "frames.bin")
        index = place / f"index.{os.getpid()}.partial"
        index.write_text(json.dumps(rows))
        index.replace(place / "index.json")
    return CachedFrames(place)


def _row(item: dict[str, Any]) -> CachedFrame:
    boxes = tuple(tuple(box) for box in item["boxes"])
    return CachedFrame(**{**item, "labels": tuple(item["labels"]), "boxes": boxes})


def _store(file: BinaryIO, recording: LabelledRecording, numbers: Sequence[int]) -> dict[str, Any]:
    frames = []
    for frame in recording.read(numbers):
        encoded = frame.encoded or encoded_jpeg(frame.image)
        mask = cv2.imencode(".png", frame.labels)[1].tobytes()
        labels = tuple(LABEL_OF[item.object_class] for item in frame.objects)
        boxes = tuple(item.xyxy for item in frame.objects)
        frames.append(asdict(CachedFrame(frame.number, file.tell(), len(encoded), len(mask), labels, boxes)))
        file.write(encoded + mask)
    about = {"name": recording.name, "sensor": recording.sensor, "clip_class": recording.clip_class}
    return {**about, "frames": frames}


def encoded_jpeg(image: Image) -> bytes:
    """Return an RGB image (H, W, 3) as JPEG."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
