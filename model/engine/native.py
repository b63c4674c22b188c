"""The native engine: DAS-Net on a CPU through our C++ code in `model/native`."""

import math
import weakref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.allocator import map_large_blocks
from model.blocks import DynamicConvBlock
from model.dasnet import DASNet
from model.engine.cpu import CpuBackend
from model.errors import ChoiceError, EngineError
from model.fused import folded_output
from model.native.library import CHANNELS, NativeError, library

MAX_CLASSES = 8
MAX_IN_FLIGHT = 2  # images that share the threads: while one waits at the end of a stage, the other computes
PRECISIONS = ("fp32", "bf16")
EVERYWHERE = -math.inf  # a logit that every pixel's exceeds


def unsupported_reason(network: nn.Module) -> str:
    """Return why this network cannot run natively here; empty if it can."""
    if not isinstance(network, DASNet):
        return f"it runs DAS-Net only, not {type(network).__name__}"
    blocks = _blocks(network)
    channels, inputs = _channels(network), blocks[0].weights.shape[2]
    if inputs != 3 or channels not in CHANNELS or any(block.padding != 1 for block in blocks):
        supported = f"{', '.join(map(str, CHANNELS[:-1]))} or {CHANNELS[-1]}"
        return f"it runs networks of 3 input channels, {supported} feature channels and a padding of 1 only"
    if _classes(network) > MAX_CLASSES:
        return f"it runs networks of 1 to {MAX_CLASSES} classes only"
    try:
        library(channels)
    except NativeError as error:
        return str(error)
    return ""


def _blocks(network: DASNet) -> list[DynamicConvBlock]:
    encoder = [layer for layer in network.encoder.encoder_layers if isinstance(layer, DynamicConvBlock)]
    return encoder + [block for block in network.decoder.dy_blocks if isinstance(block, DynamicConvBlock)]


def _channels(network: DASNet) -> int:
    return _blocks(network)[0].gn.num_channels


def _classes(network: DASNet) -> int:
    return len(folded_output(network.decoder.output)[1])


def packed_weights(network: DASNet) -> NDArray[np.float32]:
    """Return all weights, flat, in the order in which `model/native/engine.cpp` reads them."""
    parts: list[Tensor] = []
    for block in _blocks(network):
        reduce, expand, norm = block.attention[1], block.attention[3], block.gn
        parts += [*reduce.parameters(), *expand.parameters(), block.weights, *norm.parameters()]  # weight, then bias
    for gate in network.decoder.attention_gates:
        parts += [*gate.parameters()]  # W_g, W_x, psi
    parts += folded_output(network.decoder.output)
    parts += [*network.decoder.aux_heads[str(len(network.decoder.dy_blocks) - 2)].parameters()]
    weights: NDArray[np.float32] = torch.cat([part.detach().float().flatten() for part in parts]).numpy()
    return np.ascontiguousarray(weights)


class NativeBackend(CpuBackend):
    """Runs a DAS-Net through the native library; it copies the weights, so later changes have no effect.

    With `sparse_below`, a probability, `submit` computes the last decoder stage only where a deep-supervision head, at
    half the resolution, gives more than that, and near there; elsewhere the head's probabilities stand
    (model/native/sparse.h).  `logits` computes all of it.
    """

    kind = "native"

    def __init__(
        self,
        network: nn.Module,
        precision: str,
        multiple: int,
        threads: int | None,
        sparse_below: float | None = None,
    ) -> None:
        if reason := unsupported_reason(network):
            raise ChoiceError(f"engine 'native': {reason}; must be torch or reference")
        assert isinstance(network, DASNet)
        map_large_blocks()
        threads = threads or torch.get_num_threads()
        super().__init__(multiple, max_in_flight=min(MAX_IN_FLIGHT, threads))
        self.precision = precision
        self._limit = EVERYWHERE if sparse_below is None else math.log(sparse_below / (1 - sparse_below))
        self.channels = _channels(network)
        self._library = library(self.channels)
        self.classes = _classes(network)
        self._levels = len(network.decoder.dy_blocks)
        weights = packed_weights(network)
        self._handle = self._library.dasnet_create(
            weights.ctypes.data,
            weights.size,
            self._levels,
            self.classes,
            threads,
            self.max_in_flight,
            precision == "bf16",
        )
        if not self._handle:
            raise EngineError(f"engine 'native': {self._last_error()}")
        # Also without close(): the handle holds threads and hundreds of megabytes.
        self._destroy = weakref.finalize(self, self._library.dasnet_destroy, self._handle)

    def _last_error(self) -> str:
        return str(self._library.dasnet_error().decode())

    def close(self) -> None:
        """Finish the batches in flight and release the library's memory and threads."""
        super().close()
        self._destroy()  # runs only once

    def time_stages(self, image: NDArray[np.float32], rounds: int) -> NDArray[np.float64]:
        """Return each stage's average seconds (3 * levels + 2,) over `rounds` runs of an image (3, H, W) in 0..1."""
        image = np.ascontiguousarray(image, np.float32)
        seconds = np.zeros(3 * self._levels + 2)
        _, height, width = image.shape
        arguments = image.ctypes.data, height, width, rounds, seconds.ctypes.data
        if self._library.dasnet_time_stages(self._handle, *arguments):
            raise EngineError(f"an image of {image.shape}: {self._last_error()}")
        return seconds

    def peak_macs(self, duration_s: float) -> float:
        """Measure the matrix-product kernel's multiply-accumulates per second in one thread."""
        return float(self._library.dasnet_peak_macs(self.precision == "bf16", duration_s))

    def _logits(self, batch: Tensor) -> Tensor:
        return self._run(batch, EVERYWHERE)

    def _map_logits(self, batch: Tensor) -> Tensor:
        return self._run(batch, self._limit)

    def _run(self, batch: Tensor, limit: float) -> Tensor:
        images = np.ascontiguousarray(batch.numpy(), np.float32)
        if images.ndim != 4 or images.shape[1] != 3:
            raise EngineError(f"batch of {tuple(images.shape)}; expected (N, 3, H, W)")
        count, _, height, width = images.shape
        logits = np.empty((count, self.classes, height, width), np.float32)
        if self._library.dasnet_run(self._handle, images.ctypes.data, count, height, width, limit, logits.ctypes.data):
            raise EngineError(f"a batch of {tuple(images.shape)}: {self._last_error()}")
        return torch.from_numpy(logits)
