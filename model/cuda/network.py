"""DAS-Net prepared for a GPU: the exact rewrites of `model.fused`, with weights cast, laid out and folded once.

In: images (N, 3, H, W) in 0..1 in the network's precision, channels_last.  Out: logits (N, classes, H, W).  Kernel
attention and all sums stay in float32.  `CudaDASNet` uses torch's operations only; `model.cuda.fused` replaces the
memory-bound ones by Triton kernels where these can be built.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks import KERNELS, NEGATIVE_SLOPE, TEMPERATURE, AttentionGate, DynamicConvBlock, upsample
from model.dasnet import DASNet
from model.fused import folded_output

Timer = Callable[[Callable[[], Any]], float]  # seconds


@dataclass(frozen=True)
class KernelPair:
    """The two kernels of a dynamic convolution as base + attention * difference.

    Both are (inputs, 1, out, 3, 3, in) in float32; the sum of the convolutions of several inputs is the convolution of
    their concatenation.
    """

    base: Tensor
    difference: Tensor

    @classmethod
    def of(cls, block: DynamicConvBlock, inputs: int) -> "KernelPair":
        """Split a block's kernels for that many inputs."""
        weights = block.weights.detach().float().permute(0, 1, 3, 4, 2)  # (K, out, 3, 3, in), as in channels_last
        first, second = (torch.stack(kernel.chunk(inputs, dim=-1)).unsqueeze(1) for kernel in weights)
        return cls(second.contiguous(), (first - second).contiguous())

    def mixed(self, attention: Tensor, dtype: torch.dtype) -> Tensor:
        """Return each sample's kernels (inputs, N, out, in, 3, 3), summed in float32 and rounded once."""
        inputs, _, *shape = self.base.shape
        mixed = torch.empty((inputs, len(attention), *shape), dtype=dtype, device=attention.device)
        torch.addcmul(self.base, self.difference, attention.view(1, -1, 1, 1, 1, 1), out=mixed)
        return mixed.permute(0, 1, 2, 5, 3, 4)


class DynamicConvWeights:
    """The weights of a dynamic convolution on one input, or on the concatenation of two."""

    def __init__(self, block: DynamicConvBlock, inputs: int, dtype: torch.dtype) -> None:
        assert len(block.weights) == KERNELS == 2, "softmax over two is a sigmoid of their difference"
        reduce, expand = (_weight(block.attention[index]).flatten(1) for index in (1, 3))
        bias = _detached(block.attention[3].bias)
        self.reduce = reduce
        self.expand = (expand[:1] - expand[1:]) / TEMPERATURE
        self.bias = (bias[:1] - bias[1:]) / TEMPERATURE
        self.whole = KernelPair.of(block, 1)
        self.split = KernelPair.of(block, inputs)
        kernels = torch.cat([self.whole.base, self.whole.difference], dim=2)[0, 0].permute(0, 3, 1, 2)
        self.both = kernels.to(dtype=dtype, memory_format=torch.channels_last)
        self.gamma, self.beta = _detached(block.gn.weight), _detached(block.gn.bias)
        self.gamma_cast, self.beta_cast = self.gamma.to(dtype), self.beta.to(dtype)
        self.groups, self.eps, self.padding = block.gn.num_groups, block.gn.eps, block.padding

    def attention(self, inputs: list[Tensor]) -> Tensor:
        """Return each sample's attention (N, 1) for the first kernel; the second's is the rest to one."""
        averages = [x.mean(dim=(2, 3), dtype=torch.float32) for x in inputs]
        average = averages[0] if len(averages) == 1 else torch.cat(averages, dim=1)
        return torch.sigmoid(F.linear(F.linear(average, self.reduce).relu_(), self.expand, self.bias))

    def convolve(self, inputs: list[Tensor]) -> Tensor:
        """Return the dynamic convolution of the concatenation of `inputs`, without concatenating them."""
        kernels = self.split.mixed(self.attention(inputs), inputs[0].dtype)
        y, *others = (convolve_per_sample(x, kernel, self.padding) for x, kernel in zip(inputs, kernels, strict=True))
        for other in others:
            y.add_(other)
        return y

    def normalise_and_activate(self, x: Tensor) -> Tensor:
        """Return GroupNorm and LeakyReLU of `x`, in channels_last; torch computes the norm in its own layout."""
        y = F.group_norm(x.contiguous(), self.groups, self.gamma_cast, self.beta_cast, self.eps)
        return F.leaky_relu_(y, NEGATIVE_SLOPE).contiguous(memory_format=torch.channels_last)


