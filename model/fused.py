"""DAS-Net rewritten exactly for speed: the same parameters and function, less arithmetic and memory traffic.

The rewrites, none of them approximate:
- the output block's 3x3 and 1x1 convolutions, with nothing between them, are one 3x3 convolution (saves a quarter of
  all arithmetic);
- the gate's 1x1 convolution of the gating signal commutes with bilinear upsampling, so it runs at low resolution;
- a convolution over a concatenation is the sum of two convolutions, the second accumulated in place;
- a batch is a loop over samples, each a dense convolution with its own kernel, instead of a grouped convolution.

It is differentiable, so that training on a CPU uses it too.  Kernel attention stays in float32 under autocast.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks import NEGATIVE_SLOPE, TEMPERATURE, AttentionGate, DynamicConvBlock, OutputBlock, upsample
from model.dasnet import DASNet

MAX_SEQUENTIAL_SUM = 1 << 10  # float32 numbers that can be summed sequentially without losing precision
STRIP_ROWS = 1  # larger maps are summed in strips of rows; 1 divides every height and costs nothing
STRIP_EPSILON = 1e-12  # keeps the inverse deviation of a uniform strip finite


def mixed_kernels(block: DynamicConvBlock, average: Tensor) -> Tensor:
    """Return each sample's kernel (N, out, in, 3, 3) from the spatial average (N, in) of its input."""
    reduce, expand = block.attention[1], block.attention[3]
    with torch.autocast(average.device.type, enabled=False):
        hidden = F.relu(F.linear(average.float(), reduce.weight.flatten(1).float()))
        scores = F.linear(hidden, expand.weight.flatten(1).float(), expand.bias.float())
        attention = torch.softmax(scores / TEMPERATURE, dim=1)
        mixed = attention @ block.weights.float().flatten(1)
        return mixed.reshape(-1, *block.weights.shape[1:])


