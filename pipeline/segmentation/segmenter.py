"""Frames -> Detections: preprocessing, inference, post-processing, motion and the judge of chips.

`submit` starts inference and returns at once; `finish` waits for it, so that one batch is post-processed while the
device has the next.  The segmentation worker and the replay share this code; it knows no sockets.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.engine.engine import Engine
from model.preprocess import prepare
from pipeline.config.calibration import Calibration
from pipeline.config.camera import Camera
from pipeline.segmentation.batch import Batch, Inference
from pipeline.segmentation.camera_motion import CameraMotion
from pipeline.segmentation.frame_history import FrameHistory
from pipeline.segmentation.judging import MAX_JUDGED, MOTION_INTERVAL_S, judged
from pipeline.segmentation.merging import (
    NEAR_LENGTH_PX,
    REDUCTION,
    is_reduced_due,
    joined,
    with_reduced,
)
from pipeline.segmentation.motion import Candidate, MotionCandidates
from pipeline.segmentation.postprocess import MapView, Polygon, Region, detect
from pipeline.segmentation.proposals import Coverage, ExpectedTargets, outlined, with_motion
from pipeline.segmentation.scan import Scan, Tile, core
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


class _Input(NamedTuple):
    """An input of the network."""

    image: NDArray[np.uint8]
    view: MapView
    is_reduced: bool = False


class _CameraState:
    """What is kept of a camera's earlier frames."""

    def __init__(self, usual_noise: NDArray[np.float32] | None) -> None:
        self.motion = CameraMotion()
        self.shift_px: tuple[float, float] | None = None  # of the last frame, measured or assumed
        self.history = FrameHistory()
        self.candidates = MotionCandidates(MAX_CANDIDATES, usual_noise)
        self.expected = ExpectedTargets()
        self.motion_judged_s = -math.inf  # time of the last frame whose motion was judged
        self.reduced_s = -math.inf  # time of the last frame that was processed reduced
        self.scan = Scan()
        self.moving: list[Candidate] = []  # of the last frame


