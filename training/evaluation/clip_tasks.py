"""`dasnet evaluate-clips --ray`: each clip a task on a Ray cluster, whose nodes share data, checkpoint and replays."""

import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from model.checkpoint import Loaded, load
from model.engine.engine import Engine
from pipeline import __version__
from pipeline.bulk.cluster import connected
from pipeline.errors import DasnetError
from training.datasets import Clip
from training.evaluation.clip_results import ClipResult
from training.evaluation.clips import evaluate_scaled

LOST_TRIES = 3  # of a clip whose process or node disappeared
Task = tuple[str, Clip, float]  # set, clip, scale


def evaluate_on_ray(
    address: str, tasks: Sequence[Task], folder: Path, checkpoint: Path, engine: str, share: float
) -> list[ClipResult]:
    """Return the results of clips in their order; raise ConfigError, DasnetError for a cluster or a clip that fails."""
    results: dict[int, ClipResult] = {}
    with connected(address) as ray:
        remote = ray.remote(num_cpus=1, max_retries=LOST_TRIES)(_evaluate)
        how = __version__, folder, checkpoint, engine, share
        waiting: dict[Any, int] = {remote.remote(*how, *task): number for number, task in enumerate(tasks)}
        while waiting:
            ready, _ = ray.wait(list(waiting))
            for reference in ready:
                number = waiting.pop(reference)
                try:
                    results[number] = ray.get(reference)
                except ray.exceptions.RayError as error:
                    text = (str(error).strip() or type(error).__name__).splitlines()[-1]
                    raise DasnetError(f"{tasks[number][1].name}: {text}") from None
                print(f"\r{len(results)}/{len(tasks)} {tasks[number][1].name:<24}", end="", file=sys.stderr, flush=True)
    return [results[number] for number in range(len(tasks))]


def _evaluate(
    version: str, folder: Path, checkpoint: Path, kind: str, share: float, set_name: str, clip: Clip, scale: float
) -> ClipResult:
    if version != __version__:
        raise DasnetError(f"node with dasnet {__version__}; must be {version}")
    loaded, engine = _engine(checkpoint, kind)
    return evaluate_scaled(set_name, clip, scale, folder, loaded, engine, share)


@lru_cache(maxsize=1)
def _engine(checkpoint: Path, kind: str) -> tuple[Loaded, Engine]:
    """Return checkpoint and engine; Ray's processes are used for one clip after another, and loading takes seconds."""
    loaded = load(checkpoint)
    return loaded, Engine(loaded, kind=kind)
