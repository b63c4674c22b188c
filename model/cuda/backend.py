"""The CUDA engine: pinned double buffers, three streams, one CUDA graph per shape.

One thread launches the batches in the order of submission, and waits for the device only to build a plan; another waits
for their results and resolves the Futures.  Of two batches in flight, the second's copy to the device overlaps the
first's computation.  A batch too large for the device's memory runs in smaller ones.
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

from model.cuda.device import COMPUTE, COPY_IN, COPY_OUT, CudaDevice, Device, StreamEvent
from model.cuda.fused import fastest_network
from model.cuda.plans import BatchSplitter, ExecutionPlan, Network, PlanCache, TransferBuffers, failure_of, view_as
from model.engine.backend import Frames, Maps
from model.errors import ChoiceError, EngineError, EngineLost

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
BATCH_SIZES = (1, 2, 4, 8, 16, 32)  # other batches are filled up to the next size
MAX_IN_FLIGHT = 2
CLOSE_TIMEOUT_S = 10.0  # a hung device must not block the worker's shutdown

Masks = NDArray[np.bool_]
T = TypeVar("T")


@dataclass(eq=False)
class _Request:
    """Submitted frames, whose results the completing thread assembles part by part."""

    frames: Frames
    threshold: float | None
    future: "Future[Any]"
    result: Tensor | None = None
    done: int = 0

    def add(self, start: int, part: Tensor) -> None:
        if self.result is None:
            dtype = torch.float32 if self.threshold is None else torch.bool
            self.result = torch.empty((len(self.frames), *part.shape[1:]), dtype=dtype)
        self.result[start : start + len(part)].copy_(part)  # torch converts several times faster than numpy
        self.done += len(part)
        if self.done == len(self.frames) and not self.future.done():
            self.future.set_result(self.result.numpy())


class CudaBackend:
    """A `model.engine.backend.Backend`.  The frames of a batch must not change until its Future is done.

    Args (keyword arguments serve tests and benchmarks):
        network: Any network; DAS-Net runs in its fastest implementation.
        device: A CUDA device, or a `Device`.
        precision: One of PRECISIONS.
        multiple: Sides of the network's input are multiples of this.
        sizes: Batch sizes that run, ascending from 1.
        plans: How many execution plans are kept.
        graphs: False launches operation by operation.
        tune: False skips the timing of variants.
    """

    kind = "cuda"
    max_in_flight = MAX_IN_FLIGHT

    def __init__(
        self,
        network: nn.Module,
        device: Device | torch.device | str = "cuda",
        precision: str = "fp16",
        multiple: int = 32,
        sizes: tuple[int, ...] = BATCH_SIZES,
        plans: int = 16,
        graphs: bool = True,
        tune: bool = True,
    ) -> None:
        if precision not in PRECISIONS:
            raise ChoiceError(f"precision {precision!r}; must be one of {', '.join(PRECISIONS)}")
        self._device: Device = CudaDevice(device) if isinstance(device, torch.device | str) else device
        self.device, self.precision = self._device.torch_device, precision
        self._network: Network = fastest_network(network.eval(), self.device, PRECISIONS[precision])
        self._maps_dtype = torch.float32 if precision == "fp32" else torch.float16
        self._plans = PlanCache(self._device, self._network, multiple, self._maps_dtype, plans, graphs, tune)
        self._splitter = BatchSplitter(sizes, self._free_memory)
        self._buffers = [TransferBuffers(self._device) for _ in range(MAX_IN_FLIGHT)]
        self._free: SimpleQueue[TransferBuffers] = SimpleQueue()
        for buffers in self._buffers:
            self._free.put(buffers)
        self._lost: str | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], None]] | None] = SimpleQueue()
        self._in_flight: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._launcher = threading.Thread(target=self._launch_all, name="cuda-launch", daemon=True)
        self._completer = threading.Thread(target=self._complete_all, name="cuda-complete", daemon=True)
        self._launcher.start()
        self._completer.start()

    @property
    def halvings(self) -> int:
        """Return how often a batch did not fit into the device's memory."""
        return self._splitter.halvings

    @overload
    def submit(self, frames: Frames) -> "Future[Maps]": ...
    @overload
    def submit(self, frames: Frames, threshold: None) -> "Future[Maps]": ...
    @overload
    def submit(self, frames: Frames, threshold: float) -> "Future[Masks]": ...
    def submit(self, frames: Frames, threshold: float | None = None) -> "Future[Any]":
        """Return a Future of probabilities, or with a threshold, of the masks they exceed.

        Masks are bool (N, H, W), true where the largest class probability is above the threshold.  Raise EngineLost
        when the device is lost, EngineError after `close`.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise EngineError(f"frames of {frames.dtype} {frames.shape}; must be uint8 (N, H, W, 3)")
        future: Future[Any] = Future()
        return self._put(future, partial(self._launch_request, _Request(frames, threshold, future)))

    def logits(self, batch: Tensor) -> Tensor:
        """See `Backend.logits`."""
        return self._call(partial(self._logits, batch))

    def prepare(self, batch: int, height: int, width: int) -> None:
        """Build the plan for batches of this shape ahead of the first one, which can take seconds."""
        frames = np.zeros((batch, height, width, 3), np.uint8)
        self._call(lambda: self._splitter.run(batch, height, width, lambda start, stop: self._plan(frames[start:stop])))

    def close(self) -> None:
        """Finish the batches in flight, cancel the queued ones."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with suppress(Empty):
            while (job := self._jobs.get_nowait()) is not None:
                job[0].cancel()
        self._jobs.put(None)
        self._launcher.join(CLOSE_TIMEOUT_S)
        self._completer.join(CLOSE_TIMEOUT_S)
        if self._lost is None and not self._completer.is_alive():
            self._free_memory()

    def _call(self, work: Callable[[], T]) -> T:
        """Run work in the launching thread, in the order of submission, and return its result."""
        future: Future[T] = Future()
        return self._put(future, lambda: future.set_result(work())).result()

    def _put(self, future: "Future[T]", work: Callable[[], None]) -> "Future[T]":
        with self._lock:
            if self._lost is not None:
                raise EngineLost(self._lost)
            if self._closed:
                raise EngineError("submit after close(); must be called before close()")
            self._jobs.put((future, work))
        return future

    @torch.inference_mode()
    def _launch_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if self._lost is not None:
                    raise EngineLost(self._lost)
                work()
            except Exception as error:  # noqa: BLE001 - re-raised where the Future is awaited
                # The completing thread resolves all Futures, in the order of submission.
                self._in_flight.put(partial(self._fail, future, error))
        self._in_flight.put(None)

    @torch.inference_mode()
    def _complete_all(self) -> None:
        while (step := self._in_flight.get()) is not None:
            step()

    def _launch_request(self, request: _Request) -> None:
        total, height, width, _ = request.frames.shape
        self._splitter.run(total, height, width, partial(self._launch, request))

    def _plan(self, frames: Frames) -> ExecutionPlan:
        count, height, width = frames.shape[:3]
        return self._plans.get((self._splitter.rounded(count), height, width))

    def _free_memory(self) -> None:
        self._device.synchronize()
        for buffers in self._buffers:
            buffers.drop()
        self._plans.clear()

    def _launch(self, request: _Request, start: int, stop: int) -> None:
        frames = request.frames[start:stop]
        plan = self._plan(frames)
        buffers = self._free.get()  # free once the completing thread has taken their last results
        try:
            copied = self._enqueue(plan, buffers, frames, request.threshold)
        except BaseException:
            with suppress(RuntimeError):  # the copy to the device may be in progress; a lost device raises again
                self._device.synchronize()
            self._free.put(buffers)
            raise
        output = self._output_shape(plan, len(frames), request.threshold)
        self._in_flight.put(partial(self._complete, request, start, buffers, copied, output))

    def _enqueue(
        self, plan: ExecutionPlan, buffers: TransferBuffers, frames: Frames, threshold: float | None
    ) -> StreamEvent:
        device = self._device
        dtype, shape = self._output_shape(plan, len(frames), threshold)
        buffers.fit(plan.frames.nbytes, plan.maps.nbytes)
        pinned, on_device = (
            view_as(buffer, torch.uint8, frames.shape) for buffer in (buffers.frames_pinned, buffers.frames)
        )
        result, on_host = (view_as(buffer, dtype, shape) for buffer in (buffers.maps, buffers.maps_pinned))
        np.copyto(device.host(pinned).numpy(), frames)

        def compute() -> None:
            plan.frames[: len(frames)].copy_(on_device)
            if len(frames) < len(plan.frames):
                plan.frames[len(frames) :].copy_(on_device[-1:].expand(len(plan.frames) - len(frames), -1, -1, -1))
            plan.run()
            maps = plan.maps[: len(frames)]
            if threshold is None:
                result.copy_(maps)
            else:
                torch.gt(maps.amax(dim=1).float(), threshold, out=result)

        device.launch(COPY_IN, "copy in", lambda: on_device.copy_(pinned, non_blocking=True), pinned, on_device)
        device.wait(COMPUTE, device.record(COPY_IN))
        device.launch(COMPUTE, "compute", compute, on_device, result)
        device.wait(COPY_OUT, device.record(COMPUTE))
        device.launch(COPY_OUT, "copy out", lambda: on_host.copy_(result, non_blocking=True), result, on_host)
        return device.record(COPY_OUT)

    def _output_shape(
        self, plan: ExecutionPlan, count: int, threshold: float | None
    ) -> tuple[torch.dtype, tuple[int, ...]]:
        _, classes, height, width = plan.maps.shape
        if threshold is None:
            return self._maps_dtype, (count, classes, height, width)
        return torch.bool, (count, height, width)

    def _complete(
        self,
        request: _Request,
        start: int,
        buffers: TransferBuffers,
        copied: StreamEvent,
        output: tuple[torch.dtype, tuple[int, ...]],
    ) -> None:
        try:
            copied.synchronize()
            request.add(start, self._device.host(view_as(buffers.maps_pinned, *output)))
        except Exception as error:  # noqa: BLE001 - re-raised where the Future is awaited
            self._fail(request.future, error)
        finally:
            self._free.put(buffers)

    def _fail(self, future: "Future[Any]", error: Exception) -> None:
        text = str(error).partition("\n")[0]
        if not isinstance(error, EngineError) and failure_of(error) == "lost":
            with self._lock:
                self._lost = self._lost or f"device {self.device} is lost ({text}); restart the process"
        if self._lost is not None:
            raised: EngineError = EngineLost(self._lost)
        elif isinstance(error, EngineError):
            raised = error
        else:
            raised = EngineError(f"device {self.device}: {type(error).__name__}: {text}")
        if not future.done():
            raised.__cause__ = error if error is not raised else None
            future.set_exception(raised)

    def _logits(self, batch: Tensor) -> Tensor:
        parts: list[Tensor] = []

        def run(start: int, stop: int) -> None:
            results: list[Tensor] = []

            def work() -> None:
                image = batch[start:stop].to(self.device, self._network.dtype)
                results.append(self._network(image.contiguous(memory_format=torch.channels_last)).float().cpu())

            with self._device.exact():
                self._device.launch(COMPUTE, "logits", work)
                self._device.synchronize()
            parts.extend(results)

        self._splitter.run(len(batch), batch.shape[2], batch.shape[3], run)
        return torch.cat(parts)
