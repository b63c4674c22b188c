"""The Anti-UAV format: JSON with `exist` (0 or 1 per frame) and `gt_rect` ([x, y, width, height] per frame, pixels).

The JSON file is beside a video (`infrared.json` and `infrared.mp4`, `IR_label.json` and `IR.mp4`, the same for visible
and RGB), beside a folder of frames of that name, or among the frames.
"""

from pathlib import Path
from typing import Any

from training.datasets.clip import Clip, open_clip
from training.datasets.images import Annotation, ImageFolder, LabelledImage, images_in, sensor_of
from training.datasets.label_files import JSON_FILES, is_number, read_json, shortened
from training.datasets.recording import DataError, LabelledObject, LabelledRecording, sensor_in, split_in

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov")
Labels = tuple[tuple[LabelledObject, ...], ...]


def read(folder: Path) -> list[LabelledRecording] | None:
    """Return the recordings, None for another format; raise DataError where labels have no frames."""
    found = [(path, content) for path in sorted(folder.rglob(JSON_FILES)) if (content := _content(path)) is not None]
    return [_recording(folder, path, content) for path, content in found] or None


def _content(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as file:
        if not {b"exist", b"gt_rect"} & set(file.read(4096).replace(b'"', b" ").split()):
            return None
    content = read_json(path, "exist and gt_rect")
    return content if isinstance(content, dict) and {"exist", "gt_rect"} <= content.keys() else None


def _recording(root: Path, path: Path, content: dict[str, Any]) -> Clip | ImageFolder:
    labels = _labels(path, content)
    inner = path.relative_to(root).with_suffix("")
    stem = path.stem.removesuffix("_label")
    split = split_in(inner.parent) or "train"
    name = inner.with_name(stem).as_posix()
    for suffix in (*VIDEO_SUFFIXES, *map(str.upper, VIDEO_SUFFIXES)):
        if (video := path.with_name(stem + suffix)).is_file():
            return open_clip(name, video, sensor_in(inner) or "infrared", split, "drone", labels)
    frames = path.with_name(stem) if path.with_name(stem).is_dir() else path.parent
    images = images_in(frames)
    if not images:
        raise DataError(f"labels {path}: no video and no frames beside it; expected {stem}.mp4, {stem}/ or images")
    if len(images) != len(labels):
        raise DataError(f"labels {path}: {len(labels)} labels for {len(images)} images in {frames}; expected one each")
    labelled = tuple(
        LabelledImage(image, annotations=_annotations(f"labels {path}: frame {number}", shown))
        for number, (image, shown) in enumerate(zip(images, labels, strict=True))
    )
    return ImageFolder(name, frames, sensor_of(inner, images), "drone", split, labelled)


def _annotations(place: str, objects: tuple[LabelledObject, ...]) -> tuple[Annotation, ...]:
    return tuple(Annotation(place, item.object_class, item.xyxy) for item in objects)


def _labels(path: Path, content: dict[str, Any]) -> Labels:
    exist, boxes = content["exist"], content["gt_rect"]
    if not isinstance(exist, list) or not isinstance(boxes, list) or len(exist) != len(boxes):
        raise DataError(f"labels {path}: exist and gt_rect differ in length; expected one entry per frame in each")
    labels = enumerate(zip(exist, boxes, strict=True))
    return tuple(_objects(f"labels {path}: frame {number}", shown, box) for number, (shown, box) in labels)


def _objects(place: str, shown: object, box: object) -> tuple[LabelledObject, ...]:
    if not shown:
        return ()
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise DataError(f"{place}: gt_rect = {shortened(box)}; expected [x, y, width, height] where exist is 1")
    x, y, width, height = (float(value) for value in box)
    return (LabelledObject(0, "drone", (x, y, x + width, y + height)),)
