"""A training as the command line asks for it: here, or on a Ray cluster."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.allocator import keep_memory
from model.errors import ModelError
from pipeline.errors import DasnetError
from training.config import load_config
from training.train import train


@dataclass(frozen=True)
class RayOptions:
    """Where and how `dasnet train --ray` trains."""

    address: str  # auto, or HOST:PORT of a cluster's head
    processes: int | None = None  # None: one on each GPU, otherwise one on each node
    sweep: Path | None = None  # file of a sweep, instead of one run


def run_training(
    path: Path, out: Path | None, resume: bool, changes: Sequence[str], ray: RayOptions | None = None
) -> int:
    """Train as `dasnet train` does; return 0 when done or stopped, 1 on failure, 2 for wrong configuration or data."""
    keep_memory()
    try:
        config = load_config(path, changes)
        folder = out or Path(config.out or Path(".cache/runs") / path.stem)
        if ray is None:
            train(config, folder, resume)
        elif ray.sweep is None:
            from training.on_ray import train_on_ray

            train_on_ray(ray.address, config, folder, resume, ray.processes)
        else:
            from training.sweep import load_sweep
            from training.sweep_on_ray import sweep_on_ray

            best = sweep_on_ray(ray.address, load_sweep(ray.sweep), path, changes, folder, resume)
            print(f"train it: {training_command(path, [*changes, *best])}")
    except (DasnetError, ModelError) as error:
        print(f"train: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def training_command(path: Path, changes: Sequence[str]) -> str:
    """Return the command that trains a configuration with these changes, as a shell reads it."""
    return shlex.join(["dasnet", "train", str(path), *(word for each in changes for word in ("--set", each))])