class Segmenter:
    """Run inference on frames.

    Args:
        engine: the inference engine with its checkpoint.
        threshold: replaces the checkpoint's pixel threshold of both bands.
        views: by camera id; a camera without one is prepared as the checkpoint says.
        max_judged: proposals of a frame that are judged.

    Attributes:
        engine: as given.
        share: of each frame's pixels that the network may process, on average; 1: whole frames.
        max_motion: proposals of a frame that are judged at most for their motion alone.
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
        self.share = 1.0
        self.max_motion = MAX_JUDGED
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
        watched = [self._watched(frame) for frame in frames]
        inputs = [self._inputs(frame, view) for frame, view in zip(frames, watched, strict=True)]
        groups: dict[tuple[int, ...], list[NDArray[np.uint8]]] = {}
        rows = []
        for one in chain.from_iterable(inputs):
            group = groups.setdefault(one.image.shape, [])
            rows.append(len(group))
            group.append(one.image)
        maps = {shape: self.engine.submit(np.stack(group)) for shape, group in groups.items()}
        numbers = iter(rows)
        inferences = [
            [Inference(one.view, maps[one.image.shape], next(numbers), one.is_reduced) for one in each]
            for each in inputs
        ]
        return Batch(list(frames), watched, inferences)

    @property
    def _can_scan(self) -> bool:
        """Whether inputs may be tiles and reduced frames: their scale is free, and a judge joins what they show."""
        return self.engine.metadata.preprocessing.mode == "scale" and self.engine.judge is not None

    def _watched(self, frame: Frame) -> MapView:
        """Return which part of a frame is watched, and how it is scaled for the network."""
        view = self._views.get(frame.ref.camera, CameraView())
        factor = view.scale or self.engine.metadata.preprocessing.scale[frame.band]
        x0, y0, x1, y1 = region = view.roi(frame.size_px)
        size_px = _scaled((x1 - x0, y1 - y0), factor)
        return MapView(((x1 - x0) / size_px[0], (y1 - y0) / size_px[1]), region, view.ignore)

    def _inputs(self, frame: Frame, watched: MapView) -> list[_Input]:
        """Return the network's inputs for a frame: all of it or tiles, and perhaps the reduced frame."""
        if not self._can_scan:
            return [self._input(frame, watched)]
        state, pts_s = self._state(frame), frame.ref.pts_s
        if self.share >= 1:
            state.scan.covered()
            inputs = [self._input(frame, watched)]
        else:
            inputs = self._tiles(frame, watched)
        if is_reduced_due(pts_s - state.reduced_s, self.share):
            state.reduced_s = pts_s
            inputs.append(self._input(frame, watched, REDUCTION)._replace(is_reduced=True))
        return inputs

    def _input(self, frame: Frame, view: MapView, reduction: float = 1.0) -> _Input:
        x0, y0, x1, y1 = view.region or (0, 0, *frame.size_px)
        preprocessing = self.engine.metadata.preprocessing
        factor = 1 / (view.scale[0] * reduction)
        image, scale = prepare(frame.pixels[y0:y1, x0:x1], frame.band, preprocessing, factor)
        return _Input(image, replace(view, scale=scale))

    def _tiles(self, frame: Frame, watched: MapView) -> list[_Input]:
        """Return the tiles of a frame that are processed while the whole is too much."""
        state, (x0, y0, x1, y1) = self._state(frame), watched.region or (0, 0, *frame.size_px)
        size_px = _scaled((x1 - x0, y1 - y0), 1 / watched.scale[0])
        offset, scale = np.array((x0, y0), np.float32), np.array(watched.scale, np.float32)
        moving = np.array([(one.x_px, one.y_px) for one in state.moving], np.float32).reshape(-1, 2)
        places = (state.expected.centres - offset) / scale, (moving - offset) / scale
        tiles = state.scan.tiles(size_px, frame.ref.pts_s, self.share, *places)

        def in_frame(tile: Tile) -> Region:
            corners = np.array(tile).reshape(2, 2) * scale + offset
            left, top, right, bottom = (round(float(value)) for value in corners.ravel())
            return left, top, min(right, x1), min(bottom, y1)

        views = [replace(watched, region=in_frame(tile), core=in_frame(core(tile, size_px))) for tile in tiles]
        return [self._input(frame, view) for view in views]

    def finish(self, batch: Batch) -> list[Detections]:
        """Wait for the batch and return each frame's detections, judged.  Raise what inference raised.

        A camera's frames must be finished in their order.
        """
        found = []
        for frame, watched, inferences in zip(batch.frames, batch.watched, batch.inferences, strict=True):
            masks = self._masks(frame, watched, inferences)
            found.append(self.judge(frame, watched, masks, _coverage(watched, inferences) if self._can_scan else None))
        return found

    def _masks(self, frame: Frame, watched: MapView, inferences: Sequence[Inference]) -> Detections:
        state = self._state(frame)
        state.shift_px = state.motion.update(frame.pixels)
        if state.shift_px is None and state.history.newest is not None:
            state.reduced_s = -math.inf  # where near targets are is no longer known
        shift_px = state.shift_px if state.motion.is_measured else None

        def found(probabilities: NDArray[np.float32], view: MapView) -> Detections:
            return detect(probabilities, frame, view, self.classes, self.thresholds[frame.band], shift_px)

        nothing = np.zeros((len(self.classes), 1, 1), np.float32)
        masks = joined(
            [found(one.maps.result()[one.row], one.view) for one in inferences if not one.is_reduced]
            or [found(nothing, watched)]
        )
        for one in inferences:
            if one.is_reduced:
                masks = with_reduced(masks, found(one.maps.result()[one.row], one.view))
        return masks

    def judge(self, frame: Frame, watched: MapView, masks: Detections, coverage: Coverage | None = None) -> Detections:
        """Return the frame's detections: its masks and what moves, judged over the last half second.

        A checkpoint without a judge has the masks alone.

        Args:
            frame: the next of its camera.
            watched: which part of it is watched.
            masks: mask components of the frame.
            coverage: what the network processed of it; None: all.
        """
        judge, config = self.engine.judge, self.engine.metadata.judge
        if judge is None or config is None:
            return masks
        state = self._state(frame)
        newest = state.history.add(frame.pixels, frame.ref.pts_s, state.shift_px)
        expected = state.expected.predict(frame.ref.pts_s, state.shift_px)
        state.moving = state.candidates.update(state.history)
        proposals = with_motion(masks, state.moving, expected, watched)
        proposals = state.expected.with_remembered_masks(proposals, coverage or Coverage([(0, 0, *frame.size_px)]))
        is_motion_due = not 0 <= newest.pts_s - state.motion_judged_s < MOTION_INTERVAL_S
        if is_motion_due:
            state.motion_judged_s = newest.pts_s
        max_motion = self.max_motion if is_motion_due else 0
        targets = judged(proposals, expected, state.history, judge, config, self._max_judged, max_motion)
        detections = outlined(targets, newest.grey)
        state.expected.update(detections)
        return detections

    def revisit_s(self, camera: str) -> float:
        """Return how long the place of a camera's view that has waited longest has waited for the network."""
        return max((state.scan.revisit_s for key, state in self._states.items() if key[0] == camera), default=0.0)

    def overdue(self, camera: str, revisit_s: float) -> float:
        """Return the share of a camera's view, 0 to 1, that has waited for the network for longer than this."""
        states = (state for key, state in self._states.items() if key[0] == camera)
        return max((state.scan.overdue(revisit_s) for state in states), default=0.0)

    def _state(self, frame: Frame) -> _CameraState:
        key = (frame.ref.camera, frame.ref.session)
        if key not in self._states:  # a new session: forget the camera's earlier ones
            self._states = {other: state for other, state in self._states.items() if other[0] != frame.ref.camera}
            self._states[key] = _CameraState(self._views.get(frame.ref.camera, CameraView()).usual_noise)
        return self._states[key]


def _coverage(watched: MapView, inferences: Sequence[Inference]) -> Coverage:
    """Return where targets of which size would have been segmented."""
    parts = [one.view.core or one.view.region for one in inferences if not one.is_reduced]
    near_px = NEAR_LENGTH_PX * REDUCTION * watched.scale[0]
    return Coverage([part for part in parts if part], near_px, any(one.is_reduced for one in inferences))


def _scaled(size_px: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return the size of an image scaled for the network, as `prepare` does."""
    return max(1, round(size_px[0] * factor)), max(1, round(size_px[1] * factor))
