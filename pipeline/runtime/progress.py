"""Progress of long work on stderr: a bar on a terminal, elsewhere a line every ten seconds."""

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

PRINT_PERIOD_S = 10.0


class ProgressDisplay:
    """Display progress between entry and exit: `start` begins a task, `advance` updates it."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar = _bar() if sys.stderr.isatty() else None
        self._name = ""
        self._task: Any = None
        self._printed_s = time.monotonic()
        self._since: tuple[float, int] = (
            self._printed_s,
            0,
        )  # when the rate was last printed, and the amount done by then

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, name: str) -> None:
        """Begin a task."""
        self._name, self._since = name, (time.monotonic(), 0)
        if self._bar is not None:
            self._task = self._bar.add_task(name, total=None, rate="")

    def advance(self, done: int, total: int | None) -> None:
        """Update the current task; total None: unknown."""
        if self._bar is not None:
            speed = next(task.speed for task in self._bar.tasks if task.id == self._task)
            rate = f"{speed:.1f} {self._unit}/s" if speed else ""
            self._bar.update(self._task, completed=done, total=total, rate=rate)
            return
        now_s = time.monotonic()
        if now_s - self._printed_s >= PRINT_PERIOD_S:
            since_s, done_before = self._since
            print(
                self._line(done, total, (done - done_before) / max(1e-9, now_s - since_s)), file=sys.stderr, flush=True
            )
            self._printed_s, self._since = now_s, (now_s, done)

    def _line(self, done: int, total: int | None, rate: float) -> str:
        if total is None:
            return f"{self._name}: {done} {self._unit}, {rate:.1f} {self._unit}/s"
        remaining = duration(max(0, total - done) / rate) if rate else "unknown time"
        share = 100 * done // max(1, total)
        return f"{self._name}: {done}/{total} {self._unit} ({share} %), {rate:.1f} {self._unit}/s, {remaining} left"


def duration(seconds: float) -> str:
    """Return hours, minutes and seconds as 0:01:30."""
    return str(timedelta(seconds=round(seconds)))


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))
