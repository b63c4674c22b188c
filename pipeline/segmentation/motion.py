"""Motion candidates: the places of a frame that changed against the registered past.  Pure.

What moves differs from two earlier frames, a short and a long time step ago; what was uncovered differs from one of
them only.  So the smaller of both absolute differences, divided by the local noise, is high where something is now that
was not there before.  Noise is measured in space (the neighbourhood), in time (the last second) and over minutes, the
map of where change is usual: trees, water, masts.  On-screen text and reticles, which stay where they are while the
scene moves, are left out.  The same is done in a reduced image, for near and blurred targets.  In: a camera's
FrameHistory.  Out: at most `max_candidates` points with their scores.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.segmentation.frame_history import SMOOTH_STEPS, FrameHistory, PastFrame
from pipeline.segmentation.motion_pixels import CELL_PX, REDUCTION, Pixels, moved, pixel_work

LAGS_S = (0.2, 0.5)
# Reduction of the image, length of the targets that it shows, and share of the candidates: a target that is larger than
# the neighbourhood of noise hides itself.
LEVELS = ((1, 0.0, 0.75), (REDUCTION, 30.0, 0.25))
MIN_LAG_S = 0.12  # a shorter history shows no motion yet
MIN_LAG_RATIO = 1.5  # of the long time step to the short one
NEIGHBOURHOOD_PX = 31  # over which noise is averaged
RECENT_S = 0.15  # time constant of the recent noise
USUAL_S = 120.0  # time constant of the usual noise ...
USUAL_SHARE = 1.5  # ... of which this many times counts: what changes there all the time is no news
STEADY_PX = 2.0  # the usual noise belongs to places of the view: a camera that moved farther learns it anew
NOISE_FLOOR = 0.3  # grey levels
OVERLAY_STEP_PX = 6.0  # camera motion between two checks of what has stayed in place
OVERLAY_LOOKS = 6  # so many times in place: an overlay, not a target that a turning camera follows
OVERLAY_MAX_CHANGE = 6.0  # grey levels
OVERLAY_MIN_GRADIENT = 24.0  # grey levels a pixel: plain sky stays in place too


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place that changed: its position in frame pixels, and its score, difference over noise.

    `length_px` is the least size of what changed there, roughly: 0 for the smallest targets.
    """

    x_px: float
    y_px: float
    score: float
    length_px: float = 0.0


class MotionCandidates:
    """The motion of one camera in one session.

    Args:
        max_candidates: per frame; the best are kept.
        usual_noise: grey levels on any grid over the frame, float32 (h, w), as `usual_noise` of an earlier session.
    """

    def __init__(self, max_candidates: int, usual_noise: NDArray[np.float32] | None = None) -> None:
        self._max_candidates = max_candidates
        self._overlay = _Overlay()
        self._noise = [_Noise(usual_noise) for _ in LEVELS]
        self._last_s = 0.0

    @property
    def usual_noise(self) -> NDArray[np.float32] | None:
        """Return how much each place usually changes, grey levels, float32 (h, w); None before it is known."""
        return self._noise[0].usual

    def update(self, history: FrameHistory) -> list[Candidate]:
        """Return the candidates of the history's newest frame, best first."""
        newest = history.newest
        if newest is None:
            return []
        elapsed_s, self._last_s = min(max(newest.pts_s - self._last_s, 0.0), 1.0), newest.pts_s
        overlay = self._overlay.update(newest)
        past = [frame for lag_s in LAGS_S if (frame := history.at(lag_s)) is not None]
        ages_s = [newest.pts_s - frame.pts_s for frame in past]
        if len(past) < len(LAGS_S) or ages_s[0] < MIN_LAG_S or ages_s[1] < MIN_LAG_RATIO * ages_s[0]:
            return []
        pixels = pixel_work()
        levels = pixels.differences(newest.smooth, [moved(newest, frame) for frame in past], overlay)
        found: list[Candidate] = []
        for (image, means), (reduction, length_px, share), noise in zip(levels, LEVELS, self._noise, strict=True):
            sx, sy = newest.width_px / image.shape[1], newest.height_px / image.shape[0]
            most = max(1, round(share * self._max_candidates))
            found += [
                Candidate((peak.column + 0.5) * sx, (peak.row + 0.5) * sy, peak.score, length_px * sx / reduction)
                for peak in pixels.peaks(image, noise.update(means, newest, elapsed_s), most)
            ]
        return sorted(found, key=lambda candidate: -candidate.score)[: self._max_candidates]


