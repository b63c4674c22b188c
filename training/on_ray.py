"""Training on a Ray cluster: `dasnet train --ray`, a run in several processes or a sweep of trials.

Nodes share the data, the cache and `--out` under the same paths.  A run's processes are started by Ray Train, which
does what torchrun does otherwise: when one dies, or its node, all are started again and continue from the last
`state.pt`.
"""

import csv
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline import __version__
from pipeline.bulk.cluster import connected
from pipeline.errors import ConfigError, DasnetError
from training.config import TrainingConfig, parse_config
from training.distributed import CHECK_TIMEOUT

MAX_FAILURES = 3  # of a run or a trial, each continued from its last state
FOLLOW_S = 1.0
PROCESS_CPUS = 1.0  # of a run; a trial has `threads`


@contextmanager
def cluster(address: str, needed: str) -> Iterator[ModuleType]:
    """Connect to a cluster, and return `ray` with its part `needed`; raise ConfigError, DasnetError."""
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # relative paths of configurations hold in trials
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    with connected(address) as ray:
        try:
            __import__(f"ray.{needed}")
        except ImportError as error:
            raise ConfigError(
                f'--ray needs ray.{needed}, which lacks a package here ({error}): pip install "dasnet[ray]"'
            ) from error
        yield ray


def total(ray: ModuleType, resource: str) -> int:
    """Return how many `CPU` or `GPU` the cluster has."""
    return int(ray.cluster_resources().get(resource, 0))


def uses_gpus(ray: ModuleType, config: TrainingConfig) -> bool:
    """Return whether each process gets a GPU of its own."""
    return config.device != "cpu" and total(ray, "GPU") > 0


def here() -> tuple[str, str]:
    """Return what processes on other nodes must agree on: the working directory and the version."""
    return str(Path.cwd()), __version__


def arrive(where: tuple[str, str]) -> None:
    """Make a process on a node agree; raise DasnetError where it cannot."""
    folder, version = where
    if version != __version__:
        raise DasnetError(f"node with dasnet {__version__}; must be {version}")
    try:
        os.chdir(folder)
    except OSError as error:
        raise DasnetError(f"{folder}: {error.strerror}; must be a folder that all nodes share") from error


def train_on_ray(address: str, config: TrainingConfig, folder: Path, resume: bool, processes: int | None) -> None:
    """Train in several processes of a cluster.

    Args:
        address: HOST:PORT of the cluster's head, or `auto`.
        config: of the run.
        folder: of the run, on a file system that all nodes share.
        resume: from the state in it.
        processes: None: one on each GPU, otherwise one on each node.

    Raises:
        ConfigError: Ray is not installed, the cluster is too small, or the configuration or data is wrong.
        DasnetError: No cluster at that address, or the training failed.
    """
    folder = folder.absolute()
    if (folder / "state.pt").exists() and not resume:
        raise ConfigError(f"--out {folder}: holds the state of a run; expected another folder, or --resume")
    with cluster(address, "train") as ray:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        use_gpu = uses_gpus(ray, config)
        most = total(ray, "GPU" if use_gpu else "CPU")
        nodes = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
        count = processes or (most if use_gpu else nodes)
        if not 1 <= count <= most:
            raise ConfigError(f"--processes {count}: must be at most {most}, the {'GPU' if use_gpu else 'CPU'}s there")
        trainer = TorchTrainer(
            partial(_process, here(), config.model_dump(), str(folder)),
            scaling_config=ScalingConfig(num_workers=count, use_gpu=use_gpu, resources_per_worker=_each(use_gpu)),
            torch_config=TorchConfig(timeout_s=round(CHECK_TIMEOUT.total_seconds())),
            run_config=RunConfig(
                storage_path=str(folder / "ray"), failure_config=FailureConfig(max_failures=MAX_FAILURES)
            ),
        )
        try:
            with _shown(folder / "log.csv"):
                trainer.fit()
        except Exception as error:  # noqa: BLE001 - of Ray's own kinds, which hold the processes' errors
            raise DasnetError(f"--ray {address}: {reason_of(error)}") from None


@contextmanager
def _shown(log: Path) -> Iterator[None]:
    """Print the rows of a run's log as they come: what processes on nodes print is lost among Ray's own lines."""
    ended = threading.Event()

    def follow() -> None:
        shown = -1
        while True:
            is_last = ended.wait(FOLLOW_S)
            rows = _rows(log)
            if rows and rows[-1][0] < shown:
                print(f"a process died; continued from step {(shown := rows[-1][0])}", flush=True)
            for step, text in rows:
                if step > shown:
                    print(text, flush=True)
                    shown = step
            if is_last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _rows(log: Path) -> list[tuple[int, str]]:
    """Return steps and texts of the complete rows of a log that another process writes."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError:  # not there yet
        return []
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    return [(int(row["step"]), " ".join(f"{name} {value}" for name, value in row.items() if value)) for row in rows]


def _each(use_gpu: bool) -> dict[str, float]:
    return {"CPU": PROCESS_CPUS} | ({"GPU": 1.0} if use_gpu else {})


def _process(where: tuple[str, str], settings: dict[str, Any], folder: str) -> None:
    """Run one process of a training; Ray Train has made the process group."""
    from training.train import train

    arrive(where)
    # No process saves a state before all have begun: they agree on whether there is one.
    train(parse_config(settings), Path(folder), resume=(Path(folder) / "state.pt").exists())


def reason_of(error: BaseException) -> str:
    """Return the last line of the innermost error, which is the process's own."""
    failures = getattr(error, "worker_failures", None)
    text = str(next(iter(failures.values())) if failures else error).strip()
    return (text.splitlines() or [type(error).__name__])[-1].removeprefix("pipeline.errors.")
