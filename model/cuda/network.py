"""DAS-Net prepared for a GPU: the exact rewrites of `model.fused` with the weights cast, laid out and folded once.

In: images (N, 3, H, W) in 0..1 in the network's precision, channels_last.  Out: logits (N, classes, H, W).  Attention,
the mix of kernels and all sums stay in float32.  Where several exact forms of one step exist (a grouped convolution,
one convolution a sample, ...), `timer` measures them once for each shape on the device that runs them; without it the
first is taken.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks import KERNELS, NEGATIVE_SLOPE, TEMPERATURE, AttentionGate, DynamicConvBlock, upsample
from model.dasnet import DASNet
from model.fused import folded_output

Forms = dict[str, Callable[[], Tensor]]
Timer = Callable[[Callable[[], Any]], float]  # seconds
T = TypeVar("T")


@dataclass(frozen=True)
class Kernels:
    """The two kernels of a dynamic convolution as base + share * difference, (parts, 1, out, 3, 3, in) in float32;
    parts: the inputs convolved one by one, whose sum is the convolution of their concatenation."""

    base: Tensor
    difference: Tensor

    @classmethod
    def of(cls, block: DynamicConvBlock, parts: int) -> "Kernels":
        weights = block.weights.detach().float().permute(0, 1, 3, 4, 2)  # (K, out, 3, 3, in): as channels_last wants it
        first, second = (torch.stack(kernel.chunk(parts, dim=-1)).unsqueeze(1) for kernel in weights)
        return cls(second.contiguous(), (first - second).contiguous())

    def mixed(self, share: Tensor, dtype: torch.dtype) -> Tensor:
        """(parts, N, out, in, 3, 3), summed in float32 and rounded once, by one kernel."""
        parts, _, *shape = self.base.shape
        mixed = torch.empty((parts, len(share), *shape), dtype=dtype, device=share.device)
        torch.addcmul(self.base, self.difference, share.view(1, -1, 1, 1, 1, 1), out=mixed)
        return mixed.permute(0, 1, 2, 5, 3, 4)


class Dynamic:
    """A dynamic convolution's weights.  `inputs`: 1, or 2 where the original concatenates."""

    def __init__(self, block: DynamicConvBlock, inputs: int, dtype: torch.dtype) -> None:
        assert len(block.weights) == KERNELS == 2, "softmax over two is a sigmoid of their difference"
        reduce, expand = (_weight(block.attention[index]).flatten(1) for index in (1, 3))
        bias = _detached(block.attention[3].bias)
        self.reduce = reduce
        self.expand = (expand[:1] - expand[1:]) / TEMPERATURE
        self.bias = (bias[:1] - bias[1:]) / TEMPERATURE
        self.whole = Kernels.of(block, 1)
        self.parts = Kernels.of(block, inputs)
        kernels = torch.cat([self.whole.base, self.whole.difference], dim=2)[0, 0].permute(0, 3, 1, 2)
        self.both = kernels.to(dtype=dtype, memory_format=torch.channels_last)
        self.gamma, self.beta = _detached(block.gn.weight), _detached(block.gn.bias)
        self.gamma_cast, self.beta_cast = self.gamma.to(dtype), self.beta.to(dtype)
        self.epsilon = torch.full((1, 1, 1), block.gn.eps, device=bias.device)
        self.groups, self.eps, self.padding = block.gn.num_groups, block.gn.eps, block.padding

    def share(self, inputs: list[Tensor]) -> Tensor:
        """(N, 1): how much of the first kernel each sample takes."""
        averages = [x.mean(dim=(2, 3), dtype=torch.float32) for x in inputs]
        average = averages[0] if len(averages) == 1 else torch.cat(averages, dim=1)
        return torch.sigmoid(F.linear(F.linear(average, self.reduce).relu_(), self.expand, self.bias))


