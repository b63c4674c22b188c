"""DAS-Net on a GPU: what is bound by memory as Triton kernels (`model.cuda.kernels`), the convolutions as cuDNN's.

In and out: as `model.cuda.network`, whose function it computes.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks import NEGATIVE_SLOPE
from model.cuda.network import CudaDASNet, CudaModule, Dynamic, grouped
from model.dasnet import DASNet
from model.fused import folded_output

LEAST_CHANNELS = 32  # Triton multiplies matrices of 16 rows and more, and a gate has half as many
log = logging.getLogger(__name__)

T = TypeVar("T")
Convolved = tuple[Tensor, Tensor | None]  # as `model.cuda.kernels.Norm` takes it


def prepared(network: nn.Module, device: torch.device, dtype: torch.dtype) -> CudaDASNet | CudaModule:
    """The network in the fastest way that this device runs."""
    if not isinstance(network, DASNet):
        return CudaModule(network, device, dtype)
    channels = len(folded_output(network.decoder.output)[0][0])
    if device.type == "cuda" and channels >= LEAST_CHANNELS and channels & (channels - 1) == 0 and has_triton(device):
        return FusedCudaDASNet(network, device, dtype)
    return CudaDASNet(network, device, dtype)


def has_triton(device: torch.device) -> bool:
    """Whether a kernel can be built and run: that needs the package, which torch brings, and a C compiler."""
    try:
        from model.cuda.kernels import Sums, shares

        sums = Sums(torch.zeros((1, 1, 16), device=device), 1)
        ones = torch.ones(1, 16, device=device)
        return bool(shares(sums, ones, ones[:, :1].contiguous(), ones[0, :1].contiguous()).isfinite().all())
    except Exception as error:  # noqa: BLE001 - whatever is missing, there is another way
        reason = str(error).strip().partition("\n")[0]
        log.warning("GPU kernels cannot be built here (%s: %s): torch's own are used", type(error).__name__, reason)
        return False


class FusedCudaDASNet(CudaDASNet):
    """Of a DAS-Net whose channels are a power of two, LEAST_CHANNELS or more."""

    def __init__(self, net: DASNet, device: torch.device, dtype: torch.dtype) -> None:
        from model.cuda.kernels import Norm

        super().__init__(net, device, dtype)
        blocks = [*self._encoder, *(block for block, _ in self._decoder)]
        norms = [Norm(block.gamma, block.beta, block.groups, block.eps, NEGATIVE_SLOPE) for block in blocks]
        self._norms = norms[: len(self._encoder)], norms[len(self._encoder) :]

    def __call__(self, image: Tensor) -> Tensor:
        from model.cuda.kernels import joined, shares

        x, skips = image, []
        share = self._encoder[0].share([image])
        *levels, (bottom, norm) = zip(self._encoder, self._norms[0], strict=True)
        for (block, norm_of_level), below in zip(levels, self._encoder[1:], strict=True):
            skip, x, sums = self._best("down", block, x, share, norm_of_level.pooled)
            skips.append(skip)
            share = shares(sums, below.reduce, below.expand, below.bias)
        x = self._best("bottom", bottom, x, share, norm)
        for (block, gate), norm in zip(self._decoder, self._norms[1], strict=True):
            guide = F.conv2d(x, gate.guide)
            x, sums = joined(x, guide, skips.pop(), gate.local, gate.psi)
            x = self._best("up", block, x, shares(sums, block.reduce, block.expand, block.bias), norm)
        weight, bias = self._output
        return F.conv2d(x, weight, bias, padding=1)

    def _best(
        self, step: str, block: Dynamic, x: Tensor, share: Tensor, finish: Callable[[Tensor, Tensor | None], T]
    ) -> T:
        forms = convolutions(block, x, share)
        return self._fastest(
            f"{step} {tuple(x.shape)}", {name: partial(_finished, forms[name], finish) for name in forms}
        )


def _finished(convolve: Callable[[], Convolved], finish: Callable[[Tensor, Tensor | None], T]) -> T:
    return finish(*convolve())


def convolutions(block: Dynamic, x: Tensor, share: Tensor) -> dict[str, Callable[[], Convolved]]:
    """The dynamic convolution in every exact form."""

    def kernels() -> Tensor:
        return block.whole.mixed(share, x.dtype)[0]

    def mixed_after() -> Convolved:
        # A convolution is linear in its kernel: both kernels in one dense convolution, their outputs mixed by the norm.
        return F.conv2d(x, block.both, padding=block.padding), share

    forms: dict[str, Callable[[], Convolved]] = {
        "one by one": lambda: (one_by_one(x, kernels(), block.padding), None),
        "mixed after": mixed_after,
    }
    if len(x) > 1:
        forms["grouped"] = lambda: (grouped(x, kernels(), block.padding), None)
    return forms


def one_by_one(x: Tensor, kernels: Tensor, padding: int) -> Tensor:
    """Each sample with its own kernel, written to its place in the batch."""
    count, _, height, width = x.shape
    shape = (count, kernels.shape[1], height + 2 * padding - 2, width + 2 * padding - 2)
    found = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for i in range(count):
        sample, kernel, place = x[i : i + 1], kernels[i], found[i : i + 1]
        if x.is_cuda:
            how = torch.backends.cudnn
            ones, flags = ([1, 1], [1, 1], 1), (how.benchmark, how.deterministic, how.allow_tf32)
            torch.ops.aten.cudnn_convolution.out(sample, kernel, [padding, padding], *ones, *flags, out=place)
        else:
            place.copy_(F.conv2d(sample, kernel, padding=padding))
    return found
