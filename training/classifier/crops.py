"""Training crops of the classifier: cut around labels, and around the network's own detections.

In: labelled recordings and a checkpoint.  Out: square crops with a margin, so that a sample can be rotated and shifted,
and their classes.  Detections where nothing is labelled are clutter.  Crops are cached: inference takes minutes.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.checkpoint import Loaded
from model.engine.engine import Engine
from model.metadata import CLASSES, CLUTTER, ClassifierConfig
from pipeline.segmentation.classify import cut_out
from pipeline.segmentation.segmenter import Segmenter
from pipeline.types import Band, Frame, FrameRef
from training.datasets import LABEL_OF, LabelledFrame, LabelledObject, LabelledRecording
from training.masks import Image

MARGIN = 1.5  # side of a cached crop in sides of one in use
MAX_DISTANCE = 1.0  # from a label's centre, in box lengths; farther detections are clutter
MAX_DETECTIONS = 8  # per frame, the largest
VERSION = 1  # increment when the crops change


@dataclass(frozen=True)
class TargetCrops:
    """Crops and their classes: arrays of one length, one entry per crop."""

    crops: npt.NDArray[np.uint8]  # (N, S, S, 3) RGB
    classes: npt.NDArray[np.int64]  # index into the classifier's classes
    recordings: npt.NDArray[np.int64]  # number of the recording: crops of one resemble each other
    infrared: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.crops)


def collect_crops(
    recordings: Sequence[LabelledRecording], loaded: Loaded, how: ClassifierConfig, every: int, cache: Path
) -> TargetCrops:
    """Return crops of every `every`-th frame, from the cache where an earlier call with the same settings left them.

    Raise BrokenDataError for recordings that cannot be decoded.
    """
    cut = how.classes, how.crop_px, how.context, how.least_px
    settings = [VERSION, _detection_settings(loaded), cut, every, [recording.settings() for recording in recordings]]
    digest = hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:16]
    path = cache / f"targets-{digest}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = []
        with Engine(loaded) as engine:
            segmenter = Segmenter(engine)
            for number, recording in enumerate(recordings):
                for frame in recording.read(range(0, len(recording), every)):
                    for crop, name in _crops_of(frame, recording, segmenter, how):
                        found.append((crop, how.classes.index(name), number, recording.sensor == "infrared"))
        crops, classes, numbers, infrared = zip(*found, strict=True) if found else ([], [], [], [])
        partial = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, crops=np.array(crops), classes=classes, recordings=numbers, infrared=infrared)
        partial.replace(path)
    with np.load(path) as kept:
        return TargetCrops(kept["crops"], kept["classes"], kept["recordings"], kept["infrared"])


def _detection_settings(loaded: Loaded) -> list[object]:
    """Return the parts of a checkpoint that decide its detections, not their labels."""
    weights = hashlib.sha256()
    for tensor in loaded.network.state_dict().values():
        weights.update(tensor.numpy().tobytes())
    found = {
        band: replace(one, uav_log_odds=0.0, distractor_log_odds=0.0)
        for band, one in loaded.metadata.thresholds.items()
    }
    return [weights.hexdigest(), asdict(loaded.metadata.preprocessing), str(found)]


def _crops_of(
    frame: LabelledFrame, recording: LabelledRecording, segmenter: Segmenter, how: ClassifierConfig
) -> Iterator[tuple[Image, str]]:
    """Yield the crops of a frame and their classes."""
    for labelled in frame.objects:
        yield cut_out(frame.image, labelled.xyxy, recording.sensor, how, MARGIN), _class_of(labelled)
    ref = FrameRef(recording.name, recording.name, frame.number, float(frame.number), 0, 0)
    whole = Frame(ref, Band(recording.sensor), frame.image)
    (batch,) = segmenter.submit([whole])
    (detections,) = segmenter.detect(batch)
    for box, centre in zip(
        detections.xyxy[:MAX_DETECTIONS].tolist(), detections.centroid[:MAX_DETECTIONS].tolist(), strict=True
    ):
        item = _nearest(frame.objects, *centre)
        yield cut_out(frame.image, box, recording.sensor, how, MARGIN), _class_of(item) if item else CLUTTER


def _nearest(objects: Sequence[LabelledObject], x: float, y: float) -> LabelledObject | None:
    """Return the object that a point belongs to; None where it is too far from any."""

    def distance(item: LabelledObject) -> float:
        x0, y0, x1, y1 = item.xyxy
        return max(abs(x - (x0 + x1) / 2) / (x1 - x0), abs(y - (y0 + y1) / 2) / (y1 - y0))

    nearest = min(objects, key=distance, default=None)
    return nearest if nearest is not None and distance(nearest) <= MAX_DISTANCE else None


def _class_of(item: LabelledObject) -> str:
    return CLASSES[LABEL_OF[item.object_class] - 1]