class GateWeights:
    """The weights of an attention gate."""

    def __init__(self, gate: AttentionGate, dtype: torch.dtype) -> None:
        self.gating, self.local, self.psi = (_cast(_weight(each), dtype) for each in (gate.W_g, gate.W_x, gate.psi[0]))

    def gated_skip(self, low: Tensor, skip: Tensor) -> Tensor:
        """Return the skip weighted by the gate; `low` is the decoder's map before upsampling."""
        gating = upsample(F.conv2d(low, self.gating), skip.shape[-2:])
        summed = F.conv2d(skip, self.local).add_(gating).relu_()
        return skip * torch.sigmoid(F.conv2d(summed, self.psi))


class CudaDASNet:
    """DAS-Net through torch's operations."""

    def __init__(self, net: DASNet, device: torch.device, dtype: torch.dtype) -> None:
        weight, bias = folded_output(copy.deepcopy(net.decoder.output).cpu())  # the CPU folds in full precision
        net = copy.deepcopy(net).to(device)
        self.dtype = dtype
        layers = [layer for layer in net.encoder.encoder_layers if isinstance(layer, DynamicConvBlock)]
        self._encoder = [DynamicConvWeights(layer, 1, dtype) for layer in layers]
        stages = zip(net.decoder.dy_blocks, net.decoder.attention_gates, strict=True)
        self._decoder = [(_dynamic(block, dtype), _gate(gate, dtype)) for block, gate in stages]
        self._output = _cast(weight.detach().to(device), dtype), bias.detach().to(device, dtype)

    def autotuning(self, timer: Timer) -> AbstractContextManager[None]:  # noqa: ARG002 - one variant of each step
        """Do nothing: see `model.cuda.plans.Network`."""
        return nullcontext()

    def __call__(self, image: Tensor) -> Tensor:
        """Return logits (N, classes, H, W)."""
        x, skips = image, []
        for level, block in enumerate(self._encoder):
            x = block.normalise_and_activate(block.convolve([x]))
            if level + 1 < len(self._encoder):
                skips.append(x)
                x = F.max_pool2d(x, 2, ceil_mode=True)
        for block, gate in self._decoder:
            skip = skips.pop()
            y = block.convolve([upsample(x, skip.shape[-2:]), gate.gated_skip(x, skip)])
            x = block.normalise_and_activate(y)
        weight, bias = self._output
        return F.conv2d(x, weight, bias, padding=1)


class AutocastNetwork:
    """Any other network, unchanged, under autocast."""

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self._network = copy.deepcopy(network).to(device).eval()
        self._device, self._autocast = device, dtype
        self.dtype = torch.float32

    def autotuning(self, timer: Timer) -> AbstractContextManager[None]:  # noqa: ARG002 - nothing to tune
        """Do nothing: see `model.cuda.plans.Network`."""
        return nullcontext()

    def __call__(self, image: Tensor) -> Tensor:
        """Return logits (N, classes, H, W)."""
        enabled = self._autocast is not torch.float32
        with torch.autocast(self._device.type, dtype=self._autocast, enabled=enabled):
            logits: Tensor = self._network(image)
        return logits


def convolve_per_sample(x: Tensor, kernels: Tensor, padding: int) -> Tensor:
    """Convolve each sample with its own kernel, written directly to its place in the batch."""
    count, _, height, width = x.shape
    shape = (count, kernels.shape[1], height + 2 * padding - 2, width + 2 * padding - 2)
    output = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for i in range(count):
        sample, kernel, place = x[i : i + 1], kernels[i], output[i : i + 1]
        if x.is_cuda:
            cudnn = torch.backends.cudnn
            ones, flags = ([1, 1], [1, 1], 1), (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32)
            torch.ops.aten.cudnn_convolution.out(sample, kernel, [padding, padding], *ones, *flags, out=place)
        else:
            place.copy_(F.conv2d(sample, kernel, padding=padding))
    return output


def _dynamic(block: nn.Module, dtype: torch.dtype) -> DynamicConvWeights:
    assert isinstance(block, DynamicConvBlock)
    return DynamicConvWeights(block, 2, dtype)


def _gate(gate: nn.Module, dtype: torch.dtype) -> GateWeights:
    assert isinstance(gate, AttentionGate)
    return GateWeights(gate, dtype)


def _weight(layer: nn.Module) -> Tensor:
    return _detached(layer.weight)


def _detached(parameter: Any) -> Tensor:
    assert isinstance(parameter, Tensor)
    return parameter.detach().float()


def _cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype=dtype, memory_format=torch.channels_last)
