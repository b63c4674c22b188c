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

from pipeline.segmentation.frame_history import BLUR_REACH_PX, FrameHistory, PastFrame

LAGS_S = (0.2, 0.5)
# Reduction of the image, length of the targets that it shows, and share of the candidates: a target that is larger than
# the neighbourhood of noise hides itself.
LEVELS = ((1, 0.0, 0.75), (3, 30.0, 0.25))
MIN_LAG_S = 0.12  # a shorter history shows no motion yet
MIN_LAG_RATIO = 1.5  # of the long time step to the short one
NEIGHBOURHOOD_PX = 31  # over which noise is averaged
SAMPLE_PX = 8  # between the pixels whose median difference is that of the whole image
PEAK_PX = 9  # candidates are at least half as far from each other
CELL_PX = 4  # of the noise maps
RECENT_S = 0.15  # time constant of the recent noise
USUAL_S = 120.0  # time constant of the usual noise ...
USUAL_SHARE = 1.5  # ... of which this many times counts: what changes there all the time is no news
STEADY_PX = 2.0  # the usual noise belongs to places of the view: a camera that moved farther learns it anew
NOISE_FLOOR = 0.3  # grey levels
MIN_SCORE = 1.5
OVERLAY_STEP_PX = 6.0  # camera motion between two checks of what has stayed in place
OVERLAY_LOOKS = 6  # so many times in place: an overlay, not a target that a turning camera follows
OVERLAY_MAX_CHANGE = 6.0  # grey levels
OVERLAY_MIN_GRADIENT = 24.0  # grey levels a pixel: plain sky stays in place too

Pixels = tuple[NDArray[np.intp], NDArray[np.intp]]  # rows and columns


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
        # Of `smooth`'s shape and reused: memory of this size is otherwise mapped anew, and cleared, at every operation.
        self._buffers: list[NDArray[np.float32]] = []

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
        if not self._buffers or self._buffers[0].shape != newest.smooth.shape:
            self._buffers = [np.empty_like(newest.smooth) for _ in range(3)]
        *differences, scratch = self._buffers
        for difference, frame in zip(differences, past, strict=True):
            _subtract(newest, frame, overlay, difference, scratch)
        levels = [[_reduced(each, reduction) for each in differences] for reduction, _, _ in LEVELS]
        found: list[Candidate] = []
        for level, (reduction, length_px, share), noise in zip(levels, LEVELS, self._noise, strict=True):
            difference = _least(*level)
            buffer = scratch if reduction == 1 else np.empty_like(difference)
            cv2.divide(difference, noise.update(difference, newest, elapsed_s, buffer), dst=difference)  # the scores
            scale = newest.width_px / difference.shape[1], newest.height_px / difference.shape[0]
            most = max(1, round(share * self._max_candidates))
            found += _peaks(difference, scale, length_px * scale[0] / reduction, most, buffer)
        return sorted(found, key=lambda candidate: -candidate.score)[: self._max_candidates]


