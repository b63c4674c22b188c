"""Image health: whether decoded frames are frozen, black, blown out or those of a tampered camera.  Pure.

In: decoded frames in their order.  Out: a Fault, or None.  A single odd frame is no fault: a fault must last, and so
must its absence.  A thermal camera's shutter (a freeze of a second, a few times an hour) is no fault.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.capture.tampering import TamperingMonitor, TamperingSettings
from pipeline.types import Cause

MAX_COLUMNS = 320  # are sampled, evenly spread, and rows at the same distance
TAMPERING_COLUMNS = 80  # which each average several of the sampled ones
UNCHANGED_LEVELS = 3  # a still image that is encoded again and again differs by so much
BLACK_LEVEL, WHITE_LEVEL = 24, 232  # nearly all pixels below, or above
NEARLY_ALL = 0.995
UNCHANGED_STEP = 8  # between the samples that are compared first

Samples = NDArray[np.int16]  # (H, W) or (H, W, 3)


@dataclass(frozen=True)
class ImageHealthSettings:
    """How long an image must show a fault, and for how long none until the fault is over."""

    frozen_s: float = 5.0
    saturated_s: float = 2.0
    clear_s: float = 1.0
    tampering: TamperingSettings = field(default_factory=TamperingSettings)


@dataclass(frozen=True)
class Fault:
    """What is wrong, and since the presentation time of which frame."""

    cause: Cause
    since_s: float


class ImageHealthMonitor:
    """Monitors one connection to a camera."""

    def __init__(self, settings: ImageHealthSettings | None = None) -> None:
        self._settings = settings or ImageHealthSettings()
        self._unchanged: Samples | None = None  # the first of the frames that are all alike
        self._unchanged_since_s = 0.0
        self._saturated_since_s: float | None = None
        self._tampering = TamperingMonitor(self._settings.tampering)
        self._healthy_since_s: float | None = None
        self._fault: Fault | None = None

    def update(self, pixels: NDArray[np.uint8], pts_s: float) -> Fault | None:
        """Return the fault as of this frame, (H, W) or (H, W, 3), at presentation time `pts_s`."""
        step = -(-pixels.shape[1] // MAX_COLUMNS)
        samples = pixels[::step, ::step].astype(np.int16)
        unchanged = self._is_unchanged(samples)
        if not unchanged:
            self._unchanged, self._unchanged_since_s = samples, pts_s
        tampered_since_s = None
        if is_saturated(samples):
            self._saturated_since_s = pts_s if self._saturated_since_s is None else self._saturated_since_s
            self._tampering.reset()
        else:
            self._saturated_since_s = None
            tampered_since_s = self._tampering.update(_reduced(samples), pts_s)
        self._fault = self._current_fault(pts_s, tampered_since_s) or self._fault
        still_frozen = unchanged and self._fault is not None and self._fault.cause is Cause.FROZEN
        if still_frozen or self._saturated_since_s is not None or tampered_since_s is not None:
            self._healthy_since_s = None
        elif self._fault is not None:
            self._healthy_since_s = pts_s if self._healthy_since_s is None else self._healthy_since_s
            if pts_s - self._healthy_since_s >= self._settings.clear_s:
                self._fault = None
        return self._fault

    def _is_unchanged(self, samples: Samples) -> bool:
        first = self._unchanged
        if first is None or first.shape != samples.shape:
            return False
        few = np.s_[::UNCHANGED_STEP, ::UNCHANGED_STEP]  # which show nearly every change
        return _is_alike(samples[few], first[few]) and _is_alike(samples, first)

    def _current_fault(self, pts_s: float, tampered_since_s: float | None) -> Fault | None:
        """Return the most specific fault: neither a black image nor that of a covered camera changes."""
        since_s = self._saturated_since_s
        if since_s is not None and pts_s - since_s >= self._settings.saturated_s:
            return Fault(Cause.SATURATED, since_s)
        if tampered_since_s is not None:
            return Fault(Cause.TAMPERED, tampered_since_s)
        if pts_s - self._unchanged_since_s >= self._settings.frozen_s:
            return Fault(Cause.FROZEN, self._unchanged_since_s)
        return None


def is_saturated(samples: Samples) -> bool:
    """Return whether nearly all of the image is black, or nearly all is white."""
    least = NEARLY_ALL * samples.size
    return bool(np.count_nonzero(samples < BLACK_LEVEL) >= least or np.count_nonzero(samples > WHITE_LEVEL) >= least)


def _is_alike(samples: Samples, others: Samples) -> bool:
    return int(np.abs(samples - others).max()) <= UNCHANGED_LEVELS


def _reduced(samples: Samples) -> NDArray[np.float32]:
    """Return a grey image of about TAMPERING_COLUMNS columns; of colours, the green channel."""
    grey = samples if samples.ndim == 2 else samples[..., 1]
    side = max(1, grey.shape[1] // TAMPERING_COLUMNS)
    rows, columns = (length // side for length in grey.shape)
    strips = grey[: rows * side, : columns * side].reshape(rows, side, columns * side).sum(1, np.float32)
    return np.asarray(sum(strips[:, first::side] for first in range(side)) / np.float32(side * side), np.float32)