class _Noise:
    """How much each place changes without a target: its neighbourhood now, recently, and over minutes."""

    def __init__(self, usual: NDArray[np.float32] | None) -> None:
        self._recent: NDArray[np.float32] | None = None
        self.usual = usual
        self._steady_from_px = (0.0, 0.0)

    def update(self, cells: NDArray[np.float32], newest: PastFrame, elapsed_s: float) -> NDArray[np.float32]:
        """Return the noise of each cell, grey levels, and learn from the mean differences of the cells."""
        height, width = cells.shape
        reach = NEIGHBOURHOOD_PX // CELL_PX | 1
        local = np.asarray(cv2.blur(cells, (reach, reach)), np.float32)
        usual = np.asarray(cv2.blur(cells, (3, 3)), np.float32)
        if self._recent is None or self._recent.shape != local.shape:
            self._recent = local
        if self.usual is None:
            self.usual = np.zeros_like(usual)
        elif self.usual.shape != usual.shape:
            self.usual = np.asarray(cv2.resize(self.usual, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        if math.dist(self._steady_from_px, newest.position_px) > STEADY_PX:
            self.usual, self._steady_from_px = np.zeros_like(usual), newest.position_px
        self._recent = _towards(self._recent, local, elapsed_s, RECENT_S)
        noise = np.maximum((local + self._recent) / 2, USUAL_SHARE * self.usual)
        self.usual = _towards(self.usual, usual, elapsed_s, USUAL_S)
        return np.asarray(noise + np.float32(NOISE_FLOOR), np.float32)


class _Overlay:
    """Learns what stays in place while the scene moves: on-screen text, reticles, dead pixels."""

    def __init__(self) -> None:
        self._reference: PastFrame | None = None
        self._looks: NDArray[np.uint8] | None = None
        self._pixels: Pixels | None = None

    def update(self, newest: PastFrame) -> Pixels | None:
        """Return where in `smooth` an overlay is; None while none is known."""
        reference = self._reference
        if reference is None or reference.smooth.shape != newest.smooth.shape:
            self._reference, self._looks, self._pixels = newest, np.zeros(newest.smooth.shape, np.uint8), None
        elif math.dist(reference.position_px, newest.position_px) > OVERLAY_STEP_PX and self._looks is not None:
            image = newest.smooth
            gradient = cv2.morphologyEx(image, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
            stayed = cv2.absdiff(image, reference.smooth) < round(OVERLAY_MAX_CHANGE * SMOOTH_STEPS)
            stayed &= gradient > round(OVERLAY_MIN_GRADIENT * SMOOTH_STEPS)
            again = np.minimum(self._looks, 254) + np.uint8(1)
            self._looks = np.where(stayed, again, self._looks >> np.uint8(1)).astype(np.uint8)
            overlay = (self._looks >= OVERLAY_LOOKS).astype(np.uint8)
            hidden = np.flatnonzero(cv2.dilate(overlay, np.ones((7, 7), np.uint8)) > 0)  # faster than `nonzero`
            rows, columns = np.divmod(hidden, image.shape[1])
            self._pixels = (rows, columns) if len(rows) else None
            self._reference = newest
        return self._pixels


def _towards(
    average: NDArray[np.float32], value: NDArray[np.float32], elapsed_s: float, time_constant_s: float
) -> NDArray[np.float32]:
    """Return the exponential moving average."""
    share = np.float32(1 - math.exp(-elapsed_s / time_constant_s))
    return np.asarray(average + share * (value - average), np.float32)
