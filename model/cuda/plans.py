"""The CUDA engine's resources on its device: execution plans, transfer buffers, batch sizes, and error classes.

A plan computes probability maps (batch, classes, H, W) in its output buffer from uint8 frames (batch, H, W, 3) in its
input buffer, as one graph or launch by launch.  Graphs share one memory pool: they never run concurrently, and nothing
but the two buffers, which are outside the pool, outlives a run.
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from model.cuda.device import COMPUTE, Device
from model.engine.backend import padded
from model.errors import ChoiceError, EngineError

Shape = tuple[int, int, int]  # batch, height, width
Failure = Literal["memory", "lost", "other"]

MEMORY_SIGNS = ("out of memory", "STATUS_ALLOC_FAILED")
LOST_SIGNS = ("CUDA error", "CUDA driver error", "STATUS_EXECUTION_FAILED", "STATUS_INTERNAL_ERROR")


def failure_of(error: BaseException) -> Failure:
    """Classify a device's error.

    "memory": a smaller batch may succeed; "lost": this process cannot use the device any more; "other": a bug.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:  # a failed capture chains its cause to an error of its own
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(e, torch.OutOfMemoryError) or any(sign in str(e) for sign in MEMORY_SIGNS) for e in chain):
        return "memory"
    accelerator: Any = getattr(torch, "AcceleratorError", ())  # from torch 2.8 on
    if isinstance(error, accelerator) or any(sign in str(error) for sign in LOST_SIGNS):
        return "lost"
    return "other"


class Network(Protocol):
    """A network that maps images in channels_last, of type `dtype`, to logits."""

    dtype: torch.dtype

    def autotuning(self, timer: Callable[[Callable[[], Any]], float]) -> AbstractContextManager[None]:
        """Time the variants of each step, if there are several, in the calls within the context."""
        ...

    def __call__(self, image: Tensor) -> Tensor:
        """Return logits (N, classes, H, W)."""
        ...


@dataclass(frozen=True)
class ExecutionPlan:
    """Input and output buffers, and the launch between them, called from work on the compute stream."""

    frames: Tensor
    maps: Tensor
    run: Callable[[], object]


class PlanCache:
    """Execution plans by shape; the least recently used is dropped."""

    def __init__(
        self,
        device: Device,
        network: Network,
        multiple: int,
        maps_dtype: torch.dtype,
        capacity: int = 16,
        graphs: bool = True,
        tune: bool = True,
    ) -> None:
        self._device, self._network, self._multiple, self._maps_dtype = device, network, multiple, maps_dtype
        self._capacity, self._graphs, self._tune = capacity, graphs, tune
        self._plans: OrderedDict[Shape, ExecutionPlan] = OrderedDict()

    @property
    def shapes(self) -> list[Shape]:
        """Return the shapes of the plans, the least recently used first."""
        return list(self._plans)

    def get(self, shape: Shape) -> ExecutionPlan:
        """Return the plan for a shape, built if needed.  Raise the device's error, such as out of memory."""
        if shape not in self._plans:
            while len(self._plans) >= self._capacity:
                self._device.synchronize()  # its last run may be in progress
                self._plans.popitem(last=False)
                self._device.release()
            self._plans[shape] = self._build(shape)
        self._plans.move_to_end(shape)
        return self._plans[shape]

    def clear(self) -> None:
        """Drop all plans; the device must be idle."""
        self._plans.clear()
        self._device.release()

    def _build(self, shape: Shape) -> ExecutionPlan:
        batch, height, width = shape
        frames = self._device.empty((*shape, 3), torch.uint8)
        with self._device.exact():
            classes = self._warm_up(frames)
            maps = self._device.empty((batch, classes, height, width), self._maps_dtype)

            def work() -> None:
                self._probabilities(frames, maps)

            if not self._graphs:
                return ExecutionPlan(frames, maps, lambda: self._exactly(work))
            self._device.launch(COMPUTE, f"dry run {shape}", work)
            self._device.synchronize()
            return ExecutionPlan(frames, maps, self._device.capture(COMPUTE, work).replay)

    def _warm_up(self, frames: Tensor) -> int:
        """Select the fastest algorithms and return the number of classes."""
        classes: list[int] = []
        tuning = self._network.autotuning(self._device.seconds) if self._tune else nullcontext()

        def work() -> None:
            frames.random_(0, 256)  # zeros can run faster than images
            with tuning:
                classes.append(self._network(self._image(frames)).shape[1])

        self._device.launch(COMPUTE, f"warm up {tuple(frames.shape[:3])}", work)
        self._device.synchronize()
        return classes[0]

    def _exactly(self, work: Callable[[], None]) -> None:
        with self._device.exact():
            work()

    def _probabilities(self, frames: Tensor, maps: Tensor) -> None:
        logits = self._network(self._image(frames))[:, :, : maps.shape[2], : maps.shape[3]]
        # bfloat16 has three digits, too few for thresholds of probability near 1.
        torch.sigmoid(logits.float() if logits.dtype is torch.bfloat16 else logits, out=maps)

    def _image(self, frames: Tensor) -> Tensor:
        image = torch.empty_like(
            frames.permute(0, 3, 1, 2), dtype=self._network.dtype
        )  # channels_last, like the frames
        torch.div(frames.permute(0, 3, 1, 2), 255, out=image)
        return padded(image, self._multiple).contiguous(memory_format=torch.channels_last)


