"""Data-parallel training: one process of a run, alone or among those that `torchrun` started.

Processes average their gradients in each step (`torch.nn.parallel.DistributedDataParallel`); rank 0 alone validates,
saves and reports, and broadcasts its results.
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
    if world == 1:
        yield DistributedProcess(place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=CHECK_TIMEOUT)
    try:
        yield DistributedProcess(place, rank, local_rank, world)
    finally:
        dist.destroy_process_group()


PLACES = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))  # as torchrun sets them


def _device(name: str, local_rank: int) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in ("auto", "cuda") and count:
        name = f"cuda:{local_rank}"
    allowed = ["auto", "cpu", *(f"cuda:{number}" for number in range(count))]
    if name not in allowed:
        raise ConfigError(f"device = {name!r}; must be one of {', '.join(allowed)}")
    return torch.device("cpu" if name == "auto" else name)
