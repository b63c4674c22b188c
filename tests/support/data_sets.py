"""Small data sets in every format, written by hand for the tests: a bright target on a grey, noisy picture."""

import gzip
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import yaml

from support.program import CLIPS, shortened
from training.datasets import DataError, LabelledFrame, open_dataset, validate

WIDTH, HEIGHT = 160, 128
TARGET = (60, 40, 72, 48)  # xyxy
XYWH = [60, 40, 12, 8]
YOLO_LINE = f"0 {66 / WIDTH} {44 / HEIGHT} {12 / WIDTH} {8 / HEIGHT}\n"
YOLO_LINES = (YOLO_LINE, "", "1" + YOLO_LINE[1:])
ORIGINAL = ("UAVSemanticSegmentationInput", "UAVSemanticSegmentationLabels")


def picture(seed: int = 0, colour: bool = False, target: bool = True) -> Any:
    """RGB (H, W, 3)."""
    image = np.repeat(np.random.default_rng(seed).normal(90, 3, (HEIGHT, WIDTH, 1)), 3, axis=2)
    if colour:
        image += (-40, 0, 60)
    if target:
        x0, y0, x1, y1 = TARGET
        image[y0:y1, x0:x1] += 90
    return np.clip(image, 0, 255).astype(np.uint8)


def mask(level: int = 255) -> Any:
    x0, y0, x1, y1 = TARGET
    made = np.zeros((HEIGHT, WIDTH), np.uint8)
    made[y0:y1, x0:x1] = level
    return made


def write(path: Path, image: Any) -> None:
    """RGB or grey, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image)[1].tobytes())


def write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_turned(path: Path, image: Any, orientation: int) -> None:
    """A JPEG that viewers turn (EXIF)."""
    directory = struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0II*\0" + directory
    content = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
    write_bytes(path, content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:])


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def write_video(path: Path, frames: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 4_000_000
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())


def original(folder: Path, names: tuple[str, str] = ORIGINAL) -> None:
    """Two sequences in train, one in val; train's second visible image has no mask."""
    for split, sequence in (("train", "s1"), ("val", "s2")):
        for sensor in ("infrared", "visible"):
            for number in range(2):
                place = Path(split) / sequence / sensor
                write(folder / names[0] / place / f"{number:04d}.jpg", picture(number))
                if (split, sensor, number) != ("train", "visible", 1):
                    write(folder / names[1] / place / f"{number:04d}_mask.png", mask())


def pairs(folder: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        write(folder / split / "images" / "a.png", picture(number, colour=split == "val"))
        write(folder / split / "masks" / "a.png", mask(1))


def dronedet(folder: Path, **changes: Any) -> None:
    write_video(folder / "clips" / "A.mp4")
    frames = [[{"id": 0, "class": "drone", "box": XYWH}]] * 7  # one more than the video
    entry = {"sensor": "infrared", "clip_class": "drone", "split": "train", "width": WIDTH, "height": HEIGHT, "fps": 25}
    with gzip.open(folder / "labels.json.gz", "wt") as file:
        json.dump({"A": {**entry, "frames": frames, **changes}}, file)


def short_clips(folder: Path, frames: int, **changes: dict[str, str]) -> Path:
    """Write the first frames of the named clips of tests/data, their labels with changes; return the folder."""
    labels = json.loads(gzip.decompress((CLIPS.parent / "labels.json.gz").read_bytes()))
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    chosen = {}
    for name, change in changes.items():
        shortened(CLIPS / f"{name}.mp4", frames, folder / "clips" / f"{name}.mp4")
        chosen[name] = labels[name] | change | {"frames": labels[name]["frames"][:frames]}
    (folder / "labels.json.gz").write_bytes(gzip.compress(json.dumps(chosen).encode()))
    return folder


def anti_uav(folder: Path) -> None:
    """A pair of videos, the older names, and frames in the folder of their labels."""
    labels = {"exist": [1, 1, 0, 1, 1, 1], "gt_rect": [XYWH, XYWH, [], XYWH, XYWH, XYWH]}
    for place, video, label in (
        ("train/s1", "infrared.mp4", "infrared.json"),
        ("train/s1", "visible.mp4", "visible.json"),
        ("val/s2", "IR.mp4", "IR_label.json"),
    ):
        write_video(folder / place / video)
        write_json(folder / place / label, labels)
    for number in range(2):
        write(folder / "test" / "s3" / f"{number:06d}.jpg", picture(number))
    write_json(folder / "test" / "s3" / "IR_label.json", {"exist": [1, 0], "gt_rect": [XYWH, []]})


def yolo(folder: Path, names: Any = ("UAV", "bird", "person"), lines: Sequence[str] = YOLO_LINES) -> None:
    """An image for each text; an empty one has no file."""
    (folder / "data.yaml").parent.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(yaml.safe_dump({"names": list(names) if isinstance(names, tuple) else names}))
    (folder / "labels" / "train").mkdir(parents=True)
    for number, text in enumerate(lines):
        write(folder / "images" / "train" / f"{number}.jpg", picture(number, colour=True))
        if text:
            (folder / "labels" / "train" / f"{number}.txt").write_text(text)


def coco(folder: Path, **changes: Any) -> None:
    """One polygon, a triangle in the target's box; one box; one category that is not learned."""
    for number in range(3):
        write(folder / "val2017" / f"{number}.jpg", picture(number, colour=True))
    x0, y0, x1, y1 = TARGET
    content = {
        "images": [{"id": number + 10, "file_name": f"{number}.jpg"} for number in range(3)],
        "categories": [{"id": 3, "name": "drone"}, {"id": 5, "name": "Aeroplane"}, {"id": 7, "name": "kite"}],
        "annotations": [
            {"image_id": 10, "category_id": 3, "bbox": XYWH, "segmentation": [[x0, y0, x1, y0, x0, y1]]},
            {"image_id": 11, "category_id": 5, "bbox": XYWH},
            {"image_id": 12, "category_id": 7, "bbox": XYWH},
        ],
    }
    write_json(folder / "annotations" / "instances_val2017.json", {**content, **changes})


def fault_of(folder: Path) -> str:
    with pytest.raises(DataError) as raised:
        validate(open_dataset(folder))
    assert raised.value.exit_code == 1
    return str(raised.value)


def only_frame(folder: Path) -> Any:
    ((frame,),) = frames_of(folder).values()
    return frame


def frames_of(folder: Path | str, *splits: str) -> dict[str, list[LabelledFrame]]:
    recordings = open_dataset(folder, splits or ("train", "val", "test"))
    validate(recordings)
    return {recording.name: list(recording.read(range(len(recording)))) for recording in recordings}