def sample_filters(block: DynamicConvBlock, averages: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return each sample's kernel (N, out, in, 3, 3) and, for inference, bias (N, out), in `dtype`."""
    kernels = mixed_kernels(block, averages)
    biases = None if torch.is_grad_enabled() else centring_bias(kernels, averages, block.gn.num_groups).to(dtype)
    return kernels.to(dtype), biases


def spatial_average(x: Tensor) -> Tensor:
    """Return the average (N, C) over all pixels, in float32: the mean in bfloat16 is eight times slower on a CPU."""
    return x.float().mean(dim=(2, 3))


def upsampled_average(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return `spatial_average(upsample(x, size))` as a weighted sum over the low-resolution map."""
    rows, columns = (
        _interpolation_weights(small, large, x.device) for small, large in zip(x.shape[-2:], size, strict=True)
    )
    lines = x.float().permute(0, 2, 3, 1).flatten(2)  # (N, h, w * C), a view in channels_last
    averages: Tensor = columns @ (rows @ lines).unflatten(1, (len(columns), -1))
    return averages


def _interpolation_weights(small: int, large: int, device: torch.device) -> Tensor:
    """Return the mean weight (small,) of each position in a linear interpolation to `large`, corners aligned."""
    ones = torch.eye(small, device=device)[None]
    return F.interpolate(ones, size=large, mode="linear", align_corners=True).mean(dim=2)[0]


def normalise_and_activate(block: DynamicConvBlock, x: Tensor) -> Tensor:
    """Apply the block's GroupNorm and LeakyReLU."""
    norm = block.gn
    if torch.is_grad_enabled() or x.dtype is not torch.float32 or x.shape[2] * x.shape[3] <= MAX_SEQUENTIAL_SUM:
        x = F.group_norm(x, norm.num_groups, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)
    else:
        x = torch.addcmul(*shift_and_scale(block, x))
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=not torch.is_grad_enabled())


def shift_and_scale(block: DynamicConvBlock, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return shift, x and scale, with which the GroupNorm of a large map is `shift + x * scale`, each (N, C, 1, 1).

    In channels_last, torch sums a whole map's float32 numbers sequentially, which loses the last digits of a large
    map.  Here strips of rows are summed separately (torch's norm returns their moments), then combined in float64.
    """
    norm, (count, channels, height, width) = block.gn, x.shape
    x = x.contiguous(memory_format=torch.channels_last)  # no copy in the engine, which runs in channels_last
    strips = height // STRIP_ROWS
    folded = x.permute(0, 2, 3, 1).reshape(count * strips, STRIP_ROWS, width, channels).permute(0, 3, 1, 2)
    size = STRIP_ROWS * width
    _, mean, inverse = torch.native_group_norm(
        folded, None, None, len(folded), channels, size, norm.num_groups, STRIP_EPSILON
    )
    means = mean.double().unflatten(0, (count, strips))
    squares = inverse.double().pow(-2).unflatten(0, (count, strips)) + means.square()
    centre = means.mean(dim=1)
    deviation = (squares.mean(dim=1) - centre.square() + norm.eps).sqrt()
    group_size = channels // norm.num_groups
    centre, deviation = (one.repeat_interleave(group_size, dim=1)[..., None, None] for one in (centre, deviation))
    scale = norm.weight.double()[:, None, None] / deviation
    shift = norm.bias.double()[:, None, None] - centre * scale
    return shift.float(), x, scale.float()


def centring_bias(kernels: Tensor, averages: Tensor, groups: int) -> Tensor:
    """Return a bias (N, out) that subtracts the predicted mean of each group of output channels, as the norm would.

    In channels_last, torch computes a variance as E[x^2] - E[x]^2, which cancels on nearly uniform maps.  The mean of a
    convolution's output is, except at the borders, the sum of its kernel times the mean of its input.
    """
    means = torch.einsum("noi,ni->no", kernels.sum(dim=(3, 4)), averages)
    group_means = means.unflatten(1, (groups, -1)).mean(dim=2)
    biases: Tensor = -group_means.repeat_interleave(means.shape[1] // groups, dim=1)
    return biases


def convolve_per_sample(x: Tensor, kernels: Tensor, biases: Tensor | None, padding: int) -> Tensor:
    """Convolve sample i with kernel i."""
    outputs = [
        F.conv2d(sample, kernel, None if biases is None else biases[i], padding=padding)
        for i, (sample, kernel) in enumerate(zip(x.split(1), kernels, strict=True))
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def dynamic_block(block: DynamicConvBlock, x: Tensor) -> Tensor:
    """Return `block(x)`."""
    kernels, biases = sample_filters(block, spatial_average(x), x.dtype)
    return normalise_and_activate(block, convolve_per_sample(x, kernels, biases, block.padding))


def dynamic_block_of_concat(block: DynamicConvBlock, low: Tensor, skip: Tensor) -> Tensor:
    """Return `block(cat([upsample(low), skip]))` without the concatenation."""
    size = skip.shape[-2:]
    averages = torch.cat([upsampled_average(low, size), spatial_average(skip)], dim=1)
    kernels, biases = sample_filters(block, averages, low.dtype)
    x = upsample(low, size)
    from_x, from_skip = kernels.split(x.shape[1], dim=2)
    y = convolve_per_sample(x, from_x, biases, block.padding)
    z = convolve_per_sample(skip, from_skip, None, block.padding)
    return normalise_and_activate(block, y + z if torch.is_grad_enabled() else y.add_(z))


def gated_skip(gate: AttentionGate, low: Tensor, skip: Tensor) -> Tensor:
    """Return the skip weighted by the gate; `low` is the decoder's map before upsampling."""
    gating = upsample(F.conv2d(low, gate.W_g.weight.to(low.dtype)), skip.shape[-2:])
    local = F.conv2d(skip, gate.W_x.weight.to(skip.dtype))
    if torch.is_grad_enabled():
        return skip * torch.sigmoid(F.conv2d(F.relu(gating + local), gate.psi[0].weight.to(skip.dtype)))
    summed = local.add_(gating).relu_()
    return skip.mul_(F.conv2d(summed, gate.psi[0].weight.to(skip.dtype)).sigmoid_())  # nothing else reads the skip


def folded_output(block: OutputBlock) -> tuple[Tensor, Tensor]:
    """Return weight (num_class, in, 3, 3) and bias of the one convolution that equals the block's two."""
    first, second = block.output_block
    mix = second.weight.flatten(1).float()
    weight = torch.einsum("om,miyx->oiyx", mix, first.weight.float())
    return weight, mix @ first.bias.float() + second.bias.float()


class FusedDASNet(nn.Module):
    """The rewrite of a DASNet, whose parameters it shares: same input and output, also while training."""

    def __init__(self, net: DASNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return logits and, while training, the auxiliary logits."""
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
            x = dynamic_block_of_concat(block, x, gated)
            if self.training and str(stage) in decoder.aux_heads:
                auxiliary.append(upsample(decoder.aux_heads[str(stage)](x), image.shape[-2:]))
        weight, bias = folded_output(decoder.output)
        logits = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=1)
        return (logits, auxiliary) if self.training else logits
