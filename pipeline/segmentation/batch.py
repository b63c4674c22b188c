"""Frames whose inference was started, and the inputs of each."""

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.segmentation.postprocess import MapView
from pipeline.types import Frame


@dataclass(frozen=True, eq=False)
class Inference:
    """Inference on one input of the network: a part of a frame at a scale.

    Attributes:
        view: which part of the frame, and how much it was reduced.
        maps: of the network's batch, float32 (N, classes, h, w).
        row: of `maps`.
        is_reduced: whether it shows near targets only, see `merging.with_reduced`.
    """

    view: MapView
    maps: "Future[NDArray[np.float32]]"
    row: int
    is_reduced: bool = False


@dataclass(eq=False)
class Batch:
    """Frames whose inference was started.

    Attributes:
        frames: in the order in which they were submitted.
        watched: which part of each is watched: the configuration may have changed by the time it is finished.
        inferences: of each frame.
        done: is done when all inferences are, also where one has failed.
        started_ns: when it was submitted, on the monotonic clock.
    """

    frames: list[Frame]
    watched: list[MapView]
    inferences: list[list[Inference]]
    done: "Future[None]" = field(default_factory=Future)
    started_ns: int = field(default_factory=time.monotonic_ns)
    _inferred_ns: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A future keeps its callbacks: one that knows the batch would keep frames and maps until garbage is collected.
        self.done.add_done_callback(partial(_note_time, self._inferred_ns))
        waiting = {id(one.maps): one.maps for each in self.inferences for one in each}
        countdown = _Countdown(len(waiting), self.done)
        for maps in waiting.values():
            maps.add_done_callback(countdown.count)

    @property
    def inferred_ns(self) -> int:
        """When inference ended, on the monotonic clock; 0: not yet."""
        return self._inferred_ns[0] if self._inferred_ns else 0


class _Countdown:
    """Completes a future when it has been called a number of times, from any threads."""

    def __init__(self, count: int, done: "Future[None]") -> None:
        self._left, self._done, self._lock = count, done, threading.Lock()
        if not count:
            done.set_result(None)

    def count(self, _: object) -> None:
        """Count one."""
        with self._lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self._done.set_result(None)


def _note_time(times_ns: list[int], _: object) -> None:
    times_ns.append(time.monotonic_ns())
