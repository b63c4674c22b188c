"""A device for the CUDA engine's tests that runs without a GPU, as late and out of order as streams and events allow.

It runs the engine's calls on the CPU, logs them, and refuses the host a buffer with work pending, so that a missing
wait shows without a GPU.
"""

import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.cuda.device import COMPUTE, COPY_IN, COPY_OUT, Graph, StreamEvent


@dataclass(eq=False)
class SimulatedEvent:
    run_until: "Callable[[SimulatedEvent], None]"
    done: bool = False

    def synchronize(self) -> None:
        self.run_until(self)


@dataclass(eq=False)
class _Work:
    stream: str
    label: str
    work: Callable[[], object] = lambda: None
    waits_for: SimulatedEvent | None = None
    marks: SimulatedEvent | None = None
    buffers: frozenset[int] = frozenset()


@dataclass(eq=False)
class _SimulatedGraph:
    replay: Callable[[], object]


@dataclass(eq=False)
class SimulatedDevice:
    """Runs work only when something waits for it, one step of a random ready stream at a time.

    log: ("issued" or "done", stream, label).  memory_bytes: limit of all tensors of `empty` that are alive.
    fault(moment, label) may raise at the moments "empty", "issued", "done" and "capture"; an error at "done" is
    permanent, as CUDA's are.  Nothing runs while `running` is not set.
    """

    seed: int = 0
    memory_bytes: float = float("inf")
    fault: Callable[[str, str], None] = lambda moment, label: None
    torch_device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    held_bytes: int = 0
    log: list[tuple[str, str, str]] = field(default_factory=list)
    running: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.RLock()
        self._queues: dict[str, deque[_Work]] = {name: deque() for name in (COPY_IN, COMPUTE, COPY_OUT)}
        self._broken: BaseException | None = None
        self.running.set()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype)
        with self._lock:
            self.fault("empty", f"{tuple(shape)}")
            if self.held_bytes + tensor.nbytes > self.memory_bytes:
                raise torch.OutOfMemoryError(f"{tensor.nbytes} bytes beside {self.held_bytes} of {self.memory_bytes}")
            self.held_bytes += tensor.nbytes
        weakref.finalize(tensor, self._freed, tensor.nbytes)
        return tensor.fill_(113) if dtype is torch.uint8 else tensor.fill_(float("nan"))

    def pinned(self, size_bytes: int) -> Tensor:
        return torch.full((size_bytes,), 113, dtype=torch.uint8)

    def host(self, pinned: Tensor) -> Tensor:
        place = pinned.untyped_storage().data_ptr()
        with self._lock:
            for work in (work for queue in self._queues.values() for work in queue):
                assert place not in work.buffers, f"the host uses a buffer while {work.label!r} is pending"
        return pinned

    def launch(self, stream: str, label: str, work: Callable[[], object], *buffers: Tensor) -> None:
        places = frozenset(buffer.untyped_storage().data_ptr() for buffer in buffers)
        self.fault("issued", label)
        self._put(_Work(stream, label, work, buffers=places))

    def record(self, stream: str) -> StreamEvent:
        event = SimulatedEvent(self._run_until)
        self._put(_Work(stream, "record", marks=event))
        return event

    def wait(self, stream: str, event: StreamEvent) -> None:
        assert isinstance(event, SimulatedEvent)
        self._put(_Work(stream, "wait", waits_for=event))

    def capture(self, stream: str, work: Callable[[], object]) -> Graph:
        self.fault("capture", stream)
        return _SimulatedGraph(work)

    def seconds(self, work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def exact(self) -> AbstractContextManager[None]:
        return nullcontext()

    def synchronize(self) -> None:
        for stream in self._queues:
            self.record(stream).synchronize()

    def release(self) -> None:
        pass

    def _put(self, work: _Work) -> None:
        with self._lock:
            self._check()
            self.log.append(("issued", work.stream, work.label))
            self._queues[work.stream].append(work)

    def _run_until(self, event: SimulatedEvent) -> None:
        while True:
            self.running.wait()
            with self._lock:
                self._check()
                if event.done:
                    return
                self._step()

    def _step(self) -> None:
        heads = [queue[0] for queue in self._queues.values() if queue]
        ready = [head for head in heads if head.waits_for is None or head.waits_for.done]
        assert ready, f"deadlock: {[head.label for head in heads]}"
        work = self._random.choice(ready)
        try:
            with torch.inference_mode():
                work.work()
            self.fault("done", work.label)
        except BaseException as error:
            self._broken = error
            raise
        self.log.append(("done", work.stream, work.label))
        if work.marks is not None:
            work.marks.done = True
        self._queues[work.stream].popleft()

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _freed(self, size_bytes: int) -> None:
        with self._lock:
            self.held_bytes -= size_bytes
