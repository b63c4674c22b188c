"""Frames -> Detections: preprocessing, inference, post-processing, motion and the judge of chips.

`submit` starts inference and returns at once; `finish` waits for it, so that one batch is post-processed while the
device has the next.  The segmentation worker and the replay share this code; it knows no sockets.
"""

import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import chain

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
from pipeline.segmentation.pyramid import REDUCED_INTERVAL_S, REDUCTION, with_reduced
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


@dataclass(frozen=True, eq=False)
class Look:
    """A part of a frame at a scale, one input of the network.

    Attributes:
        view: which part of the frame, and how much it was reduced.
        maps: of the network's batch, float32 (N, classes, h, w).
        row: of `maps`.
    """

    view: MapView
    maps: "Future[NDArray[np.float32]]"
    row: int


@dataclass(eq=False)
class Batch:
    """Frames whose inference was started.

    Attributes:
        frames: in the order in which they were submitted.
        looks: of each frame; the first is the finest.
        done: is done when all looks are, also where one has failed.
        started_ns: when it was submitted, on the monotonic clock.
    """

    frames: list[Frame]
    looks: list[list[Look]]
    done: "Future[None]" = field(default_factory=Future)
    started_ns: int = field(default_factory=time.monotonic_ns)
    _inferred_ns: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A future keeps its callbacks: one that knows the batch would keep frames and maps until garbage is collected.
        waiting = {id(look.maps): look.maps for looks in self.looks for look in looks}
        self.done.add_done_callback(partial(_note_time, self._inferred_ns))
        left = Countdown(len(waiting), self.done)
        for maps in waiting.values():
            maps.add_done_callback(left.count)

    @property
    def inferred_ns(self) -> int:
        """When inference ended, on the monotonic clock; 0: not yet."""
        return self._inferred_ns[0] if self._inferred_ns else 0


class Countdown:
    """Completes a future when it has been called a number of times, from any threads."""

    def __init__(self, count: int, done: "Future[None]") -> None:
        self._left, self._done, self._lock = count, done, threading.Lock()

    def count(self, _: object) -> None:
        """Count one."""
        with self._lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self._done.set_result(None)


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
        self.reduced_s = -math.inf  # time of the last frame that was looked at reduced


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

    def submit(self, frames: Sequence[Frame]) -> Batch:
        """Start inference on these frames; inputs of one size are one batch of the network."""
        images: list[list[tuple[NDArray[np.uint8], MapView]]] = [self._inputs(frame) for frame in frames]
        groups: dict[tuple[int, ...], list[NDArray[np.uint8]]] = {}
        rows = []
        for image, _ in chain.from_iterable(images):
            group = groups.setdefault(image.shape, [])
            rows.append(len(group))
            group.append(image)
        maps = {shape: self.engine.submit(np.stack(group)) for shape, group in groups.items()}
        numbers = iter(rows)
        looks = [[Look(view, maps[image.shape], next(numbers)) for image, view in inputs] for inputs in images]
        return Batch(list(frames), looks)

    def _inputs(self, frame: Frame) -> list[tuple[NDArray[np.uint8], MapView]]:
        """Return a frame's inputs of the network, the finest first, with what each of them shows."""
        view = self._views.get(frame.ref.camera, CameraView())
        region = x0, y0, x1, y1 = view.roi(frame.size_px)
        roi, preprocessing = frame.pixels[y0:y1, x0:x1], self.engine.metadata.preprocessing
        image, scale = prepare(roi, frame.band, preprocessing, view.scale)
        inputs = [(image, MapView(scale, region, view.ignore))]
        if self._is_reduced_due(frame):
            factor = (view.scale or preprocessing.scale[frame.band]) / REDUCTION
            image, scale = prepare(roi, frame.band, preprocessing, factor)
            inputs.append((image, MapView(scale, region, view.ignore)))
        return inputs

    def _is_reduced_due(self, frame: Frame) -> bool:
        """Return whether the frame is also looked at reduced."""
        if self.engine.metadata.preprocessing.mode == "stretch" or self.engine.judge is None:
            return False
        state = self._state(frame)
        if 0 <= frame.ref.pts_s - state.reduced_s < REDUCED_INTERVAL_S:
            return False
        state.reduced_s = frame.ref.pts_s
        return True

    def finish(self, batch: Batch) -> list[Detections]:
        """Wait for the batch and return each frame's detections, judged.  Raise what inference raised.

        A camera's frames must be finished in their order.
        """
        masks = zip(batch.frames, batch.looks, self.detect(batch), strict=True)
        return [self.judge(frame, looks[0].view, found) for frame, looks, found in masks]

    def detect(self, batch: Batch) -> list[Detections]:
        """Wait for the batch and return each frame's mask components with the network's own class scores.

        A camera's frames must be finished in their order.  Raise what inference raised.
        """
        found = []
        for frame, looks in zip(batch.frames, batch.looks, strict=True):
            shift_px = self._state(frame).motion.update(frame.pixels)
            each = [self._detect(frame, look, shift_px) for look in looks]
            found.append(reduce(with_reduced, each))
        return found

    def _detect(self, frame: Frame, look: Look, shift_px: tuple[float, float] | None) -> Detections:
        probabilities = look.maps.result()[look.row]
        return detect(probabilities, frame, look.view, self.classes, self.thresholds[frame.band], shift_px)

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
