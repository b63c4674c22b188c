"""DAS-Net rewritten exactly for speed: the same parameters, the same function, less arithmetic and memory traffic.

What is rewritten, none of it approximate:
- the output block's 3x3 and 1x1 convolutions, with nothing between them, are one 3x3 convolution (a quarter of all
  arithmetic saved);
- the gate's 1x1 convolution commutes with bilinear upsampling, so it runs at the low resolution;
- a convolution over a concatenation is the sum of two convolutions, the second accumulated in place;
- a batch is a loop over samples, each one dense convolution with its own kernel, instead of a grouped convolution.

It is differentiable, so that training uses it too.  Attention and kernels stay in float32 under autocast.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks import NEGATIVE_SLOPE, TEMPERATURE, AttentionGate, DynamicConvBlock, OutputBlock, upsample
from model.dasnet import DASNet

LONGEST_SUM = 1 << 10  # float32 numbers that are summed one after the other without harm
STRIP_ROWS = 1  # of maps that are larger: divides every height, and costs nothing
TINY = 1e-12  # keeps the inverse deviation of an even strip finite


def mixed_kernels(block: DynamicConvBlock, average: Tensor) -> Tensor:
    """Each sample's kernel (N, out, in, 3, 3) from the spatial average (N, in) of its input."""
    reduce, expand = block.attention[1], block.attention[3]
    with torch.autocast(average.device.type, enabled=False):
        hidden = F.relu(F.linear(average.float(), reduce.weight.flatten(1).float()))
        scores = F.linear(hidden, expand.weight.flatten(1).float(), expand.bias.float())
        mixing = torch.softmax(scores / TEMPERATURE, dim=1)
        mixed = mixing @ block.weights.float().flatten(1)
        return mixed.reshape(-1, *block.weights.shape[1:])


def filters(block: DynamicConvBlock, averages: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Kernels (N, out, in, 3, 3), and for inference biases (N, out), in `dtype`."""
    kernels = mixed_kernels(block, averages)
    biases = None if torch.is_grad_enabled() else centring(kernels, averages, block.gn.num_groups).to(dtype)
    return kernels.to(dtype), biases


def spatial_average(x: Tensor) -> Tensor:
    """(N, C) in float32: bfloat16's own mean is eight times slower on a CPU."""
    return x.float().mean(dim=(2, 3))


def upsampled_average(x: Tensor, size: Sequence[int]) -> Tensor:
    """`spatial_average(upsample(x, size))` from the small map: each of its pixels, by how much it spreads."""
    rows, columns = (_spread(small, large, x.device) for small, large in zip(x.shape[-2:], size, strict=True))
    lines = x.float().permute(0, 2, 3, 1).flatten(2)  # (N, h, w * C), a view in channels_last
    averages: Tensor = columns @ (rows @ lines).unflatten(1, (len(columns), -1))
    return averages


def _spread(small: int, large: int, device: torch.device) -> Tensor:
    """(small,) the mean weight of each position in a linear interpolation to `large`, corners aligned."""
    ones = torch.eye(small, device=device)[None]
    return F.interpolate(ones, size=large, mode="linear", align_corners=True).mean(dim=2)[0]


def activate(block: DynamicConvBlock, x: Tensor) -> Tensor:
    norm = block.gn
    if torch.is_grad_enabled() or x.dtype is not torch.float32 or x.shape[2] * x.shape[3] <= LONGEST_SUM:
        x = F.group_norm(x, norm.num_groups, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)
    else:
        x = torch.addcmul(*shift_and_scale(block, x))
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=not torch.is_grad_enabled())


