"""Simulated time: events in their order, and threads that share a machine's processor cores equally.

A thread is a generator that yields what it does next: `Work`, which needs a core, or `Wait`, which needs none.
"""

import heapq
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from itertools import count


@dataclass(frozen=True)
class Work:
    """Computing for so many seconds on one core; with a larger `width`, on up to as many at once."""

    seconds: float
    width: float = 1.0


@dataclass(frozen=True)
class Wait:
    """Waiting for `Thread.wake`, at most for so many seconds."""

    timeout_s: float


Program = Generator[Work | Wait, None, None]


class Machine:
    """The processor cores of one machine, and its clock.

    Args:
        cores: how many there are.

    Attributes:
        now_s: the time.
        busy_s: core seconds that were computed.
    """

    def __init__(self, cores: float) -> None:
        self.now_s = self.busy_s = 0.0
        self._cores = cores
        self._order = count()  # of what is due at the same time
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        # Time as a thread sees it that computes: it passes more slowly where there are more threads than cores.
        self._work_s = 0.0
        self._jobs: list[tuple[float, int, float, Callable[[], None]]] = []  # by the work time at which each is done
        self._width = 0.0  # of all jobs

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        """Call `event` at a time."""
        heapq.heappush(self._events, (max(time_s, self.now_s), next(self._order), event))

    def compute(self, work: Work, then: Callable[[], None]) -> None:
        """Call `then` when the work is done."""
        done_s = self._work_s + work.seconds / work.width
        heapq.heappush(self._jobs, (done_s, next(self._order), work.width, then))
        self._width += work.width

    def run(self, until_s: float) -> None:
        """Let the time pass."""
        while self.now_s < until_s:
            speed = min(1.0, self._cores / self._width) if self._jobs else 1.0
            left_s = max(0.0, self._jobs[0][0] - self._work_s) / speed if self._jobs else math.inf
            event_s = self._events[0][0] if self._events else math.inf
            next_s = min(self.now_s + left_s, event_s, until_s)
            self.busy_s += (next_s - self.now_s) * speed * self._width
            if self.now_s + left_s <= next_s:
                self._work_s, _, width, then = heapq.heappop(self._jobs)
                self._width = self._width - width if self._jobs else 0.0
                self.now_s = next_s
                then()
                continue
            self._work_s += (next_s - self.now_s) * speed
            self.now_s = next_s
            if event_s <= next_s:
                heapq.heappop(self._events)[2]()


class Thread:
    """Runs a program on a machine."""

    def __init__(self, machine: Machine, program: Program) -> None:
        self._machine, self._program = machine, program
        self._waits = 0  # how often it has waited: a timeout of an earlier wait wakes nothing
        self._is_waiting = self._is_due = False
        machine.at(machine.now_s, self._go)

    def wake(self) -> None:
        """End the present wait, or the next one."""
        if self._is_waiting:
            self._is_waiting = False
            self._machine.at(self._machine.now_s, self._go)
        else:
            self._is_due = True

    def _go(self) -> None:
        for step in self._program:
            if isinstance(step, Work):
                self._machine.compute(step, self._go)
                return
            self._waits += 1
            if not self._is_due:
                self._is_waiting = True
                self._machine.at(self._machine.now_s + step.timeout_s, partial(self._timed_out, self._waits))
                return
            self._is_due = False

    def _timed_out(self, number: int) -> None:
        if self._is_waiting and number == self._waits:
            self._is_waiting = False
            self._go()
