"""One process of a run, alone or among those that `torchrun` started: one for each GPU, or several on a CPU.

Processes share their gradients in each step (`torch.nn.parallel.DistributedDataParallel`); the first one alone checks,
saves and reports, and tells the others what it found.
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

LONGEST_CHECK = timedelta(hours=2)  # for which the other processes wait
T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    device: torch.device
    rank: int = 0
    local_rank: int = 0  # on its host
    world: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network, sharing its gradients."""
        if self.world == 1:
            return network
        # static_graph: PSPNet has weights that are never used, which the wrapper would wait for.
        return nn.parallel.DistributedDataParallel(network, static_graph=True)

    def from_first(self, work: Callable[[], T]) -> T:
        """What the first process makes of it, in all of them."""
        if self.world == 1:
            return work()
        answer = [work() if self.is_first else None]
        dist.broadcast_object_list(answer, device=self.device)
        return answer[0]  # type: ignore[return-value]

    def any(self, holds: bool) -> bool:
        """Whether it holds in one of the processes."""
        if self.world == 1:
            return holds
        flag = torch.tensor(float(holds), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    @contextmanager
    def first_on_host(self) -> Iterator[None]:
        """One process of a host goes before the others, which find what it left on disk."""
        if self.world > 1 and self.local_rank:
            dist.barrier()
        yield
        if self.world > 1 and not self.local_rank:
            dist.barrier()


@contextmanager
def start_process(device: str) -> Iterator[Process]:
    """This process on `device`: auto, cpu, cuda or cuda:N.  Raises ConfigError where there is no such device."""
    rank, local_rank, world = (int(os.environ.get(key, default)) for key, default in PLACES)
    place = _device(device, local_rank)
    if world == 1:
        yield Process(place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=LONGEST_CHECK)
    try:
        yield Process(place, rank, local_rank, world)
    finally:
        dist.destroy_process_group()


PLACES = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))  # as torchrun sets them


def _device(name: str, local_rank: int) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in ("auto", "cuda") and count:
        name = f"cuda:{local_rank}"
    allowed = ["auto", "cpu", *(f"cuda:{number}" for number in range(count))]
    if name not in allowed:
        raise ConfigError(f"device = {name!r}; allowed here: {', '.join(allowed)}")
    return torch.device("cpu" if name == "auto" else name)
