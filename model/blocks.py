"""The building blocks of the DAS-Net family, as readable reference modules.

Feature maps enter and leave as float tensors (N, C, H, W).  Attribute names are those of the original
implementation, so that its checkpoints load as they are.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNELS = 2  # K, the kernels a dynamic convolution mixes
TEMPERATURE = 30.0  # softens the attention over the K kernels
NEGATIVE_SLOPE = 0.01
NORM_GROUPS = 8


class DynamicConvBlock(nn.Module):
    """3x3 dynamic convolution (Chen et al., CVPR 2020, arXiv 1912.03458) -> GroupNorm -> LeakyReLU.

    Each sample is convolved with its own mix of K kernels; the mixing weights come from its average.
    """

    def __init__(self, in_channels: int, out_channels: int, padding: int = 1) -> None:
        super().__init__()
        hidden = KERNELS if in_channels == 3 else int(in_channels * 0.25) + 1
        self.padding = padding
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, KERNELS, 1, bias=True),
        )
        self.weights = nn.Parameter(torch.empty(KERNELS, out_channels, in_channels, 3, 3))
        self.gn = nn.GroupNorm(NORM_GROUPS, out_channels)
        for kernel in self.weights.data:
            nn.init.kaiming_normal_(kernel, a=NEGATIVE_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        mixing = torch.softmax(self.attention(x).flatten(1) / TEMPERATURE, dim=1)  # (N, K)
        kernels = torch.einsum("nk,koiyx->noiyx", mixing, self.weights)
        # One convolution with its own kernel for each sample: the batch becomes the groups.
        x = F.conv2d(
            x.reshape(1, batch * channels, height, width), kernels.flatten(0, 1), padding=self.padding, groups=batch
        )
        x = x.reshape(batch, -1, *x.shape[-2:])
        return F.leaky_relu(self.gn(x), NEGATIVE_SLOPE)


class AttentionGate(nn.Module):
    """Additive attention on a skip connection (Oktay et al., 2018, arXiv 1804.03999).

    `gate` is the upsampled decoder map, `skip` the encoder map of the same size; returns the weighted skip.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W_g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.W_x = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.psi = nn.Sequential(nn.Conv2d(channels // 2, 1, 1, bias=False), nn.Sigmoid())

    def forward(self, gate: Tensor, skip: Tensor) -> Tensor:
        weight: Tensor = self.psi(F.relu(self.W_g(gate) + self.W_x(skip)))
        return skip * weight


class OutputBlock(nn.Module):
    """3x3 convolution, then 1x1 to one logit a class, nothing between."""

    def __init__(self, channels: int, num_class: int) -> None:
        super().__init__()
        self.output_block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, num_class, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output_block(x)
        return logits


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, corners aligned, as everywhere in the original."""
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=True)


def require_multiple(x: Tensor, multiple: int) -> None:
    """Raises ValueError with the size to pad to, if height or width is no multiple."""
    height, width = x.shape[-2:]
    if height % multiple or width % multiple or not height or not width:
        raise ValueError(
            f"input of {height}x{width}: height and width must be multiples of {multiple}; "
            f"pad to {-(-height // multiple) * multiple}x{-(-width // multiple) * multiple}"
        )
