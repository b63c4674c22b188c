"""The network on a CUDA device: pinned double buffers, three streams, one graph for each shape.

One thread issues the batches in the order of submission, and waits for the device only to build a plan; another waits
for their results and resolves the Futures.  Of two batches in flight, the second's copy to the device runs beside the
first's computation.  A batch too large for the device's memory is done in smaller ones.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.cuda.device import COMPUTE, COPY_IN, COPY_OUT, CudaDevice, Device, Event
from model.cuda.fused import prepared
from model.cuda.plans import Network, Parts, Plan, Plans, Slot, failure_of, shaped
from model.engine.backend import Frames, Maps
from model.errors import ChoiceError, EngineError, EngineLost

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
SIZES = (1, 2, 4, 8, 16, 32)  # of the batches that run; others are filled up
SLOTS = 2
CLOSE_TIMEOUT_S = 10.0  # a device that hangs must not hang the worker's end

Masks = NDArray[np.bool_]
T = TypeVar("T")


@dataclass(eq=False)
class _Request:
    """Frames submitted; the completing thread joins the results of their parts."""

    frames: Frames
    threshold: float | None
    future: "Future[Any]"
    result: Tensor | None = None
    done: int = 0

    def add(self, start: int, part: Tensor) -> None:
        if self.result is None:
            dtype = torch.float32 if self.threshold is None else torch.bool
            self.result = torch.empty((len(self.frames), *part.shape[1:]), dtype=dtype)
        self.result[start : start + len(part)].copy_(part)  # torch's conversion is several times as fast as numpy's
        self.done += len(part)
        if self.done == len(self.frames) and not self.future.done():
            self.future.set_result(self.result.numpy())


class CudaBackend:
    """See `model.engine.backend.Backend`.  The frames of a batch must not change until its Future is done.

    graphs=False launches operation by operation; tune=False measures no alternatives.  halvings: how often a batch did
    not fit into the device's memory.  sizes: of the batches that run, ascending from 1.
    """

    kind = "cuda"
    max_in_flight = SLOTS

    def __init__(
        self,
        network: nn.Module,
        device: Device | torch.device | str = "cuda",
        precision: str = "fp16",
        multiple: int = 32,
        sizes: tuple[int, ...] = SIZES,
        plans: int = 16,
        graphs: bool = True,
        tune: bool = True,
    ) -> None:
        if precision not in PRECISIONS:
            raise ChoiceError(f"precision {precision!r}; allowed: {', '.join(PRECISIONS)}")
        self._device: Device = CudaDevice(device) if isinstance(device, torch.device | str) else device
        self.device, self.precision = self._device.torch_device, precision
        self._network: Network = prepared(network.eval(), self.device, PRECISIONS[precision])
        self._maps_dtype = torch.float32 if precision == "fp32" else torch.float16
        self._plans = Plans(self._device, self._network, multiple, self._maps_dtype, plans, graphs, tune)
        self._parts = Parts(sizes, self._make_room)
        self._slots = [Slot(self._device) for _ in range(SLOTS)]
        self._free: SimpleQueue[Slot] = SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)
        self._lost: str | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], None]] | None] = SimpleQueue()
        self._in_flight: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._issuer = threading.Thread(target=self._issue_all, name="cuda-issue", daemon=True)
        self._completer = threading.Thread(target=self._complete_all, name="cuda-complete", daemon=True)
        self._issuer.start()
        self._completer.start()

    @property
    def halvings(self) -> int:
        return self._parts.halvings

    @overload
    def submit(self, frames: Frames) -> "Future[Maps]": ...
    @overload
    def submit(self, frames: Frames, threshold: None) -> "Future[Maps]": ...
    @overload
    def submit(self, frames: Frames, threshold: float) -> "Future[Masks]": ...
    def submit(self, frames: Frames, threshold: float | None = None) -> "Future[Any]":
        """With a threshold, a Future of bool (N, H, W): where the largest class probability is above it.

        Raises EngineLost when the device is lost, EngineError after `close`.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise EngineError(f"frames of {frames.dtype} {frames.shape}; allowed: uint8 (N, H, W, 3)")
        future: Future[Any] = Future()
        return self._put(future, partial(self._issue_request, _Request(frames, threshold, future)))

    def logits(self, batch: Tensor) -> Tensor:
        return self._call(partial(self._logits, batch))

    def prepare(self, batch: int, height: int, width: int) -> None:
        """Builds the plan for such batches ahead of the first one; it can take seconds."""
        frames = np.zeros((batch, height, width, 3), np.uint8)
        self._call(lambda: self._parts.run(batch, height, width, lambda start, stop: self._plan(frames[start:stop])))

    def close(self) -> None:
        """Batches in flight are finished, waiting ones cancelled."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with suppress(Empty):
            while (job := self._jobs.get_nowait()) is not None:
                job[0].cancel()
        self._jobs.put(None)
        self._issuer.join(CLOSE_TIMEOUT_S)
        self._completer.join(CLOSE_TIMEOUT_S)
        if self._lost is None and not self._completer.is_alive():
            self._make_room()

    def _call(self, work: Callable[[], T]) -> T:
        """In the issuing thread, in order."""
        future: Future[T] = Future()
        return self._put(future, lambda: future.set_result(work())).result()

    def _put(self, future: "Future[T]", work: Callable[[], None]) -> "Future[T]":
        with self._lock:
            if self._lost is not None:
                raise EngineLost(self._lost)
            if self._closed:
                raise EngineError("the engine is closed; allowed: submit before close()")
            self._jobs.put((future, work))
        return future

    @torch.inference_mode()
    def _issue_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if self._lost is not None:
                    raise EngineLost(self._lost)
                work()
            except Exception as error:  # noqa: BLE001 - raised again where the Future is awaited
                # Through the completing thread: Futures are resolved in the order of submission, all by one thread.
                self._in_flight.put(partial(self._fail, future, error))
        self._in_flight.put(None)

    @torch.inference_mode()
    def _complete_all(self) -> None:
        while (step := self._in_flight.get()) is not None:
            step()

    def _issue_request(self, request: _Request) -> None:
        total, height, width, _ = request.frames.shape
        self._parts.run(total, height, width, partial(self._issue, request))

    def _plan(self, frames: Frames) -> Plan:
        count, height, width = frames.shape[:3]
        return self._plans.get((self._parts.rounded(count), height, width))

    def _make_room(self) -> None:
        self._device.synchronize()
        for slot in self._slots:
            slot.drop()
        self._plans.clear()

    def _issue(self, request: _Request, start: int, stop: int) -> None:
        frames = request.frames[start:stop]
        plan = self._plan(frames)
        slot = self._free.get()  # its last results are taken
        try:
            left = self._enqueue(plan, slot, frames, request.threshold)
        except BaseException:
            with suppress(RuntimeError):  # the copy to the device may be under way; a lost device raises again
                self._device.synchronize()
            self._free.put(slot)
            raise
        shape = self._out_shape(plan, len(frames), request.threshold)
        self._in_flight.put(partial(self._complete, request, start, slot, left, shape))

    def _enqueue(self, plan: Plan, slot: Slot, frames: Frames, threshold: float | None) -> Event:
        device = self._device
        dtype, shape = self._out_shape(plan, len(frames), threshold)
        slot.fit(plan.frames.nbytes, plan.maps.nbytes)
        pinned, arrived = (shaped(buffer, torch.uint8, frames.shape) for buffer in (slot.frames_pinned, slot.frames))
        result, left = (shaped(buffer, dtype, shape) for buffer in (slot.maps, slot.maps_pinned))
        np.copyto(device.host(pinned).numpy(), frames)

        def compute() -> None:
            plan.frames[: len(frames)].copy_(arrived)
            if len(frames) < len(plan.frames):
                plan.frames[len(frames) :].copy_(arrived[-1:].expand(len(plan.frames) - len(frames), -1, -1, -1))
            plan.run()
            maps = plan.maps[: len(frames)]
            if threshold is None:
                result.copy_(maps)
            else:
                torch.gt(maps.amax(dim=1).float(), threshold, out=result)

        device.launch(COPY_IN, "copy in", lambda: arrived.copy_(pinned, non_blocking=True), pinned, arrived)
        device.wait(COMPUTE, device.record(COPY_IN))
        device.launch(COMPUTE, "compute", compute, arrived, result)
        device.wait(COPY_OUT, device.record(COMPUTE))
        device.launch(COPY_OUT, "copy out", lambda: left.copy_(result, non_blocking=True), result, left)
        return device.record(COPY_OUT)

    def _out_shape(self, plan: Plan, count: int, threshold: float | None) -> tuple[torch.dtype, tuple[int, ...]]:
        _, classes, height, width = plan.maps.shape
        if threshold is None:
            return self._maps_dtype, (count, classes, height, width)
        return torch.bool, (count, height, width)

    def _complete(
        self, request: _Request, start: int, slot: Slot, left: Event, shape: tuple[torch.dtype, tuple[int, ...]]
    ) -> None:
        try:
            left.synchronize()
            request.add(start, self._device.host(shaped(slot.maps_pinned, *shape)))
        except Exception as error:  # noqa: BLE001 - raised again where the Future is awaited
            self._fail(request.future, error)
        finally:
            self._free.put(slot)

    def _fail(self, future: "Future[Any]", error: Exception) -> None:
        text = str(error).partition("\n")[0]
        if not isinstance(error, EngineError) and failure_of(error) == "lost":
            with self._lock:
                self._lost = self._lost or f"device {self.device} is lost ({text}); start the process anew"
        if self._lost is not None:
            explained: EngineError = EngineLost(self._lost)
        elif isinstance(error, EngineError):
            explained = error
        else:
            explained = EngineError(f"device {self.device}: {type(error).__name__}: {text}")
        if not future.done():
            explained.__cause__ = error if error is not explained else None
            future.set_exception(explained)

    def _logits(self, batch: Tensor) -> Tensor:
        parts: list[Tensor] = []

        def run(start: int, stop: int) -> None:
            found: list[Tensor] = []

            def work() -> None:
                image = batch[start:stop].to(self.device, self._network.dtype)
                found.append(self._network(image.contiguous(memory_format=torch.channels_last)).float().cpu())

            with self._device.exact():
                self._device.launch(COMPUTE, "logits", work)
                self._device.synchronize()
            parts.extend(found)

        self._parts.run(len(batch), batch.shape[2], batch.shape[3], run)
        return torch.cat(parts)