def convolution_forms(block: Dynamic, inputs: list[Tensor]) -> Forms:
    """The dynamic convolution over the concatenation of `inputs`, in every exact form; the first is the default."""

    def joined() -> list[Tensor]:
        return inputs if len(inputs) == 1 else [torch.cat(inputs, dim=1)]

    def mixed_after() -> Tensor:
        # A convolution is linear in its kernel: both kernels in one dense convolution, and their outputs mixed.
        [x] = joined()
        base, difference = F.conv2d(x, block.both, padding=block.padding).chunk(2, dim=1)
        return torch.addcmul(base, difference, block.share([x]).to(x.dtype)[:, :, None, None])

    def with_kernels(convolve: Callable[[Tensor, Tensor, int], Tensor], xs: list[Tensor]) -> Tensor:
        kernels = (block.whole if len(xs) == 1 else block.parts).mixed(block.share(xs), xs[0].dtype)
        y = convolve(xs[0], kernels[0], block.padding)
        for x, kernel in zip(xs[1:], kernels[1:], strict=True):
            y.add_(convolve(x, kernel, block.padding))
        return y

    one = len(inputs[0]) == 1
    forms: Forms = {}
    if not one:
        forms["grouped"] = lambda: with_kernels(grouped, joined())
    if len(inputs) > 1:
        forms["one by one, no concat"] = lambda: with_kernels(one_by_one, inputs)
    return forms | {"one by one": lambda: with_kernels(one_by_one, joined()), "mixed after": mixed_after}


def one_by_one(x: Tensor, kernels: Tensor, padding: int) -> Tensor:
    if len(x) == 1:
        return F.conv2d(x, kernels[0], padding=padding)
    return torch.cat([F.conv2d(x[i : i + 1], kernels[i], padding=padding) for i in range(len(x))])


def grouped(x: Tensor, kernels: Tensor, padding: int) -> Tensor:
    """One launch for the batch: its samples become the groups."""
    batch, channels, height, width = x.shape
    rows = x.permute(2, 3, 0, 1).reshape(1, height, width, batch * channels).permute(0, 3, 1, 2)
    y = F.conv2d(rows, kernels.flatten(0, 1), padding=padding, groups=batch).permute(0, 2, 3, 1)
    samples = y.reshape(*y.shape[1:3], batch, -1).permute(2, 3, 0, 1)
    return samples.contiguous(memory_format=torch.channels_last)


def norm_forms(block: Dynamic, x: Tensor) -> Forms:
    """GroupNorm, then LeakyReLU.  torch's own leaves channels_last and comes back: few launches, twice the bytes."""

    def native() -> Tensor:
        y = F.group_norm(x.contiguous(), block.groups, block.gamma_cast, block.beta_cast, block.eps)
        return F.leaky_relu_(y, NEGATIVE_SLOPE).contiguous(memory_format=torch.channels_last)

    # The other's variance is a difference of two sums: good enough beside half precision's rounding, not beside fp32's.
    return {"native": native} if x.dtype is torch.float32 else {"native": native, "in place": lambda: normed(block, x)}


