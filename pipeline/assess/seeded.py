"""One seeded encounter: a fork of a camera's stages that sees the same frames, with a drone pasted into them.  Pure.

In: the camera's frames and, for each, what its undisturbed stages made of it.  Out: frames with the drone, and whether
the fork confirmed a target there.
"""

from dataclasses import replace

import numpy as np

from pipeline.assess.encounters import PATH_STEPS, Encounter, Path
from pipeline.assess.observations import SeededEncounter, log_odds
from pipeline.assess.paste import MAX_CONTRAST, background_deviation, pasted, sharpness_px, window_px
from pipeline.segmentation.segmenter import Segmenter
from pipeline.tracking.stage import TrackStage
from pipeline.types import Detections, Frame, Track, TrackState

MATCH_D = 0.75  # a track is the drone's where its centre is this near to it, in apparent sizes, ...
MIN_MATCH_PX = 4.0  # ... or in pixels
MIN_FRAMES = 5  # of an encounter that counts


class SeededStream:
    """One encounter, from its first frame to its last.

    Args:
        encounter: what is pasted.
        path: where.
        frame: its first frame, undisturbed.
        segmenter: a fork, as of the frame before.
        stage: a fork, as of the frame before.
    """

    def __init__(self, encounter: Encounter, path: Path, frame: Frame, segmenter: Segmenter, stage: TrackStage) -> None:
        self.segmenter = segmenter
        self._stage = stage
        self._encounter, self._path = encounter, path
        self._start_s = frame.ref.pts_s
        self._scale = encounter.size_px / encounter.drone.size_px
        self._blur_px = sharpness_px(frame.pixels)
        times_s = np.linspace(0, encounter.duration_s, PATH_STEPS)
        points = [path.at(float(time_s)) for time_s in times_s]
        deviation, self._noise = background_deviation(frame.pixels, points, encounter.size_px)
        self._contrast = min(MAX_CONTRAST, encounter.contrast * deviation)
        self._shift = np.zeros(2)  # of the background since the first frame
        self._frames = 0
        self._truth = (0.0, 0.0)
        self._inside = True
        self._delay_s: float | None = None
        self._log_odds: float | None = None
        self._suppressed_as: str | None = None

    def is_over(self, pts_s: float) -> bool:
        """Return whether the encounter has ended before a frame of this time."""
        return pts_s - self._start_s > self._encounter.duration_s

    def frame(self, frame: Frame, camera_shift_px: tuple[float, float] | None) -> Frame:
        """Return the frame with the drone, which moves along with the background."""
        if self._frames and camera_shift_px is not None:
            self._shift += camera_shift_px
        time_s = frame.ref.pts_s - self._start_s
        x, y = np.array(self._path.at(time_s)) + self._shift
        self._truth = float(x), float(y)
        width, height = frame.size_px
        self._inside = self._inside and 0 <= x < width and 0 <= y < height
        side = window_px(self._scale)
        noise = self._encounter.generator(2 + self._frames).normal(0, self._noise, (side, side)).astype(np.float32)
        self._frames += 1
        crops = self._encounter.drone.at(time_s)
        pixels = pasted(frame.pixels, crops, self._truth, self._scale, self._contrast, self._blur_px, noise)
        return replace(frame, pixels=pixels)

    def update(self, detections: Detections, undisturbed: list[Track]) -> None:
        """Track the frame with the drone; a target that the undisturbed stream has there too is not the drone."""
        tracks = self._stage.update(detections).tracks
        if any(self._is_here(track) and track.is_target for track in undisturbed):
            return
        for track in filter(self._is_here, tracks):
            if not track.is_target:
                self._suppressed_as = track.label
                continue
            if self._delay_s is None:
                self._delay_s = detections.ref.pts_s - self._start_s
            self._log_odds = max(self._log_odds or -np.inf, log_odds(track.score))

    def result(self) -> SeededEncounter | None:
        """Return the result; None, detected or not, where the drone left the view or few frames came."""
        if self._frames < MIN_FRAMES or not self._inside:
            return None
        encounter = self._encounter
        return SeededEncounter(
            number=encounter.number,
            drone=encounter.drone.name,
            time_s=round(self._start_s, 3),
            duration_s=round(encounter.duration_s, 3),
            size_px=round(encounter.size_px, 2),
            contrast=round(self._contrast, 1),
            delay_s=None if self._delay_s is None else round(self._delay_s, 3),
            log_odds=None if self._log_odds is None else round(self._log_odds, 3),
            suppressed_as=self._suppressed_as if self._delay_s is None else None,
        )

    def _is_here(self, track: Track) -> bool:
        if track.state is not TrackState.CONFIRMED:
            return False
        left, top, right, bottom = track.xyxy
        x, y = self._truth
        reach_px = max(MIN_MATCH_PX, MATCH_D * self._encounter.size_px)
        return abs((left + right) / 2 - x) <= reach_px and abs((top + bottom) / 2 - y) <= reach_px
