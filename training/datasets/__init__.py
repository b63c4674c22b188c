"""Data sets: a folder in one of several formats in, recordings with labelled frames out.

`open_dataset` detects the format, `validate` reports all faults before training starts.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from model.metadata import CLASSES
from training.datasets import anti_uav, coco, dronedet, generator, masked, yolo
from training.datasets.clip import Clip
from training.datasets.recording import (
    CLIP_CLASSES,
    LABEL_OF,
    SENSORS,
    SPLITS,
    DataError,
    LabelledFrame,
    LabelledObject,
    LabelledRecording,
    label_map,
)
from training.datasets.validation import describe, validate

__all__ = [
    "CLASSES",
    "CLIP_CLASSES",
    "FORMATS",
    "LABEL_OF",
    "SENSORS",
    "SPLITS",
    "Clip",
    "DataError",
    "LabelledFrame",
    "LabelledObject",
    "LabelledRecording",
    "describe",
    "label_map",
    "open_dataset",
    "validate",
]

# Formats in the order in which they are tried, and their readers.
FORMATS: dict[str, Callable[[Path], Sequence[LabelledRecording] | None]] = {
    "dronedet (labels.json.gz, clips/)": dronedet.read,
    "DAS-Net (UAVSemanticSegmentationInput/ and ...Labels/, or input/ and labels/)": masked.read_original,
    "masks ({train,val,test}/{images,masks}/)": masked.read_pairs,
    "Anti-UAV (JSON with exist and gt_rect beside videos or frames)": anti_uav.read,
    "YOLO (data.yaml, images/, labels/)": yolo.read,
    "COCO (JSON with images, annotations, categories)": coco.read,
}


def open_dataset(
    folder: str | Path, splits: Collection[str] = SPLITS, names: Collection[str] = ()
) -> Sequence[LabelledRecording]:
    """Return the recordings of the given splits; only those in `names`, if any are given.

    `folder` may also be `scene:count=500,seed=1`, procedural scenes.  Nothing is decoded yet.  Raise DataError for an
    unknown format, split or name, malformed labels, and where no recording is left.
    """
    for split in splits:
        if split not in SPLITS:
            raise DataError(f"data {folder}: split is {split!r}; must be one of {', '.join(SPLITS)}")
    found = _recordings(folder, splits)
    chosen = [recording for recording in found if recording.split in splits]
    if found and not chosen:
        there = ", ".join(split for split in SPLITS if any(recording.split == split for recording in found))
        raise DataError(f"data {folder}: nothing in split {', '.join(splits)}; must be one of {there}")
    unknown = sorted(set(names) - {recording.name for recording in found})
    if unknown:
        there = ", ".join(sorted(recording.name for recording in found)[:4])
        raise DataError(f"data {folder}: no recording {unknown[0]!r}; must be one of {there} ...")
    return [recording for recording in chosen if not names or recording.name in names]


def _recordings(folder: str | Path, splits: Collection[str]) -> Sequence[LabelledRecording]:
    if str(folder).startswith(generator.PREFIX):
        return generator.read(str(folder), splits)
    path = Path(folder)
    expected = f"expected {', '.join(FORMATS)}, or scene:count=500,seed=1"
    if not path.is_dir():
        raise DataError(f"data {folder}: is not a folder; {expected}")
    for read in FORMATS.values():
        recordings = read(path)
        if recordings is not None:
            return recordings
    there = sorted(item.name + "/" * item.is_dir() for item in path.iterdir())
    raise DataError(f"data {folder}: is in no known format (found: {', '.join(there[:8]) or 'nothing'}); {expected}")
