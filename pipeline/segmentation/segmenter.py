"""Frames -> Detections: preprocessing, inference, post-processing, motion and the judge of chips.

`submit` starts inference and returns at once; `finish` waits for it, so that one batch is post-processed while the
device has the next.  The segmentation worker and the replay share this code; it knows no sockets.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.engine.engine import Engine
from model.preprocess import prepare
from pipeline.config.calibration import Calibration
from pipeline.config.camera import Camera
from pipeline.segmentation.camera_motion import CameraMotion
from pipeline.segmentation.frame_history import FrameHistory
from pipeline.segmentation.judging import MAX_JUDGED, MOTION_INTERVAL_S, judged
from pipeline.segmentation.motion import MotionCandidates
from pipeline.segmentation.postprocess import MapView, Polygon, Region, detect
from pipeline.segmentation.proposals import ExpectedTargets, outlined, with_motion
from pipeline.types import Detections, Frame

MAX_CANDIDATES = 16  # of motion in a frame


@dataclass(frozen=True)
class CameraView:
    """What the configuration says about a camera's frames: scale, mask polygons and region of interest."""

    scale: float | None = None
    ignore: Sequence[Polygon] = ()
    region: Region | None = None  # x0, y0, x1, y1 in frame pixels
    usual_noise: NDArray[np.float32] | None = None  # of the camera's calibration, see MotionCandidates

    def roi(self, size_px: tuple[int, int]) -> Region:
        """Return the part of a frame of this size to process: all of it where the region lies outside."""
        width, height = size_px
        x0, y0, x1, y1 = self.region or (0, 0, width, height)
        inside = x0, y0, min(x1, width), min(y1, height)
        return inside if x0 < inside[2] and y0 < inside[3] else (0, 0, width, height)


def views_of(cameras: Iterable[Camera], calibrations: Mapping[str, Calibration] | None = None) -> dict[str, CameraView]:
    """Return the view of each camera, by camera id."""
    noise = {name: np.array(one.noise_map, np.float32) for name, one in (calibrations or {}).items()}
    return {
        camera.id: CameraView(camera.scale, camera.ignore, camera.region, noise.get(camera.id)) for camera in cameras
    }


@dataclass(eq=False)
class Batch:
    """Frames of one input size whose inference was started.

    Attributes:
        frames: in the order of `probabilities`.
        views: how each was prepared: its camera's configuration may have changed by the time it is finished.
        probabilities: float32 (N, classes, h, w).
        started_ns: when it was submitted, on the monotonic clock.
    """

    frames: list[Frame]
    views: list[MapView]
    probabilities: "Future[NDArray[np.float32]]"
    started_ns: int = field(default_factory=time.monotonic_ns)
    _inferred_ns: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A future keeps its callbacks: one that knows the batch would keep frames and maps until garbage is collected.
        self.probabilities.add_done_callback(partial(_note_time, self._inferred_ns))

    @property
    def inferred_ns(self) -> int:
        """When inference ended, on the monotonic clock; 0: not yet."""
        return self._inferred_ns[0] if self._inferred_ns else 0


def _note_time(times_ns: list[int], _: object) -> None:
    times_ns.append(time.monotonic_ns())


class _CameraState:
    """What is kept of a camera's earlier frames."""

    def __init__(self, usual_noise: NDArray[np.float32] | None) -> None:
        self.motion = CameraMotion()
        self.history = FrameHistory()
        self.candidates = MotionCandidates(MAX_CANDIDATES, usual_noise)
        self.expected = ExpectedTargets()
        self.motion_judged_s = -math.inf  # time of the last frame whose motion was judged


class Segmenter:
    """Run inference on frames.

    Args:
        engine: the inference engine with its checkpoint.
        threshold: replaces the checkpoint's pixel threshold of both bands.
        views: by camera id; a camera without one is prepared as the checkpoint says.
        max_judged: proposals of a frame that are judged.
    """

    def __init__(
        self,
        engine: Engine,
        threshold: float | None = None,
        views: dict[str, CameraView] | None = None,
        max_judged: int = MAX_JUDGED,
    ) -> None:
        self.engine = engine
        self._max_judged = max_judged
        self.thresholds = {
            band: one if threshold is None else replace(one, threshold=threshold)
            for band, one in engine.metadata.thresholds.items()
        }
        self.classes = engine.metadata.classes
        self._views = views or {}
        self._states: dict[tuple[str, str], _CameraState] = {}  # by camera and session

    def watch(self, views: dict[str, CameraView]) -> None:
        """Set the cameras from now on; forget all others."""
        self._views = views
        self._states = {key: state for key, state in self._states.items() if key[0] in views}

    def usual_noise(self, camera: str) -> NDArray[np.float32] | None:
        """Return how much each place of a camera's view usually changes; None before it is known."""
        states = [state for key, state in self._states.items() if key[0] == camera]
        return states[-1].candidates.usual_noise if states else None

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
        """Wait for the batch and return each frame's detections, judged.  Raise what inference raised.

        A camera's frames must be finished in their order.
        """
        return [self.judge(*each) for each in zip(batch.frames, batch.views, self.detect(batch), strict=True)]

    def detect(self, batch: Batch) -> list[Detections]:
        """Wait for the batch and return each frame's mask components with the network's own class scores.

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

    def judge(self, frame: Frame, view: MapView, masks: Detections) -> Detections:
        """Return the frame's detections: its masks and what moves, judged over the last half second.

        A checkpoint without a judge has the masks alone.
        """
        judge, config = self.engine.judge, self.engine.metadata.judge
        if judge is None or config is None:
            return masks
        state = self._state(frame)
        newest = state.history.add(frame.pixels, frame.ref.pts_s, masks.camera_shift_px)
        expected = state.expected.predict(frame.ref.pts_s, masks.camera_shift_px)
        candidates = state.candidates.update(state.history)
        proposals = with_motion(masks, candidates, expected, view)
        include_motion = not 0 <= newest.pts_s - state.motion_judged_s < MOTION_INTERVAL_S
        if include_motion:
            state.motion_judged_s = newest.pts_s
        targets = judged(
            proposals, expected, state.history, judge, config, self._max_judged, include_motion=include_motion
        )
        detections = outlined(targets, newest.grey)
        state.expected.update(detections)
        return detections

    def _state(self, frame: Frame) -> _CameraState:
        key = (frame.ref.camera, frame.ref.session)
        if key not in self._states:  # a new session: forget the camera's earlier ones
            self._states = {other: state for other, state in self._states.items() if other[0] != frame.ref.camera}
            self._states[key] = _CameraState(self._views.get(frame.ref.camera, CameraView()).usual_noise)
        return self._states[key]
