"""Data-parallel training: one process of a run, alone or among those that `torchrun` or Ray Train started.

Processes average their gradients in each step (`torch.nn.parallel.DistributedDataParallel`); rank 0 alone validates,
saves and reports, and broadcasts its results.  Where a process dies, `torchrun --max-restarts` ends the others and
starts all of them again, and they continue from the state that rank 0 saved last.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from pipeline.errors import ConfigError

CHECK_TIMEOUT = timedelta(hours=2)  # the other processes wait while rank 0 validates
T = TypeVar("T")


@dataclass(frozen=True)
class DistributedProcess:
    """A process's device and its place in the process group."""

    device: torch.device
    rank: int = 0
    local_rank: int = 0  # on its host
    world: int = 1
    was_restarted: bool = False  # by its host's torchrun, after a process there had died

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the network, its gradients averaged over processes."""
        if self.world == 1:
            return network
        # static_graph: PSPNet has unused weights, for whose gradients the wrapper would wait.
        return nn.parallel.DistributedDataParallel(network, static_graph=True)

    def from_first(self, work: Callable[[], T]) -> T:
        """Return in every process what `work` returns in rank 0, which alone runs it."""
        if self.world == 1:
            return work()
        result = [work() if self.is_first else None]
        dist.broadcast_object_list(result, device=self.device)
        return result[0]  # type: ignore[return-value]

    def any(self, holds: bool) -> bool:
        """Return whether `holds` is true in any of the processes."""
        if self.world == 1:
            return holds
        flag = torch.tensor(float(holds), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of each value over processes."""
        if self.world == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.world

    @contextmanager
    def first_on_host(self) -> Iterator[None]:
        """Let one process of each host run first; the others then find its results on disk."""
        if self.world > 1 and self.local_rank:
            dist.barrier()
        yield
        if self.world > 1 and not self.local_rank:
            dist.barrier()


@contextmanager
def start_process(device: str) -> Iterator[DistributedProcess]:
    """Yield this process on `device` (auto, cpu, cuda, cuda:N); raise ConfigError where there is no such device."""
    rank, local_rank, world = (int(os.environ.get(key, default)) for key, default in PLACES)
    place = _device(device, local_rank)
    was_restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    _check_restarts()
    if world == 1:
        yield DistributedProcess(place, was_restarted=was_restarted)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if dist.is_initialized():  # by Ray Train, which also ends it
        yield DistributedProcess(place, rank, local_rank, world, was_restarted)
        return
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=CHECK_TIMEOUT)
    try:
        yield DistributedProcess(place, rank, local_rank, world, was_restarted)
    finally:
        dist.destroy_process_group()


def _check_restarts() -> None:
    """Raise ConfigError where processes that are started again would connect to those before them.

    `torchrun` keeps one store for all rounds, in which addresses of the ended processes remain.
    """
    keeps_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if keeps_store and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        raise ConfigError(
            f"torchrun --max-restarts: needs {OWN_STORES}=1 in the environment; without it, processes that are started "
            "again find the addresses of those that have ended"
        )


OWN_STORES = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
PLACES = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))  # as torchrun sets them


def _device(name: str, local_rank: int) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in ("auto", "cuda") and count:
        name = f"cuda:{local_rank}"
    allowed = ["auto", "cpu", *(f"cuda:{number}" for number in range(count))]
    if name not in allowed:
        raise ConfigError(f"device = {name!r}; must be one of {', '.join(allowed)}")
    return torch.device("cpu" if name == "auto" else name)
