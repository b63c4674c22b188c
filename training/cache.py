"""Decoded frames of labelled recordings with their masks, kept on disk as JPEG and PNG in one file.

In: recordings and which of their frames.  Out: `Frames`, read through a memory map: an image (H, W, 3) RGB uint8 and a
label map (H, W) uint8 (0 background, 1 + index into CLASSES) a frame.  The folder's name is a digest of all settings.
The bytes of image files are kept as they are.
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
from training.datasets import LABEL_OF, Recording, validate
from training.masks import Box, Image

JPEG_QUALITY = 95
VERSION = 4  # raise when masks or encoding change


@dataclass(frozen=True)
class CachedFrame:
    """Where a frame lies in the file, and its labelled objects."""

    number: int
    offset: int
    image_bytes: int
    mask_bytes: int
    labels: tuple[int, ...]
    boxes: tuple[Box, ...]  # xyxy, frame pixels


@dataclass(frozen=True)
class CachedClip:
    name: str
    sensor: str
    clip_class: str
    frames: tuple[CachedFrame, ...]


class Frames:
    """All cached clips; `read` decodes one frame."""

    def __init__(self, folder: Path) -> None:
        rows = json.loads((folder / "index.json").read_text())
        self.clips = [
            CachedClip(row["name"], row["sensor"], row["clip_class"], tuple(_row(item) for item in row["frames"]))
            for row in rows
        ]
        self._folder = folder
        self._bytes = np.memmap(folder / "frames.bin", dtype=np.uint8, mode="r")

    def __reduce__(self) -> tuple[type["Frames"], tuple[Path]]:
        return Frames, (self._folder,)  # another process maps the file too, instead of getting its bytes

    def __len__(self) -> int:
        return sum(len(clip.frames) for clip in self.clips)

    def read(self, frame: CachedFrame) -> tuple[Image, Image]:
        """Image (H, W, 3) RGB and label map (H, W)."""
        middle = frame.offset + frame.image_bytes
        with quiet_decoders():  # the image may be the file as it was found
            image = cv2.imdecode(self._bytes[frame.offset : middle], cv2.IMREAD_COLOR_RGB)
        mask = cv2.imdecode(self._bytes[middle : middle + frame.mask_bytes], cv2.IMREAD_GRAYSCALE)
        return cast(Image, image), cast(Image, mask)


def every_nth(recordings: Iterable[Recording], drones: int, others: int) -> dict[str, list[int]]:
    """Frame numbers a recording: every `drones`-th of those of drones, every `others`-th of the rest."""
    return {
        recording.name: list(range(0, len(recording), drones if recording.clip_class == "drone" else others))
        for recording in recordings
    }


def cached(folder: str | Path, recordings: Sequence[Recording], numbers: Mapping[str, Sequence[int]]) -> Frames:
    """The wanted frames, validated and decoded unless an earlier call with the same settings did.

    Raises DataError for what is wrong with the recordings.
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
    return Frames(place)


def _row(item: dict[str, Any]) -> CachedFrame:
    boxes = tuple(tuple(box) for box in item["boxes"])
    return CachedFrame(**{**item, "labels": tuple(item["labels"]), "boxes": boxes})


def _store(file: BinaryIO, recording: Recording, numbers: Sequence[int]) -> dict[str, Any]:
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
    """Of an RGB image (H, W, 3)."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
