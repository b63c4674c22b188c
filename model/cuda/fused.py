"""DAS-Net on a GPU: memory-bound operations as Triton kernels (`model.cuda.kernels`), convolutions by cuDNN.

In and out: as `model.cuda.network`, whose function it computes.  A dynamic convolution has three exact variants (a
convolution per sample, both kernels in one, a grouped one); which is the fastest depends on the shape and the GPU, so
that autotuning times them once for each shape.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks import NEGATIVE_SLOPE
from model.cuda.network import AutocastNetwork, CudaDASNet, DynamicConvWeights, Timer, convolve_per_sample
from model.dasnet import DASNet
from model.fused import folded_output

MIN_CHANNELS = 32  # Triton multiplies matrices of at least 16 rows, and a gate has half as many channels
log = logging.getLogger(__name__)

T = TypeVar("T")
Convolved = tuple[Tensor, Tensor | None]  # maps, and the attention by which `model.cuda.kernels.Norm` mixes them


def fastest_network(network: nn.Module, device: torch.device, dtype: torch.dtype) -> CudaDASNet | AutocastNetwork:
    """Return the network in the fastest implementation that this device runs."""
    if not isinstance(network, DASNet):
        return AutocastNetwork(network, device, dtype)
    channels = len(folded_output(network.decoder.output)[0][0])
    if device.type == "cuda" and channels >= MIN_CHANNELS and channels & (channels - 1) == 0 and has_triton(device):
        return TritonDASNet(network, device, dtype)
    return CudaDASNet(network, device, dtype)


def has_triton(device: torch.device) -> bool:
    """Return whether a kernel can be built and run, which needs Triton, a dependency of torch, and a C compiler."""
    try:
        from model.cuda.kernels import ChannelSums, kernel_attention

        sums = ChannelSums(torch.zeros((1, 1, 16), device=device), 1)
        ones = torch.ones(1, 16, device=device)
        attention = kernel_attention(sums, ones, ones[:, :1].contiguous(), ones[0, :1].contiguous())
        return bool(attention.isfinite().all())
    except Exception as error:  # noqa: BLE001 - torch's operations replace the kernels, whatever is missing
        reason = str(error).strip().partition("\n")[0]
        log.warning("Triton kernels cannot be built (%s: %s); using torch operations", type(error).__name__, reason)
        return False


class TritonDASNet(CudaDASNet):
    """A DAS-Net whose channels are a power of two, at least MIN_CHANNELS.

    `fastest` holds the name of the fastest variant of each step and shape that was timed.
    """

    def __init__(self, net: DASNet, device: torch.device, dtype: torch.dtype) -> None:
        from model.cuda.kernels import Norm

        super().__init__(net, device, dtype)
        self.fastest: dict[str, str] = {}
        self._timer: Timer | None = None
        blocks = [*self._encoder, *(block for block, _ in self._decoder)]
        norms = [Norm(block.gamma, block.beta, block.groups, block.eps, NEGATIVE_SLOPE) for block in blocks]
        self._norms = norms[: len(self._encoder)], norms[len(self._encoder) :]

    @contextmanager
    def autotuning(self, timer: Timer) -> Iterator[None]:
        """Time the variants of new shapes in the calls within."""
        self._timer = timer
        try:
            yield
        finally:
            self._timer = None

    def __call__(self, image: Tensor) -> Tensor:
        """Return logits (N, classes, H, W)."""
        from model.cuda.kernels import kernel_attention, upsample_gate_concat

        x, skips = image, []
        attention = self._encoder[0].attention([image])
        *levels, (bottom, norm) = zip(self._encoder, self._norms[0], strict=True)
        for (block, level_norm), below in zip(levels, self._encoder[1:], strict=True):
            skip, x, sums = self._block("down", block, x, attention, level_norm.pooled)
            skips.append(skip)
            attention = kernel_attention(sums, below.reduce, below.expand, below.bias)
        x = self._block("bottom", bottom, x, attention, norm)
        for (block, gate), norm in zip(self._decoder, self._norms[1], strict=True):
            gating = F.conv2d(x, gate.gating)
            x, sums = upsample_gate_concat(x, gating, skips.pop(), gate.local, gate.psi)
            x = self._block("up", block, x, kernel_attention(sums, block.reduce, block.expand, block.bias), norm)
        weight, bias = self._output
        return F.conv2d(x, weight, bias, padding=1)

    def _block(
        self,
        step: str,
        block: DynamicConvWeights,
        x: Tensor,
        attention: Tensor,
        normalise: Callable[[Tensor, Tensor | None], T],
    ) -> T:
        variants = convolution_variants(block, x, attention)
        return self._run_fastest(
            f"{step} {tuple(x.shape)}",
            {name: partial(_convolved_and_normalised, variants[name], normalise) for name in variants},
        )

    def _run_fastest(self, step: str, variants: Mapping[str, Callable[[], T]]) -> T:
        if step not in self.fastest and self._timer is not None:
            self.fastest[step] = fastest_variant(variants, self._timer)
        return variants[self.fastest.get(step, next(iter(variants)))]()


def convolution_variants(block: DynamicConvWeights, x: Tensor, attention: Tensor) -> dict[str, Callable[[], Convolved]]:
    """Return the exact variants of a dynamic convolution; the first is used where nothing was timed."""

    def kernels() -> Tensor:
        return block.whole.mixed(attention, x.dtype)[0]

    def mixed_after() -> Convolved:
        # A convolution is linear in its kernel: one dense convolution with both kernels, whose outputs the norm mixes.
        return F.conv2d(x, block.both, padding=block.padding), attention

    variants: dict[str, Callable[[], Convolved]] = {
        "per sample": lambda: (convolve_per_sample(x, kernels(), block.padding), None),
        "mixed after": mixed_after,
    }
    if len(x) > 1:
        variants["grouped"] = lambda: (grouped_convolution(x, kernels(), block.padding), None)
    return variants


def grouped_convolution(x: Tensor, kernels: Tensor, padding: int) -> Tensor:
    """Convolve each sample with its own kernel in one launch, with the samples as groups."""
    batch, channels, height, width = x.shape
    rows = x.permute(2, 3, 0, 1).reshape(1, height, width, batch * channels).permute(0, 3, 1, 2)
    y = F.conv2d(rows, kernels.flatten(0, 1), padding=padding, groups=batch).permute(0, 2, 3, 1)
    samples = y.reshape(*y.shape[1:3], batch, -1).permute(2, 3, 0, 1)
    return samples.contiguous(memory_format=torch.channels_last)


def fastest_variant(variants: Mapping[str, Callable[[], object]], timer: Timer) -> str:
    """Return the name of the fastest variant; leave out those that this GPU cannot run, raise if it can run none."""
    times_s: dict[str, float] = {}
    failure: RuntimeError | None = None
    for name, variant in variants.items():
        try:
            times_s[name] = timer(variant)
        except RuntimeError as error:  # not supported by this GPU or library, or out of memory
            failure = error
    if failure is not None and not times_s:
        raise failure
    return min(times_s, key=lambda name: times_s[name])


def _convolved_and_normalised(convolve: Callable[[], Convolved], normalise: Callable[[Tensor, Tensor | None], T]) -> T:
    return normalise(*convolve())
