"""Frames -> Detections: preprocessing, inference, post-processing and second-stage classification.

`submit` starts inference and returns at once; `finish` waits for it, so that one batch is post-processed while the
device has the next.  The segmentation worker and the replay share this code; it knows no sockets.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model.engine.engine import Engine
from model.preprocess import prepare
from pipeline.config.models import Camera
from pipeline.segmentation.camera_motion import CameraMotion
from pipeline.segmentation.classify import MAX_CLASSIFIED, ClassifierCache, crops
from pipeline.segmentation.postprocess import MapView, Polygon, Region, detect
from pipeline.types import Detections, Frame


@dataclass(frozen=True)
class CameraView:
    """What the configuration says about a camera's frames: scale, mask polygons and region of interest."""

    scale: float | None = None
    ignore: Sequence[Polygon] = ()
    region: Region | None = None  # x0, y0, x1, y1 in frame pixels

    def roi(self, size_px: tuple[int, int]) -> Region:
        """Return the part of a frame of this size to process: all of it where the region lies outside."""
        width, height = size_px
        x0, y0, x1, y1 = self.region or (0, 0, width, height)
        inside = x0, y0, min(x1, width), min(y1, height)
        return inside if x0 < inside[2] and y0 < inside[3] else (0, 0, width, height)


def views_of(cameras: Iterable[Camera]) -> dict[str, CameraView]:
    """Return the view of each camera, by camera id."""
    return {camera.id: CameraView(camera.scale, camera.ignore, camera.region) for camera in cameras}


@dataclass(eq=False)
class Batch:
    """Frames of one input size whose inference was started.

    Attributes:
        frames: in the order of `probabilities`.
        views: how each was prepared: its camera's configuration may have changed by the time it is finished.
        probabilities: float32 (N, classes, h, w).
        started_ns: when it was submitted, on the monotonic clock.
        inferred_ns: when inference ended; 0: not yet.
    """

    frames: list[Frame]
    views: list[MapView]
    probabilities: "Future[NDArray[np.float32]]"
    started_ns: int = field(default_factory=time.monotonic_ns)
    inferred_ns: int = 0

    def __post_init__(self) -> None:
        self.probabilities.add_done_callback(self._inferred)

    def _inferred(self, _: object) -> None:
        self.inferred_ns = time.monotonic_ns()


class _CameraState:
    """What is kept of a camera's earlier frames."""

    def __init__(self, max_classified: int) -> None:
        self.motion = CameraMotion()
        self.classifier_cache = ClassifierCache(max_classified)


class Segmenter:
    """Run inference on frames.

    Args:
        engine: the inference engine with its checkpoint.
        threshold: replaces the checkpoint's pixel threshold of both bands.
        views: by camera id; a camera without one is prepared as the checkpoint says.
        max_classified: detections of a frame that the second stage classifies.
    """

    def __init__(
        self,
        engine: Engine,
        threshold: float | None = None,
        views: dict[str, CameraView] | None = None,
        max_classified: int = MAX_CLASSIFIED,
    ) -> None:
        self.engine = engine
        self._max_classified = max_classified
        changes = {} if threshold is None else {"threshold": threshold}
        self.thresholds = {band: replace(one, **changes) for band, one in engine.metadata.thresholds.items()}
        self.classes = engine.metadata.classes
        self._views = views or {}
        self._states: dict[tuple[str, str], _CameraState] = {}  # by camera and session

    def watch(self, views: dict[str, CameraView]) -> None:
        """Set the cameras from now on; forget all others."""
        self._views = views
        self._states = {key: state for key, state in self._states.items() if key[0] in views}

    def fork(self, camera: str) -> "Segmenter":
        """Return a segmenter with the same engine that continues from a copy of one camera's state."""
        forked = copy(self)
        forked._states = {key: deepcopy(state) for key, state in self._states.items() if key[0] == camera}
        return forked

    def submit(self, frames: Sequence[Frame]) -> list[Batch]:
        """Start inference on these frames, one batch for each input size."""
        groups: dict[tuple[int, ...], list[tuple[Frame, NDArray[np.uint8], MapView]]] = {}
        for frame in frames:
            view = self._views.get(frame.ref.camera, CameraView())
            region = x0, y0, x1, y1 = view.roi(frame.size_px)
            roi = frame.pixels[y0:y1, x0:x1]
            image, scale = prepare(roi, frame.band, self.engine.metadata.preprocessing, view.scale)
            groups.setdefault(image.shape, []).append((frame, image, MapView(scale, region, view.ignore)))
        return [
            Batch(
                [frame for frame, _, _ in group],
                [view for _, _, view in group],
                self.engine.submit(np.stack([image for _, image, _ in group])),
            )
            for group in groups.values()
        ]

    def finish(self, batch: Batch) -> list[Detections]:
        """Wait for the batch and return each frame's detections, classified.  Raise what inference raised.

        A camera's frames must be finished in their order.
        """
        return self.classify(batch.frames, self.detect(batch))

    def detect(self, batch: Batch) -> list[Detections]:
        """Wait for the batch and return each frame's detections with the network's own class scores.

        A camera's frames must be finished in their order.  Raise what inference raised.
        """
        maps = batch.probabilities.result()
        return [
            detect(
                probabilities,
                frame,
                view,
                self.classes,
                self.thresholds[frame.band],
                self._state(frame).motion.update(frame.pixels),
            )
            for frame, view, probabilities in zip(batch.frames, batch.views, maps, strict=True)
        ]

    def classify(self, frames: Sequence[Frame], detections: Sequence[Detections]) -> list[Detections]:
        """Return the detections with the second-stage classifier's scores, where the checkpoint has one.

        A camera's frames must come in their order.
        """
        classifier, config = self.engine.classify, self.engine.metadata.classifier
        if classifier is None or config is None:
            return list(detections)
        pairs = list(zip(frames, detections, strict=True))
        due = [
            self._state(frame).classifier_cache.due(one, one.large(self.thresholds[one.band].min_area_px))
            for frame, one in pairs
        ]
        stacked = np.concatenate(
            [crops(frame.pixels, one, rows, config) for (frame, one), rows in zip(pairs, due, strict=True)]
        )
        scores = iter(classifier(stacked) if len(stacked) else ())
        return [
            self._state(frame).classifier_cache.with_class_scores(
                one, config.classes, dict(zip(rows, scores, strict=False))
            )
            for (frame, one), rows in zip(pairs, due, strict=True)
        ]

    def _state(self, frame: Frame) -> _CameraState:
        key = (frame.ref.camera, frame.ref.session)
        if key not in self._states:  # a new session: forget the camera's earlier ones
            self._states = {other: state for other, state in self._states.items() if other[0] != frame.ref.camera}
            self._states[key] = _CameraState(self._max_classified)
        return self._states[key]
