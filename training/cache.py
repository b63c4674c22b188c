"""Decoded frames of labelled clips with their pseudo-masks, kept on disk as JPEG and PNG in one file.

In: clips and which of their frames.  Out: `Frames`, read through a memory map: an image (H, W, 3) RGB uint8 and a
label map (H, W) uint8 (0 background, 1 + index into CLASSES) a frame.  The folder's name is a digest of all settings.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import cv2
import numpy as np

from training.labels import Clip, LabelledObject
from training.masks import Box, Image, box_mask

CLASSES = ("uav", "bird", "airplane", "helicopter")
LABEL_OF = {"drone": 1, "bird": 2, "airplane": 3, "helicopter": 4}
JPEG_QUALITY = 95
VERSION = 2  # raise when masks or encoding change


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
        self._bytes = np.memmap(folder / "frames.bin", dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return sum(len(clip.frames) for clip in self.clips)

    def read(self, frame: CachedFrame) -> tuple[Image, Image]:
        """Image (H, W, 3) RGB and label map (H, W)."""
        middle = frame.offset + frame.image_bytes
        image = cv2.imdecode(self._bytes[frame.offset : middle], cv2.IMREAD_COLOR_RGB)
        mask = cv2.imdecode(self._bytes[middle : middle + frame.mask_bytes], cv2.IMREAD_GRAYSCALE)
        return cast(Image, image), cast(Image, mask)


def every_nth(clips: Iterable[Clip], drones: int, others: int) -> dict[str, list[int]]:
    """Frame numbers a clip: every `drones`-th of drone clips, every `others`-th of the rest."""
    return {
        clip.name: list(range(0, len(clip.frames), drones if clip.clip_class == "drone" else others)) for clip in clips
    }


def cached(folder: str | Path, clips: Sequence[Clip], numbers: dict[str, list[int]]) -> Frames:
    """The wanted frames, decoding the clips unless an earlier call with the same settings did."""
    settings = [VERSION, JPEG_QUALITY, [(asdict(clip), numbers[clip.name]) for clip in clips]]
    digest = hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:16]
    place = Path(folder) / digest
    if not (place / "index.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        partial = place / f"frames.{os.getpid()}.partial"
        with partial.open("wb") as file:
            rows = [_store(file, clip, set(numbers[clip.name])) for clip in clips]
        partial.replace(place / "frames.bin")
        index = place / f"index.{os.getpid()}.partial"
        index.write_text(json.dumps(rows))
        index.replace(place / "index.json")
    return Frames(place)


def label_map(image: Image, objects: Iterable[LabelledObject]) -> Image:
    """Pseudo-masks of all objects in one map."""
    labels = np.zeros(image.shape[:2], np.uint8)
    for item in objects:
        mask, left, top = box_mask(image, item.xyxy)
        labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = LABEL_OF[item.object_class]
    return labels


def _row(item: dict[str, Any]) -> CachedFrame:
    boxes = tuple(tuple(box) for box in item["boxes"])
    return CachedFrame(**{**item, "labels": tuple(item["labels"]), "boxes": boxes})


def _store(file: BinaryIO, clip: Clip, numbers: set[int]) -> dict[str, Any]:
    frames = []
    with av.open(str(clip.path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, decoded in enumerate(container.decode(video=0)):
            if number not in numbers or number >= len(clip.frames):
                continue
            image = np.asarray(decoded.to_ndarray(format="rgb24"), np.uint8)
            objects = clip.frames[number]
            encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
            mask = cv2.imencode(".png", label_map(image, objects))[1].tobytes()
            labels = tuple(LABEL_OF[item.object_class] for item in objects)
            boxes = tuple(item.xyxy for item in objects)
            frames.append(asdict(CachedFrame(number, file.tell(), len(encoded), len(mask), labels, boxes)))
            file.write(encoded + mask)
    return {"name": clip.name, "sensor": clip.sensor, "clip_class": clip.clip_class, "frames": frames}