class TransferBuffers:
    """The byte buffers of one batch in flight, which only grow.

    With two sets of them, the copies of one batch overlap the computation of another.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.frames_pinned, self.maps_pinned = device.pinned(0), device.pinned(0)
        self.frames, self.maps = (device.empty((0,), torch.uint8) for _ in range(2))

    def fit(self, frames_bytes: int, maps_bytes: int) -> None:
        """Grow the buffers to these sizes; they must not be in use."""
        if self.frames_pinned.nbytes < frames_bytes:
            self.frames_pinned = self._device.pinned(frames_bytes)
        if self.maps_pinned.nbytes < maps_bytes:
            self.maps_pinned = self._device.pinned(maps_bytes)
        if self.frames.nbytes >= frames_bytes and self.maps.nbytes >= maps_bytes:
            return
        sizes = max(self.frames.nbytes, frames_bytes), max(self.maps.nbytes, maps_bytes)
        self.drop()
        self.frames, self.maps = (self._device.empty((size,), torch.uint8) for size in sizes)
        self._device.synchronize()  # the memory may be in use by work queued on another stream

    def drop(self) -> None:
        """Release the buffers on the device."""
        self.frames, self.maps = (self._device.empty((0,), torch.uint8) for _ in range(2))


def view_as(buffer: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Return the beginning of a byte buffer as a tensor."""
    count = torch.Size(shape).numel() * dtype.itemsize
    return buffer[:count].view(dtype).view(shape)


class BatchSplitter:
    """Splits batches into parts of a few sizes, as large as the device's memory allows.

    `halvings` counts the parts that did not fit; `limits` holds the largest part to try for a (height, width).
    """

    def __init__(self, sizes: tuple[int, ...], free_memory: Callable[[], None]) -> None:
        if not sizes or sizes[0] != 1 or list(sizes) != sorted(set(sizes)):
            raise ChoiceError(f"batch sizes {sizes}; must ascend from 1")
        self._sizes, self._free_memory, self.halvings = sizes, free_memory, 0
        self.limits: dict[tuple[int, int], int] = {}

    def rounded(self, count: int) -> int:
        """Return the batch size in which a part of `count` frames runs, filled up."""
        return next(size for size in self._sizes if size >= count)

    def run(self, total: int, height: int, width: int, work: Callable[[int, int], object]) -> None:
        """Call work(start, stop) for one part after another."""
        start = 0
        while start < total:
            stop = min(start + self.limits.get((height, width), self._sizes[-1]), total)
            try:
                work(start, stop)
                start = stop
                continue
            except RuntimeError as error:
                if failure_of(error) != "memory":
                    raise
                reason = str(error).partition("\n")[0]
            # After the except clause, within which the error's traceback keeps tensors alive.
            self._free_memory()
            smaller = [size for size in self._sizes if size < self.rounded(stop - start)]
            if not smaller:
                raise EngineError(
                    f"one frame of {height}x{width} does not fit into the device's memory ({reason}); "
                    "must be smaller, or more memory free"
                )
            self.halvings += 1
            self.limits[height, width] = smaller[-1]
