"""DAS-Net on a CPU through our own code in `model/native`: every stage in the caches, no map written twice."""

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
from model.native.library import NativeError, library

CHANNELS = 64
MOST_CLASSES = 8
MOST_AT_ONCE = 2  # pictures under way, which share the threads: none then waits for the other at the end of a stage
PRECISIONS = ("fp32", "bf16")


def why_not(network: nn.Module) -> str:
    """Why this network cannot run natively here; empty where it can."""
    if not isinstance(network, DASNet):
        return f"it runs DAS-Net only, not {type(network).__name__}"
    blocks = _blocks(network)
    shapes = {tuple(block.weights.shape[1:3]) for block in blocks}
    allowed = {(CHANNELS, 3), (CHANNELS, CHANNELS), (CHANNELS, 2 * CHANNELS)}
    if shapes != allowed or any(block.padding != 1 for block in blocks):
        return "it runs networks of 3 colours, 64 channels and a padding of 1 only"
    if _classes(network) > MOST_CLASSES:
        return f"it runs networks of 1 to {MOST_CLASSES} classes only"
    try:
        library()
    except NativeError as error:
        return str(error)
    return ""


def _blocks(network: DASNet) -> list[DynamicConvBlock]:
    encoder = [layer for layer in network.encoder.encoder_layers if isinstance(layer, DynamicConvBlock)]
    return encoder + [block for block in network.decoder.dy_blocks if isinstance(block, DynamicConvBlock)]


def _classes(network: DASNet) -> int:
    return len(folded_output(network.decoder.output)[1])


def packed_weights(network: DASNet) -> NDArray[np.float32]:
    """All of them, in the order in which `model/native/engine.cpp` reads them."""
    parts: list[Tensor] = []
    for block in _blocks(network):
        reduce, expand, norm = block.attention[1], block.attention[3], block.gn
        parts += [*reduce.parameters(), *expand.parameters(), block.weights, *norm.parameters()]  # weight, then bias
    for gate in network.decoder.attention_gates:
        parts += [*gate.parameters()]  # W_g, W_x, psi
    parts += folded_output(network.decoder.output)
    weights: NDArray[np.float32] = torch.cat([part.detach().float().flatten() for part in parts]).numpy()
    return np.ascontiguousarray(weights)


class NativeBackend(CpuBackend):
    """Weights are copied: what changes in the network later is not seen."""

    kind = "native"

    def __init__(self, network: nn.Module, precision: str, multiple: int, threads: int | None) -> None:
        if reason := why_not(network):
            raise ChoiceError(f"engine 'native': {reason}; allowed: torch, module")
        assert isinstance(network, DASNet)
        map_large_blocks()
        threads = threads or torch.get_num_threads()
        super().__init__(multiple, at_once=min(MOST_AT_ONCE, threads))
        self.precision = precision
        self._library = library()
        self.classes = _classes(network)
        self._levels = len(network.decoder.dy_blocks)
        weights = packed_weights(network)
        self._handle = self._library.dasnet_create(
            weights.ctypes.data,
            weights.size,
            self._levels,
            self.classes,
            threads,
            self.at_once,
            precision == "bf16",
        )
        if not self._handle:
            raise EngineError(f"engine 'native': {self._said()}")
        # Also for who forgets to close: it holds hundreds of megabytes and its threads.
        self._destroy = weakref.finalize(self, self._library.dasnet_destroy, self._handle)

    def _said(self) -> str:
        return str(self._library.dasnet_error().decode())

    def close(self) -> None:
        super().close()
        self._destroy()  # once, however often it is called

    def time_stages(self, image: NDArray[np.float32], rounds: int) -> NDArray[np.float64]:
        """Average seconds of each stage (3 * levels + 2) over `rounds` runs of an image (3, H, W) in 0..1."""
        image = np.ascontiguousarray(image, np.float32)
        seconds = np.zeros(3 * self._levels + 2)
        _, height, width = image.shape
        arguments = image.ctypes.data, height, width, rounds, seconds.ctypes.data
        if self._library.dasnet_time_stages(self._handle, *arguments):
            raise EngineError(f"an image of {image.shape}: {self._said()}")
        return seconds

    def peak_macs(self, duration_s: float) -> float:
        """Multiply-accumulates per second of one thread in the matrix-product kernel, measured for that long."""
        return float(self._library.dasnet_peak_macs(self.precision == "bf16", duration_s))

    def _logits(self, batch: Tensor) -> Tensor:
        images = np.ascontiguousarray(batch.numpy(), np.float32)
        if images.ndim != 4 or images.shape[1] != 3:
            raise EngineError(f"a batch of {tuple(images.shape)}; expected (N, 3, H, W)")
        count, _, height, width = images.shape
        logits = np.empty((count, self.classes, height, width), np.float32)
        if self._library.dasnet_run(self._handle, images.ctypes.data, count, height, width, logits.ctypes.data):
            raise EngineError(f"a batch of {tuple(images.shape)}: {self._said()}")
        return torch.from_numpy(logits)
