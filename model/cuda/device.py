"""The thin layer between the CUDA engine and a device: streams by name, events, buffers and graphs.

Work enters as functions, to be run in the order of their stream.  `CudaDevice` is torch.cuda.  `HostDevice` runs the
same calls on the processor, as late and in as odd an order as streams and events allow, logs them, and refuses the host
a buffer with work pending: a forgotten wait shows without a GPU.
"""

import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

COPY_IN, COMPUTE, COPY_OUT = "copy in", "compute", "copy out"  # the streams


class Event(Protocol):
    """A point in a stream."""

    def synchronize(self) -> None:
        """Returns when the stream has come past it; raises what the device raised."""


class Graph(Protocol):
    def replay(self) -> object: ...


class Device(Protocol):
    """Calls come from two threads at once.  What `launch` is given runs later, in the order of its stream."""

    torch_device: torch.device

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """On the device."""

    def pinned(self, size_bytes: int) -> Tensor:
        """uint8, page-locked, on the host."""

    def host(self, pinned: Tensor) -> Tensor:
        """Before the host uses (a part of) a pinned buffer, which no stream may touch meanwhile."""

    def launch(self, stream: str, label: str, work: Callable[[], object], *buffers: Tensor) -> None:
        """`buffers`: those that host and streams share."""

    def record(self, stream: str) -> Event: ...

    def wait(self, stream: str, event: Event) -> None:
        """The stream's later work waits for the event; the host does not."""

    def capture(self, stream: str, work: Callable[[], object]) -> Graph: ...

    def seconds(self, work: Callable[[], object]) -> float:
        """How long the device takes for it, the host's launching left out.  Called from launched work."""

    def exact(self) -> AbstractContextManager[None]:
        """Float32 is float32, and the fastest algorithm is searched for.  Around launches, not around replays."""

    def synchronize(self) -> None: ...

    def release(self) -> None:
        """Memory that nobody holds goes back to the system."""


_cuda: Any = torch.cuda  # partly without types
# torch allows one capture at a time in a process, and cuDNN's flags are the process's.
_ONE_AT_A_TIME = threading.RLock()


class CudaDevice:
    REPEATS = 4  # of the work in a timed graph

    def __init__(self, device: torch.device | str = "cuda") -> None:
        named = torch.device(device)
        self.torch_device = torch.device("cuda", torch.cuda.current_device() if named.index is None else named.index)
        self._streams = {name: _cuda.Stream(self.torch_device) for name in (COPY_IN, COMPUTE, COPY_OUT)}
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        self._pool: Any = None

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        with torch.cuda.stream(self._streams[COMPUTE]):
            return torch.empty(shape, dtype=dtype, device=self.torch_device)

    def pinned(self, size_bytes: int) -> Tensor:
        with torch.cuda.device(self.torch_device):
            return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)

    def host(self, pinned: Tensor) -> Tensor:
        return pinned

    def launch(self, stream: str, label: str, work: Callable[[], object], *buffers: Tensor) -> None:  # noqa: ARG002
        with torch.cuda.stream(self._streams[stream]):
            work()

    def record(self, stream: str) -> Event:
        event: torch.cuda.Event = _cuda.Event(blocking=True)  # its waiter sleeps: the cameras need the processor
        event.record(self._streams[stream])
        return event

    def wait(self, stream: str, event: Event) -> None:
        assert isinstance(event, torch.cuda.Event)
        self._streams[stream].wait_event(event)

    def capture(self, stream: str, work: Callable[[], object]) -> Graph:
        if not self._graphs:  # a pool ends with its last graph
            self._pool = torch.cuda.graph_pool_handle()
        graph = self._captured(self._streams[stream], work, self._pool)
        self._graphs.add(graph)
        return graph

    def seconds(self, work: Callable[[], object]) -> float:
        stream = torch.cuda.current_stream(self.torch_device)
        work()  # searches for algorithms, and fails outside of the capture if it must

        def repeated() -> None:
            for _ in range(self.REPEATS):
                work()

        graph = self._captured(stream, repeated, None)
        start, end = (_cuda.Event(enable_timing=True) for _ in range(2))
        times_ms: list[float] = []
        for _ in range(4):
            start.record(stream)
            graph.replay()
            end.record(stream)
            end.synchronize()
            times_ms.append(start.elapsed_time(end))
        return min(times_ms[1:]) / 1000 / self.REPEATS

    @contextmanager
    def exact(self) -> Iterator[None]:
        flags = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False)
        with _ONE_AT_A_TIME, torch.cuda.device(self.torch_device), flags:
            yield

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def release(self) -> None:
        torch.cuda.empty_cache()

    def _captured(self, stream: torch.cuda.Stream, work: Callable[[], object], pool: Any) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads go on waiting for events and copying meanwhile.  The outer context restores the
        # stream even where the end of a failed capture raises.
        with (
            torch.cuda.stream(stream),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            work()
        return graph


@dataclass(eq=False)
class HostEvent:
    run_until: "Callable[[HostEvent], None]"
    done: bool = False

    def synchronize(self) -> None:
        self.run_until(self)


@dataclass(eq=False)
class _Work:
    stream: str
    label: str
    work: Callable[[], object] = lambda: None
    waits_for: HostEvent | None = None
    marks: HostEvent | None = None
    buffers: frozenset[int] = frozenset()


@dataclass(eq=False)
class _HostGraph:
    replay: Callable[[], object]


@dataclass(eq=False)
class HostDevice:
    """Work runs only when someone waits for it, one step of a random ready stream at a time.

    log: ("issued" or "done", stream, label).  memory_bytes: of `empty`, all that is held at once.  fault(moment, label)
    may raise, at the moments "empty", "issued", "done" and "capture"; what it raises at "done" is for ever, as CUDA's.
    While `running` is not set nothing is executed.
    """

    seed: int = 0
    memory_bytes: float = float("inf")
    fault: Callable[[str, str], None] = lambda moment, label: None  # noqa: ARG005
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
                assert place not in work.buffers, f"the host uses a buffer while {work.label!r} is still to come"
        return pinned

    def launch(self, stream: str, label: str, work: Callable[[], object], *buffers: Tensor) -> None:
        places = frozenset(buffer.untyped_storage().data_ptr() for buffer in buffers)
        self.fault("issued", label)
        self._put(_Work(stream, label, work, buffers=places))

    def record(self, stream: str) -> Event:
        event = HostEvent(self._run_until)
        self._put(_Work(stream, "record", marks=event))
        return event

    def wait(self, stream: str, event: Event) -> None:
        assert isinstance(event, HostEvent)
        self._put(_Work(stream, "wait", waits_for=event))

    def capture(self, stream: str, work: Callable[[], object]) -> Graph:
        self.fault("capture", stream)
        return _HostGraph(work)

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

    def _run_until(self, event: HostEvent) -> None:
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
