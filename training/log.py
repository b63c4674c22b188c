"""Training log: `log.csv`, optional TensorBoard, and progress on the terminal.

In: each step's loss, and the metrics of each check.  Out: a row every few steps with means since the previous one.
Progress is a bar on a terminal, otherwise plain lines; both show the remaining time.
"""

import csv
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.runtime.progress import duration
from training.losses import LossValue

EVERY_STEPS = 10


class TrainingLog:
    """Appends to an existing log; rows after `step` are removed, as their steps are repeated."""

    def __init__(self, folder: Path, columns: list[str], step: int, steps: int, tensorboard: bool) -> None:
        self.path, self.step, self.steps = folder / "log.csv", step, steps
        rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.columns = ["step", "epoch", "loss", *columns]
        self._write("w", dict(zip(self.columns, self.columns, strict=True)), *rows)
        self._writer = _tensorboard(folder, step) if tensorboard else None
        self._bar = _bar(step, steps)
        self._began_s, self._first_step = time.monotonic(), step
        self._sums: Tensor | None = None
        self._names: list[str] = []
        self._clear()

    def add(self, loss: LossValue) -> None:
        """Accumulate a step's loss."""
        parts = torch.stack([loss.total.detach(), *loss.parts.values()])
        self._sums = parts if self._sums is None else self._sums + parts  # stays on the device: avoids synchronisation
        self._names = ["loss", *loss.parts]
        self._count += 1
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])

    def write(self, step: int, epoch: float, lr: float, metrics: dict[str, float]) -> None:
        """Write the means since the last row, and a check's metrics."""
        means = [] if self._sums is None else (self._sums / self._count).tolist()
        values = dict(zip(self._names, means, strict=True)) | {"lr": lr}
        values["s_per_step"] = (time.monotonic() - self._started_s) / max(1, self._count)
        values |= metrics
        rounded = {name: f"{value:.6g}" for name, value in values.items()}
        self._write("a", {"step": step, "epoch": f"{epoch:.3f}"} | rounded)
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        line = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.say(f"step {step}/{self.steps} {line}, {self._remaining(step)} left")
        self._clear()

    def say(self, line: str) -> None:
        """Print a line, above the progress bar where there is one."""
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.console.print(line, highlight=False, markup=False)

    def close(self) -> None:
        """Close the TensorBoard writer and the progress bar."""
        if self._writer is not None:
            self._writer.close()
        if self._bar is not None:
            self._bar.stop()

    def _remaining(self, step: int) -> str:
        per_step_s = (time.monotonic() - self._began_s) / max(1, step - self._first_step)  # checks included
        return duration((self.steps - step) * per_step_s)

    def _clear(self) -> None:
        self._started_s, self._count, self._sums, self._names = time.monotonic(), 0, None, []

    def _write(self, mode: str, *rows: dict[str, Any]) -> None:
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="", extrasaction="ignore").writerows(rows)


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"tensorboard = True: needs the package tensorboard ({error}): pip install dasnet[tensorboard]"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def _bar(step: int, steps: int) -> Any:
    """Return a progress bar; None without a terminal."""
    if not sys.stdout.isatty():
        return None
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    left = TimeRemainingColumn(elapsed_when_finished=True)
    bar = Progress("training", BarColumn(), MofNCompleteColumn(), left, TextColumn("left"), speed_estimate_period=300)
    bar.add_task("training", total=steps, completed=step)
    bar.start()
    return bar
