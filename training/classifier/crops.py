"""Crops of targets, for the classifier to learn from: cut around labels, and around what the network itself finds.

In: labelled recordings and a checkpoint.  Out: square crops with some room around them, so that a sample can be turned
and shifted, and what each shows.  What the network finds where nothing is labelled is clutter.  They are kept on disk:
finding takes minutes.
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
from training.datasets import LABEL_OF, LabelledFrame, LabelledObject, Recording
from training.masks import Image

ROOM = 1.5  # how much more a kept crop shows on each axis than one in use
NEAR = 1.0  # box lengths; a detection farther from a label's middle is something else
MOST = 8  # of what is found in a frame, the largest
VERSION = 1  # raise when the crops change


@dataclass(frozen=True)
class Targets:
    """Equal-length arrays, one entry a crop."""

    crops: npt.NDArray[np.uint8]  # (N, S, S, 3) RGB
    classes: npt.NDArray[np.int64]  # into the classifier's
    recordings: npt.NDArray[np.int64]  # crops of one resemble each other
    infrared: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.crops)


def targets_of(
    recordings: Sequence[Recording], loaded: Loaded, how: ClassifierConfig, every: int, cache: Path
) -> Targets:
    """Of every `every`-th frame, from the cache where an earlier call with the same settings left them.

    Raises BrokenDataError for what cannot be decoded.
    """
    cut = how.classes, how.crop_px, how.context, how.least_px
    about = [VERSION, _finding(loaded), cut, every, [recording.settings() for recording in recordings]]
    digest = hashlib.sha256(json.dumps(about, default=str).encode()).hexdigest()[:16]
    path = cache / f"targets-{digest}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = []
        with Engine(loaded) as engine:
            segmenter = Segmenter(engine)
            for number, recording in enumerate(recordings):
                for frame in recording.read(range(0, len(recording), every)):
                    for crop, name in _shown(frame, recording, segmenter, how):
                        found.append((crop, how.classes.index(name), number, recording.sensor == "infrared"))
        crops, classes, numbers, infrared = zip(*found, strict=True) if found else ([], [], [], [])
        partial = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, crops=np.array(crops), classes=classes, recordings=numbers, infrared=infrared)
        partial.replace(path)
    with np.load(path) as kept:
        return Targets(kept["crops"], kept["classes"], kept["recordings"], kept["infrared"])


def _finding(loaded: Loaded) -> list[object]:
    """All of a checkpoint that decides what it finds, not what it calls it."""
    weights = hashlib.sha256()
    for tensor in loaded.network.state_dict().values():
        weights.update(tensor.numpy().tobytes())
    found = {
        band: replace(one, uav_evidence=0.0, distractor_evidence=0.0) for band, one in loaded.metadata.decision.items()
    }
    return [weights.hexdigest(), asdict(loaded.metadata.preprocessing), str(found)]


def _shown(
    frame: LabelledFrame, recording: Recording, segmenter: Segmenter, how: ClassifierConfig
) -> Iterator[tuple[Image, str]]:
    """Crops of a frame, and the classes of what they show."""
    for labelled in frame.objects:
        yield cut_out(frame.image, labelled.xyxy, recording.sensor, how, ROOM), _class_of(labelled)
    ref = FrameRef(recording.name, recording.name, frame.number, float(frame.number), 0, 0)
    whole = Frame(ref, Band(recording.sensor), frame.image)
    (batch,) = segmenter.submit([whole])
    (detections,) = segmenter.detect(batch)
    for box, centre in zip(detections.xyxy[:MOST].tolist(), detections.centroid[:MOST].tolist(), strict=True):
        item = _nearest(frame.objects, *centre)
        yield cut_out(frame.image, box, recording.sensor, how, ROOM), _class_of(item) if item else CLUTTER


def _nearest(objects: Sequence[LabelledObject], x: float, y: float) -> LabelledObject | None:
    """The object that a point belongs to."""

    def apart(item: LabelledObject) -> float:
        x0, y0, x1, y1 = item.xyxy
        return max(abs(x - (x0 + x1) / 2) / (x1 - x0), abs(y - (y0 + y1) / 2) / (y1 - y0))

    nearest = min(objects, key=apart, default=None)
    return nearest if nearest is not None and apart(nearest) <= NEAR else None


def _class_of(item: LabelledObject) -> str:
    return CLASSES[LABEL_OF[item.object_class] - 1]
