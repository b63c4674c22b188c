"""What the CUDA engine keeps on its device: a plan for each shape of a batch, and the buffers of a batch in flight;
how large a batch may be, and what a device's error means.

A plan takes uint8 frames (batch, H, W, 3) in its own buffer to probability maps (batch, classes, H, W) in another: as
one graph, or launch by launch.  Graphs share one memory pool; they never run at once, and nothing but the two buffers,
which lie outside of it, outlives a run.
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
    """memory: try a smaller batch; lost: this process can never use the device again; other: a bug."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:  # a failed capture hides its cause behind an error of its own
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(isinstance(e, torch.OutOfMemoryError) or any(sign in str(e) for sign in MEMORY_SIGNS) for e in chain):
        return "memory"
    accelerator: Any = getattr(torch, "AcceleratorError", ())  # from torch 2.8 on
    if isinstance(error, accelerator) or any(sign in str(error) for sign in LOST_SIGNS):
        return "lost"
    return "other"


class Network(Protocol):
    """dtype: of the images it takes, channels_last."""

    dtype: torch.dtype
    choices: dict[str, str]

    def measuring(self, timer: Callable[[Callable[[], Tensor]], float]) -> AbstractContextManager[None]: ...

    def __call__(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Plan:
    frames: Tensor
    maps: Tensor
    run: Callable[[], object]  # in work launched on the compute stream


class Plans:
    """The most recently used ones."""

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
        self._plans: OrderedDict[Shape, Plan] = OrderedDict()

    @property
    def shapes(self) -> list[Shape]:
        """The least recently used first."""
        return list(self._plans)

    def get(self, shape: Shape) -> Plan:
        """Raises what the device raises, when there is no memory for it above all."""
        if shape not in self._plans:
            while len(self._plans) >= self._capacity:
                self._device.synchronize()  # its last run may still be under way
                self._plans.popitem(last=False)
                self._device.release()
            self._plans[shape] = self._build(shape)
        self._plans.move_to_end(shape)
        return self._plans[shape]

    def clear(self) -> None:
        """Only when the device is idle."""
        self._plans.clear()
        self._device.release()

    def _build(self, shape: Shape) -> Plan:
        batch, height, width = shape
        frames = self._device.empty((*shape, 3), torch.uint8)
        with self._device.exact():
            classes = self._warm_up(frames)
            maps = self._device.empty((batch, classes, height, width), self._maps_dtype)

            def work() -> None:
                self._probabilities(frames, maps)

            if not self._graphs:
                return Plan(frames, maps, lambda: self._exactly(work))
            self._device.launch(COMPUTE, f"rehearse {shape}", work)
            self._device.synchronize()
            return Plan(frames, maps, self._device.capture(COMPUTE, work).replay)

    def _warm_up(self, frames: Tensor) -> int:
        """Chooses the fastest algorithms; returns the number of classes."""
        classes: list[int] = []
        measuring = self._network.measuring(self._device.seconds) if self._tune else nullcontext()

        def work() -> None:
            frames.random_(0, 256)  # zeros can run faster than pictures do
            with measuring:
                classes.append(self._network(self._image(frames)).shape[1])

        self._device.launch(COMPUTE, f"warm up {tuple(frames.shape[:3])}", work)
        self._device.synchronize()
        return classes[0]

    def _exactly(self, work: Callable[[], None]) -> None:
        with self._device.exact():
            work()

    def _probabilities(self, frames: Tensor, maps: Tensor) -> None:
        logits = self._network(self._image(frames))[:, :, : maps.shape[2], : maps.shape[3]]
        # bfloat16 keeps three digits of a probability, too few to threshold near 1.
        torch.sigmoid(logits.float() if logits.dtype is torch.bfloat16 else logits, out=maps)

    def _image(self, frames: Tensor) -> Tensor:
        image = torch.empty_like(frames.permute(0, 3, 1, 2), dtype=self._network.dtype)  # channels_last, as they are
        torch.div(frames.permute(0, 3, 1, 2), 255, out=image)
        return padded(image, self._multiple).contiguous(memory_format=torch.channels_last)


class Slot:
    """The buffers of one batch in flight: as bytes, and only ever growing.  Two of them let the copies of one batch run
    beside the work on another."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.frames_pinned, self.maps_pinned = device.pinned(0), device.pinned(0)
        self.frames, self.maps = (device.empty((0,), torch.uint8) for _ in range(2))

    def fit(self, frames_bytes: int, maps_bytes: int) -> None:
        """Only while nothing is in flight in this slot."""
        if self.frames_pinned.nbytes < frames_bytes:
            self.frames_pinned = self._device.pinned(frames_bytes)
        if self.maps_pinned.nbytes < maps_bytes:
            self.maps_pinned = self._device.pinned(maps_bytes)
        if self.frames.nbytes >= frames_bytes and self.maps.nbytes >= maps_bytes:
            return
        sizes = max(self.frames.nbytes, frames_bytes), max(self.maps.nbytes, maps_bytes)
        self.drop()
        self.frames, self.maps = (self._device.empty((size,), torch.uint8) for size in sizes)
        self._device.synchronize()  # the memory may come from work still queued on another stream

    def drop(self) -> None:
        """What it holds on the device."""
        self.frames, self.maps = (self._device.empty((0,), torch.uint8) for _ in range(2))


def shaped(buffer: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The beginning of a buffer of bytes, as a tensor."""
    count = torch.Size(shape).numel() * dtype.itemsize
    return buffer[:count].view(dtype).view(shape)


class Parts:
    """Batches in parts of a few sizes, as large as the device's memory allows.

    halvings: how often a part did not fit.
    """

    def __init__(self, sizes: tuple[int, ...], make_room: Callable[[], None]) -> None:
        if not sizes or sizes[0] != 1 or list(sizes) != sorted(set(sizes)):
            raise ChoiceError(f"batch sizes {sizes}; allowed: ascending from 1")
        self._sizes, self._make_room, self.halvings = sizes, make_room, 0
        self.limits: dict[tuple[int, int], int] = {}  # the largest part of (height, width) to try, where it was found

    def rounded(self, count: int) -> int:
        """The size that a part of `count` frames runs in, filled up."""
        return next(size for size in self._sizes if size >= count)

    def run(self, total: int, height: int, width: int, work: Callable[[int, int], object]) -> None:
        """work(start, stop), part after part."""
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
            # After the except clause: until its end the error holds the tensors of all calls it came through.
            self._make_room()
            smaller = [size for size in self._sizes if size < self.rounded(stop - start)]
            if not smaller:
                raise EngineError(
                    f"one frame of {height}x{width} does not fit into the device's memory ({reason}); "
                    "allowed: smaller frames, or more free memory"
                )
            self.halvings += 1
            self.limits[height, width] = smaller[-1]