def normed(block: Dynamic, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    shape = (batch, block.groups, channels // block.groups)
    mean = x.mean(dim=(2, 3), dtype=torch.float32).reshape(shape).mean(dim=2, keepdim=True)
    lengths = torch.linalg.vector_norm(x, dim=(2, 3), dtype=torch.float32).reshape(shape)
    length = torch.linalg.vector_norm(lengths, dim=2, keepdim=True)
    variance = torch.addcmul(block.epsilon, length, length, value=1 / (height * width * shape[2]))
    inverse = variance.addcmul_(mean, mean, value=-1).clamp_min_(block.eps).rsqrt_()  # below eps is rounding alone
    scale, shift = (torch.empty(shape, dtype=x.dtype, device=x.device) for _ in range(2))
    torch.mul(block.gamma.view(1, *shape[1:]), inverse, out=scale)
    torch.addcmul(block.beta.view(1, *shape[1:]), mean, scale, value=-1, out=shift)  # of the rounded scale: no bias
    y = torch.addcmul(shift.view(batch, channels, 1, 1), x, scale.view(batch, channels, 1, 1))
    return F.leaky_relu_(y, NEGATIVE_SLOPE)


class Gate:
    def __init__(self, gate: AttentionGate, dtype: torch.dtype) -> None:
        self.guide, self.local, self.psi = (_cast(_weight(layer), dtype) for layer in (gate.W_g, gate.W_x, gate.psi[0]))

    def skip(self, low: Tensor, skip: Tensor, fastest: Callable[[str, Forms], Tensor]) -> Tensor:
        guide = upsample(F.conv2d(low, self.guide), skip.shape[-2:])
        forms: Forms = {"separate": lambda: F.conv2d(skip, self.local).add_(guide).relu_()}
        if skip.is_cuda and skip.dtype is torch.float16:
            forms["fused"] = lambda: torch.cudnn_convolution_add_relu(
                skip, self.local, guide, 1.0, None, (1, 1), (0, 0), (1, 1), 1
            )
        return skip * torch.sigmoid(F.conv2d(fastest(f"gate {tuple(skip.shape)}", forms), self.psi))


class CudaDASNet:
    """choices: the form that was fastest, for each step and shape."""

    def __init__(self, net: DASNet, device: torch.device, dtype: torch.dtype) -> None:
        weight, bias = folded_output(copy.deepcopy(net.decoder.output).cpu())  # there, no reduced precision is in force
        net = copy.deepcopy(net).to(device)  # the caller's stays where it is
        self.dtype = dtype
        self.choices: dict[str, str] = {}
        self._timer: Timer | None = None
        layers = [layer for layer in net.encoder.encoder_layers if isinstance(layer, DynamicConvBlock)]
        self._encoder = [Dynamic(layer, 1, dtype) for layer in layers]
        stages = zip(net.decoder.dy_blocks, net.decoder.attention_gates, strict=True)
        self._decoder = [(_dynamic(block, dtype), _gate(gate, dtype)) for block, gate in stages]
        self._output = _cast(weight.detach().to(device), dtype), bias.detach().to(device, dtype)

    @contextmanager
    def measuring(self, timer: Timer) -> Iterator[None]:
        """Forms not chosen yet are measured in the calls within."""
        self._timer = timer
        try:
            yield
        finally:
            self._timer = None

    def __call__(self, image: Tensor) -> Tensor:
        x, skips = image, []
        for level, block in enumerate(self._encoder):
            x = self._block(block, [x])
            if level + 1 < len(self._encoder):
                skips.append(x)
                x = F.max_pool2d(x, 2, ceil_mode=True)
        for block, gate in self._decoder:
            skip = skips.pop()
            x = self._block(block, [upsample(x, skip.shape[-2:]), gate.skip(x, skip, self._fastest)])
        weight, bias = self._output
        return F.conv2d(x, weight, bias, padding=1)

    def _block(self, block: Dynamic, inputs: list[Tensor]) -> Tensor:
        name = f"{len(inputs)} x {tuple(inputs[0].shape)}"
        x = self._fastest(f"convolution {name}", convolution_forms(block, inputs))
        return self._fastest(f"norm {tuple(x.shape)}", norm_forms(block, x))

    def _fastest(self, step: str, forms: Mapping[str, Callable[[], T]]) -> T:
        if step not in self.choices and self._timer is not None:
            self.choices[step] = _measured(forms, self._timer)
        return forms[self.choices.get(step, next(iter(forms)))]()


def _measured(forms: Mapping[str, Callable[[], object]], timer: Timer) -> str:
    times_s: dict[str, float] = {}
    failure: RuntimeError | None = None
    for name, form in forms.items() if len(forms) > 1 else ():
        try:
            times_s[name] = timer(form)
        except RuntimeError as error:  # this card or library cannot do this form, or has no memory for it
            failure = error
    if failure is not None and not times_s:
        raise failure
    return min(times_s, key=lambda name: times_s[name]) if times_s else next(iter(forms))


class CudaModule:
    """Any other network, as it is, under autocast."""

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self._network = copy.deepcopy(network).to(device).eval()
        self._device, self._autocast = device, dtype
        self.dtype = torch.float32
        self.choices: dict[str, str] = {}

    @contextmanager
    def measuring(self, timer: Timer) -> Iterator[None]:  # noqa: ARG002 - nothing to choose from
        yield

    def __call__(self, image: Tensor) -> Tensor:
        enabled = self._autocast is not torch.float32
        with torch.autocast(self._device.type, dtype=self._autocast, enabled=enabled):
            logits: Tensor = self._network(image)
        return logits


def _dynamic(block: nn.Module, dtype: torch.dtype) -> Dynamic:
    assert isinstance(block, DynamicConvBlock)
    return Dynamic(block, 2, dtype)


def _gate(gate: nn.Module, dtype: torch.dtype) -> Gate:
    assert isinstance(gate, AttentionGate)
    return Gate(gate, dtype)


def _weight(layer: nn.Module) -> Tensor:
    return _detached(layer.weight)


def _detached(parameter: Any) -> Tensor:
    assert isinstance(parameter, Tensor)
    return parameter.detach().float()


def _cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype=dtype, memory_format=torch.channels_last)
