"""The interface between the CUDA engine and a device: named streams, events, buffers and graphs.

Work is submitted as functions that run in the order of their stream.  `CudaDevice` implements it with torch.cuda; the
tests implement it with a simulated device (tests/support/simulated_device.py).
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

COPY_IN, COMPUTE, COPY_OUT = "copy in", "compute", "copy out"


class StreamEvent(Protocol):
    """A point in a stream."""

    def synchronize(self) -> None:
        """Block until the stream has passed this point.  Raise the device's error."""


class Graph(Protocol):
    """Captured work that can be launched again at once."""

    def replay(self) -> object:
        """Launch the captured work."""
        ...


class Device(Protocol):
    """Streams, events, buffers and graphs of a device.  Thread-safe."""

    torch_device: torch.device

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Allocate a tensor on the device, uninitialised."""

    def pinned(self, size_bytes: int) -> Tensor:
        """Allocate a page-locked uint8 buffer on the host."""

    def host(self, pinned: Tensor) -> Tensor:
        """Return a pinned buffer, or a part of it, for use by the host while no stream uses it."""

    def launch(self, stream: str, label: str, work: Callable[[], object], *buffers: Tensor) -> None:
        """Submit work to a stream, in whose order it runs later; `buffers` are those shared with the host."""

    def record(self, stream: str) -> StreamEvent:
        """Return an event at the stream's current end."""
        ...

    def wait(self, stream: str, event: StreamEvent) -> None:
        """Make the stream's later work wait for the event, without blocking the host."""

    def capture(self, stream: str, work: Callable[[], object]) -> Graph:
        """Capture the work as a graph without running it."""
        ...

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the device's time for the work without the host's launches.  Call it from launched work."""

    def exact(self) -> AbstractContextManager[None]:
        """Disable TF32 and enable cuDNN's benchmark mode, around launches; replayed graphs do not need it."""

    def synchronize(self) -> None:
        """Block until all work is done.  Raise the device's error."""
        ...

    def release(self) -> None:
        """Return unused memory to the system."""


_cuda: Any = torch.cuda  # partly untyped
# torch allows one capture at a time per process, and cuDNN's flags are global.
_CAPTURE_LOCK = threading.RLock()


class CudaDevice:
    """A `Device` through torch.cuda."""

    REPEATS = 4  # runs of the work in a timed graph

    def __init__(self, device: torch.device | str = "cuda") -> None:
        named = torch.device(device)
        self.torch_device = torch.device("cuda", torch.cuda.current_device() if named.index is None else named.index)
        self._streams = {name: _cuda.Stream(self.torch_device) for name in (COPY_IN, COMPUTE, COPY_OUT)}
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        self._pool: Any = None

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See `Device.empty`."""
        with torch.cuda.stream(self._streams[COMPUTE]):
            return torch.empty(shape, dtype=dtype, device=self.torch_device)

    def pinned(self, size_bytes: int) -> Tensor:
        """See `Device.pinned`."""
        with torch.cuda.device(self.torch_device):
            return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)

    def host(self, pinned: Tensor) -> Tensor:
        """See `Device.host`."""
        return pinned

    def launch(self, stream: str, label: str, work: Callable[[], object], *buffers: Tensor) -> None:  # noqa: ARG002
        """See `Device.launch`."""
        with torch.cuda.stream(self._streams[stream]):
            work()

    def record(self, stream: str) -> StreamEvent:
        """See `Device.record`."""
        event: torch.cuda.Event = _cuda.Event(blocking=True)  # wait by sleeping, not spinning: cameras need the CPU
        event.record(self._streams[stream])
        return event

    def wait(self, stream: str, event: StreamEvent) -> None:
        """See `Device.wait`."""
        assert isinstance(event, torch.cuda.Event)
        self._streams[stream].wait_event(event)

    def capture(self, stream: str, work: Callable[[], object]) -> Graph:
        """See `Device.capture`."""
        if not self._graphs:  # a pool is freed with its last graph
            self._pool = torch.cuda.graph_pool_handle()
        graph = self._capture_graph(self._streams[stream], work, self._pool)
        self._graphs.add(graph)
        return graph

    def seconds(self, work: Callable[[], object]) -> float:
        """See `Device.seconds`."""
        stream = torch.cuda.current_stream(self.torch_device)
        work()  # selects algorithms, and fails outside the capture if it fails

        def repeated() -> None:
            for _ in range(self.REPEATS):
                work()

        graph = self._capture_graph(stream, repeated, None)
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
        """See `Device.exact`."""
        flags = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False)
        with _CAPTURE_LOCK, torch.cuda.device(self.torch_device), flags:
            yield

    def synchronize(self) -> None:
        """See `Device.synchronize`."""
        torch.cuda.synchronize(self.torch_device)

    def release(self) -> None:
        """See `Device.release`."""
        torch.cuda.empty_cache()

    def _capture_graph(self, stream: torch.cuda.Stream, work: Callable[[], object], pool: Any) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads wait for events and copy meanwhile.  The outer context restores the stream even
        # where the end of a failed capture raises.
        with (
            torch.cuda.stream(stream),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            work()
        return graph