class _Noise:
    """How much each place changes without a target: its neighbourhood now, recently, and over minutes."""

    def __init__(self, usual: NDArray[np.float32] | None) -> None:
        self._recent: NDArray[np.float32] | None = None
        self.usual = usual
        self._steady_from_px = (0.0, 0.0)

    def update(
        self, difference: NDArray[np.float32], newest: PastFrame, elapsed_s: float, out: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Write the noise at each pixel of a difference, grey levels, to `out`, and learn from the difference."""
        height, width = difference.shape
        size = max(1, width // CELL_PX), max(1, height // CELL_PX)
        cells = cv2.resize(difference, size, interpolation=cv2.INTER_AREA)
        reach = NEIGHBOURHOOD_PX // CELL_PX | 1
        local = np.asarray(cv2.blur(cells, (reach, reach)), np.float32)
        usual = np.asarray(cv2.blur(cells, (3, 3)), np.float32)
        if self._recent is None or self._recent.shape != local.shape:
            self._recent = local
        if self.usual is None:
            self.usual = np.zeros_like(usual)
        elif self.usual.shape != usual.shape:
            self.usual = np.asarray(cv2.resize(self.usual, size, interpolation=cv2.INTER_LINEAR), np.float32)
        if math.dist(self._steady_from_px, newest.position_px) > STEADY_PX:
            self.usual, self._steady_from_px = np.zeros_like(usual), newest.position_px
        self._recent = _towards(self._recent, local, elapsed_s, RECENT_S)
        noise = np.maximum((local + self._recent) / 2, USUAL_SHARE * self.usual)
        self.usual = _towards(self.usual, usual, elapsed_s, USUAL_S)
        cv2.resize(noise + np.float32(NOISE_FLOOR), (width, height), dst=out)
        return out


def _peaks(
    scores: NDArray[np.float32],
    scale: tuple[float, float],
    length_px: float,
    most: int,
    scratch: NDArray[np.float32],
) -> list[Candidate]:
    """Return the highest local maxima; `scale`: frame pixels per pixel of `scores`, (x, y)."""
    highest = cv2.dilate(scores, np.ones((PEAK_PX, PEAK_PX), np.uint8), dst=scratch)
    above = np.flatnonzero(scores > MIN_SCORE)  # few: only there are pixels compared with their surroundings
    above = above[scores.ravel()[above] == highest.ravel()[above]]
    rows, columns = np.divmod(above, scores.shape[1])
    values = scores.ravel()[above]
    best = np.argsort(-values, kind="stable")[:most]
    return [
        Candidate((float(columns[i]) + 0.5) * scale[0], (float(rows[i]) + 0.5) * scale[1], float(values[i]), length_px)
        for i in best
    ]


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
            stayed = (cv2.absdiff(image, reference.smooth) < OVERLAY_MAX_CHANGE) & (gradient > OVERLAY_MIN_GRADIENT)
            self._looks = np.where(stayed, np.minimum(self._looks, 254) + 1, self._looks // 2).astype(np.uint8)
            overlay = (self._looks >= OVERLAY_LOOKS).astype(np.uint8)
            rows, columns = np.nonzero(cv2.dilate(overlay, np.ones((7, 7), np.uint8)))
            self._pixels = (rows, columns) if len(rows) else None
            self._reference = newest
        return self._pixels


def _subtract(
    newest: PastFrame,
    past: PastFrame,
    overlay: Pixels | None,
    out: NDArray[np.float32],
    scratch: NDArray[np.float32],
) -> None:
    """Write the difference, grey levels, to a past frame moved to where its background is now.

    It is 0 where either frame shows an overlay, and where the past frame did not see.
    """
    image, (height, width) = past.smooth, out.shape
    factor = width / past.width_px
    dx, dy = ((now - then) * factor for now, then in zip(newest.position_px, past.position_px, strict=True))
    right, down = round(dx), round(dy)
    if abs(right) >= width or abs(down) >= height:
        out[:] = 0
        return
    if max(abs(dx), abs(dy)) > 0.02:
        image = _moved(image, dx - right, dy - down, scratch)
    # A step of gain control moves every pixel.
    sampled = (
        np.clip(np.arange(0, side, SAMPLE_PX) - moved, 0, side - 1)
        for side, moved in zip(out.shape, (down, right), strict=True)
    )
    step = np.median(newest.smooth[::SAMPLE_PX, ::SAMPLE_PX] - image[np.ix_(*sampled)])
    now, then = (np.s_[_overlap(sign * down, height), _overlap(sign * right, width)] for sign in (1, -1))
    np.subtract(newest.smooth[now], image[then], out=out[now])
    out[now] -= step
    if overlay is not None:
        out[overlay] = 0
        rows, columns = overlay[0] + down, overlay[1] + right  # the past frame's moves with its background
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        out[rows[inside], columns[inside]] = 0
    for lines, moved in ((out.T, dx), (out, dy)):
        if abs(moved) > 0.5:  # what a turning camera has come to see since
            lines[: round(max(moved, 0.0)) + BLUR_REACH_PX] = 0
            lines[max(0, len(lines) - round(max(-moved, 0.0)) - BLUR_REACH_PX) :] = 0


def _overlap(shift: int, side: int) -> slice:
    """Return the lines of an image that lie on the other's when that one is moved by a number of lines."""
    return slice(max(0, shift), side + min(0, shift))


def _moved(image: NDArray[np.float32], dx: float, dy: float, out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Write the image moved by at most a pixel, interpolated linearly; `cv2.warpAffine` takes five times as long."""
    across, along = (np.array([max(d, 0.0), 1 - abs(d), max(-d, 0.0)], np.float32) for d in (dx, dy))
    cv2.filter2D(image, -1, np.outer(along, across), dst=out, borderType=cv2.BORDER_REPLICATE)
    return out


def _reduced(image: NDArray[np.float32], reduction: int) -> NDArray[np.float32]:
    """Return the image reduced by a whole factor, each pixel a mean; the image itself for 1."""
    if reduction == 1:
        return image
    height, width = image.shape
    size = max(1, width // reduction), max(1, height // reduction)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _least(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the smaller absolute difference, in the memory of the first; the second is overwritten too."""
    return np.minimum(np.abs(first, out=first), np.abs(second, out=second), out=first)


def _towards(
    average: NDArray[np.float32], value: NDArray[np.float32], elapsed_s: float, time_constant_s: float
) -> NDArray[np.float32]:
    """Return the exponential moving average."""
    share = np.float32(1 - math.exp(-elapsed_s / time_constant_s))
    return np.asarray(average + share * (value - average), np.float32)