def shift_and_scale(block: DynamicConvBlock, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The norm of a large map: `shift + x * scale`, each (N, C, 1, 1).

    In channels_last torch sums a whole map's float32 numbers one after the other, which costs a large one its last
    digits.  Strips of a few rows are summed apart here (torch's norm gives its moments), and those sums put together.
    """
    norm, (count, channels, height, width) = block.gn, x.shape
    x = x.contiguous(memory_format=torch.channels_last)  # as it is already where the engine runs it
    strips = height // STRIP_ROWS
    folded = x.permute(0, 2, 3, 1).reshape(count * strips, STRIP_ROWS, width, channels).permute(0, 3, 1, 2)
    size = STRIP_ROWS * width
    _, mean, inverse = torch.native_group_norm(folded, None, None, len(folded), channels, size, norm.num_groups, TINY)
    means = mean.double().unflatten(0, (count, strips))
    squares = inverse.double().pow(-2).unflatten(0, (count, strips)) + means.square()
    centre = means.mean(dim=1)
    deviation = (squares.mean(dim=1) - centre.square() + norm.eps).sqrt()
    of_channel = channels // norm.num_groups
    centre, deviation = (one.repeat_interleave(of_channel, dim=1)[..., None, None] for one in (centre, deviation))
    scale = norm.weight.double()[:, None, None] / deviation
    shift = norm.bias.double()[:, None, None] - centre * scale
    return shift.float(), x, scale.float()


def centring(kernels: Tensor, averages: Tensor, groups: int) -> Tensor:
    """A bias (N, out) that takes nearly the mean off each group of output channels, as the norm does anyway.

    In channels_last torch computes a variance as E[x^2] - E[x]^2, which loses its digits on maps that are nearly even.
    The mean of a convolution's output is, but for the borders, its kernel's sum times the mean of its input.
    """
    means = torch.einsum("noi,ni->no", kernels.sum(dim=(3, 4)), averages)
    of_groups = means.unflatten(1, (groups, -1)).mean(dim=2)
    biases: Tensor = -of_groups.repeat_interleave(means.shape[1] // groups, dim=1)
    return biases


def per_sample(x: Tensor, kernels: Tensor, biases: Tensor | None, padding: int) -> Tensor:
    """Sample i convolved with kernel i."""
    outputs = [
        F.conv2d(sample, kernel, None if biases is None else biases[i], padding=padding)
        for i, (sample, kernel) in enumerate(zip(x.split(1), kernels, strict=True))
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def dynamic_block(block: DynamicConvBlock, x: Tensor) -> Tensor:
    kernels, biases = filters(block, spatial_average(x), x.dtype)
    return activate(block, per_sample(x, kernels, biases, block.padding))


def dynamic_block_of_two(block: DynamicConvBlock, low: Tensor, skip: Tensor) -> Tensor:
    """`dynamic_block(block, cat([upsample(low), skip]))` without the concatenation."""
    size = skip.shape[-2:]
    averages = torch.cat([upsampled_average(low, size), spatial_average(skip)], dim=1)
    kernels, biases = filters(block, averages, low.dtype)
    x = upsample(low, size)
    from_x, from_skip = kernels.split(x.shape[1], dim=2)
    y = per_sample(x, from_x, biases, block.padding)
    z = per_sample(skip, from_skip, None, block.padding)
    return activate(block, y + z if torch.is_grad_enabled() else y.add_(z))


def gated_skip(gate: AttentionGate, low: Tensor, skip: Tensor) -> Tensor:
    """The skip weighted by the gate; `low` is the decoder's map before upsampling."""
    guide = upsample(F.conv2d(low, gate.W_g.weight.to(low.dtype)), skip.shape[-2:])
    local = F.conv2d(skip, gate.W_x.weight.to(skip.dtype))
    if torch.is_grad_enabled():
        return skip * torch.sigmoid(F.conv2d(F.relu(guide + local), gate.psi[0].weight.to(skip.dtype)))
    summed = local.add_(guide).relu_()
    return skip.mul_(F.conv2d(summed, gate.psi[0].weight.to(skip.dtype)).sigmoid_())  # no one else reads the skip


def folded_output(block: OutputBlock) -> tuple[Tensor, Tensor]:
    """Weight (num_class, in, 3, 3) and bias of the one convolution that equals the two of the block."""
    first, second = block.output_block
    mix = second.weight.flatten(1).float()
    weight = torch.einsum("om,miyx->oiyx", mix, first.weight.float())
    return weight, mix @ first.bias.float() + second.bias.float()


class FusedDASNet(nn.Module):
    """Shares the parameters of `net`; same input, same output, also while training."""

    def __init__(self, net: DASNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        encoder, decoder = self.net.encoder, self.net.decoder
        x, skips = image, []
        for layer in encoder.encoder_layers:
            if isinstance(layer, nn.MaxPool2d):
                skips.append(x)
                x = layer(x)
            else:
                x = dynamic_block(layer, x)
        auxiliary = []
        for stage, (block, gate) in enumerate(zip(decoder.dy_blocks, decoder.attention_gates, strict=True)):
            skip = skips.pop()
            gated = gated_skip(gate, x, skip)
            x = dynamic_block_of_two(block, x, gated)
            if self.training and str(stage) in decoder.aux_heads:
                auxiliary.append(upsample(decoder.aux_heads[str(stage)](x), image.shape[-2:]))
        weight, bias = folded_output(decoder.output)
        logits = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=1)
        return (logits, auxiliary) if self.training else logits
