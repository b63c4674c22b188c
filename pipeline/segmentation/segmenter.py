"""Frames -> Detections: preprocessing, the network, masks, measurements and a closer look, with two batches in flight.

The same code serves the segmentation worker and the replay; it knows no sockets.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.engine.engine import Engine
from model.preprocess import prepare
from pipeline.config.models import Camera
from pipeline.segmentation.camera_motion import CameraMotion
from pipeline.segmentation.classify import MOST, ClassifierCache, crops
from pipeline.segmentation.postprocess import detect
from pipeline.types import Detections, Frame


@dataclass(frozen=True)
class CameraView:
    """What the configuration says about a camera's picture."""

    scale: float | None = None
    ignore: Sequence[Sequence[tuple[float, float]]] = ()
    region: tuple[int, int, int, int] | None = None  # x0, y0, x1, y1 in frame pixels

    def of(self, size_px: tuple[int, int]) -> tuple[int, int, int, int]:
        """The part of a frame of that size that is searched: all of it where the region lies outside."""
        width, height = size_px
        x0, y0, x1, y1 = self.region or (0, 0, width, height)
        inside = x0, y0, min(x1, width), min(y1, height)
        return inside if x0 < inside[2] and y0 < inside[3] else (0, 0, width, height)


def views_of(cameras: Iterable[Camera]) -> dict[str, CameraView]:
    """By camera id."""
    return {camera.id: CameraView(camera.scale, camera.ignore, camera.region) for camera in cameras}


class Batch:
    """Frames of one input size on their way through the network."""

    def __init__(
        self,
        segmenter: "Segmenter",
        frames: list[Frame],
        views: list[CameraView],
        scales: list[tuple[float, float]],
        future: "Future[NDArray[np.float32]]",
    ) -> None:
        self.frames = frames
        self.future = future
        self.started_ns = time.monotonic_ns()
        self.inferred_ns = 0
        self._segmenter = segmenter
        self._views = views  # with which they were prepared: a camera's may be another by the time they are measured
        self._scales = scales
        future.add_done_callback(self._inferred)

    def _inferred(self, _: object) -> None:
        self.inferred_ns = time.monotonic_ns()

    def found(self) -> list[Detections]:
        """In the order of `frames`, without the closer look; waits for the network.  Raises what it raised."""
        maps = self.future.result()
        return [
            self._segmenter.measure(frame, probabilities, view, scale)
            for frame, probabilities, view, scale in zip(self.frames, maps, self._views, self._scales, strict=True)
        ]

    def detections(self) -> list[Detections]:
        """The same, told apart."""
        return self._segmenter.look_closer(self.frames, self.found())


class Memory:
    """What is remembered of a camera's earlier frames."""

    def __init__(self, most_looks: int) -> None:
        self.motion = CameraMotion()
        self.looks = ClassifierCache(most_looks)


class Segmenter:
    """`views` by camera id; a camera without one is read as its checkpoint says.

    `most_looks`: targets of a frame that get a closer look.
    """

    def __init__(
        self,
        engine: Engine,
        threshold: float | None = None,
        views: dict[str, CameraView] | None = None,
        most_looks: int = MOST,
    ) -> None:
        self.engine = engine
        self._most_looks = most_looks
        changes = {} if threshold is None else {"threshold": threshold}
        self.decision = {band: replace(one, **changes) for band, one in engine.metadata.thresholds.items()}
        self.classes = engine.metadata.classes
        self._views = views or {}
        self._memory: dict[tuple[str, str], Memory] = {}  # by camera and session

    def watch(self, views: dict[str, CameraView]) -> None:
        """The cameras from now on; others are forgotten."""
        self._views = views
        self._memory = {key: memory for key, memory in self._memory.items() if key[0] in views}

    def submit(self, frames: Sequence[Frame]) -> list[Batch]:
        """Start the network on these frames, one batch for each size of input."""
        groups: dict[tuple[int, ...], list[tuple[Frame, NDArray[np.uint8], CameraView, tuple[float, float]]]] = {}
        for frame in frames:
            view = self._views.get(frame.ref.camera, CameraView())
            x0, y0, x1, y1 = view.of(frame.size_px)
            searched = frame.pixels[y0:y1, x0:x1]
            picture, scale = prepare(searched, frame.band, self.engine.metadata.preprocessing, view.scale)
            groups.setdefault(picture.shape, []).append((frame, picture, view, scale))
        return [
            Batch(
                self,
                [frame for frame, _, _, _ in group],
                [view for _, _, view, _ in group],
                [scale for _, _, _, scale in group],
                self.engine.submit(np.stack([picture for _, picture, _, _ in group])),
            )
            for group in groups.values()
        ]

    def measure(
        self, frame: Frame, probabilities: NDArray[np.float32], view: CameraView, scale: tuple[float, float]
    ) -> Detections:
        """One frame's maps to its detections.  Frames of a camera must come in their order."""
        return detect(
            probabilities,
            frame.ref,
            frame.band,
            frame.size_px,
            self.classes,
            self.decision[frame.band],
            scale,
            view.ignore,
            self._remembered(frame).motion.update(frame.pixels),
            view.of(frame.size_px),
        )

    def look_closer(self, frames: Sequence[Frame], found: Sequence[Detections]) -> list[Detections]:
        """What was found, told apart by the checkpoint's classifier, where it has one.  Frames of a camera must come in
        their order.
        """
        classify, how = self.engine.classify, self.engine.metadata.classifier
        if classify is None or how is None:
            return list(found)
        pairs = list(zip(frames, found, strict=True))
        due = [
            self._remembered(frame).looks.due(one, one.large(self.decision[one.band].min_area_px))
            for frame, one in pairs
        ]
        together = np.concatenate(
            [crops(frame.pixels, one, rows, how) for (frame, one), rows in zip(pairs, due, strict=True)]
        )
        scores = iter(classify(together) if len(together) else ())
        return [
            self._remembered(frame).looks.with_class_scores(one, how.classes, dict(zip(rows, scores, strict=False)))
            for (frame, one), rows in zip(pairs, due, strict=True)
        ]

    def _remembered(self, frame: Frame) -> Memory:
        key = (frame.ref.camera, frame.ref.session)
        if key not in self._memory:  # of earlier sessions nothing is
            self._memory = {other: memory for other, memory in self._memory.items() if other[0] != frame.ref.camera}
            self._memory[key] = Memory(self._most_looks)
        return self._memory[key]
