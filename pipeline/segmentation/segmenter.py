"""Frames -> Detections: preprocessing, the network, masks, measurements and a closer look, with two batches in flight.

The same code serves the segmentation worker and the replay; it knows no sockets.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from model.engine import Engine
from model.preprocess import prepare
from pipeline.segmentation.closer_look import crops, told_apart
from pipeline.segmentation.detect import detect
from pipeline.segmentation.motion import CameraMotion
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


class Batch:
    """Frames of one input size on their way through the network."""

    def __init__(
        self,
        segmenter: "Segmenter",
        frames: list[Frame],
        scales: list[tuple[float, float]],
        future: "Future[NDArray[np.float32]]",
    ) -> None:
        self.frames = frames
        self.future = future
        self.started_ns = time.monotonic_ns()
        self.inferred_ns = 0
        self._segmenter = segmenter
        self._scales = scales
        future.add_done_callback(self._inferred)

    def _inferred(self, _: object) -> None:
        self.inferred_ns = time.monotonic_ns()

    def found(self) -> list[Detections]:
        """In the order of `frames`, without the closer look; waits for the network.  Raises what it raised."""
        maps = self.future.result()
        return [
            self._segmenter.measure(frame, probabilities, scale)
            for frame, probabilities, scale in zip(self.frames, maps, self._scales, strict=True)
        ]

    def detections(self) -> list[Detections]:
        """The same, told apart."""
        return self._segmenter.look_closer(self.frames, self.found())


class Segmenter:
    """`views` by camera id; a camera without one is read as its checkpoint says."""

    def __init__(
        self, engine: Engine, threshold: float | None = None, views: dict[str, CameraView] | None = None
    ) -> None:
        self.engine = engine
        changes = {} if threshold is None else {"threshold": threshold}
        self.decision = {band: replace(one, **changes) for band, one in engine.metadata.decision.items()}
        self.classes = engine.metadata.classes
        self._views = views or {}
        self._motion: dict[tuple[str, str], CameraMotion] = {}

    def submit(self, frames: Sequence[Frame]) -> list[Batch]:
        """Start the network on these frames, one batch for each size of input."""
        groups: dict[tuple[int, ...], list[tuple[Frame, NDArray[np.uint8], tuple[float, float]]]] = {}
        for frame in frames:
            view = self._views.get(frame.ref.camera, CameraView())
            x0, y0, x1, y1 = view.of(frame.size_px)
            searched = frame.pixels[y0:y1, x0:x1]
            picture, scale = prepare(searched, frame.band, self.engine.metadata.preprocessing, view.scale)
            groups.setdefault(picture.shape, []).append((frame, picture, scale))
        return [
            Batch(
                self,
                [frame for frame, _, _ in group],
                [scale for _, _, scale in group],
                self.engine.submit(np.stack([picture for _, picture, _ in group])),
            )
            for group in groups.values()
        ]

    def measure(self, frame: Frame, probabilities: NDArray[np.float32], scale: tuple[float, float]) -> Detections:
        """One frame's maps to its detections.  Frames of a camera must come in their order."""
        key = (frame.ref.camera, frame.ref.session)
        if key not in self._motion:
            self.forget(frame.ref.camera)
            self._motion[key] = CameraMotion()
        view = self._views.get(frame.ref.camera, CameraView())
        return detect(
            probabilities,
            frame.ref,
            frame.band,
            frame.size_px,
            self.classes,
            self.decision[frame.band],
            scale,
            view.ignore,
            self._motion[key].update(frame.pixels),
            view.of(frame.size_px),
        )

    def look_closer(self, frames: Sequence[Frame], found: Sequence[Detections]) -> list[Detections]:
        """What was found, told apart by the checkpoint's classifier, where it has one."""
        classify, how = self.engine.classify, self.engine.metadata.closer_look
        if classify is None or how is None:
            return list(found)
        seen = [crops(frame.pixels, detections, how) for frame, detections in zip(frames, found, strict=True)]
        together = np.concatenate(seen)
        scores = iter(classify(together) if len(together) else ())
        return [
            told_apart(detections, how.classes, islice(scores, len(of_frame)))
            for detections, of_frame in zip(found, seen, strict=True)
        ]

    def forget(self, camera: str) -> None:
        """Drop what is remembered of a camera's earlier sessions."""
        self._motion = {key: motion for key, motion in self._motion.items() if key[0] != camera}
