"""The building blocks of the DAS-Net family, as plain reference modules.

In and out: float feature maps (N, C, H, W).  Attribute names are those of the original implementation, so that its
checkpoints load unchanged.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNELS = 2  # K of a dynamic convolution
TEMPERATURE = 30.0  # softens the attention over the K kernels
NEGATIVE_SLOPE = 0.01
NORM_GROUPS = 8


class DynamicConvBlock(nn.Module):
    """3x3 dynamic convolution (Chen et al., CVPR 2020, arXiv 1912.03458) -> GroupNorm -> LeakyReLU.

    Each sample is convolved with its own mix of K kernels, weighted by kernel attention on its spatial average.
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
        """Return maps (N, out_channels, H, W)."""
        batch, channels, height, width = x.shape
        attention = torch.softmax(self.attention(x).flatten(1) / TEMPERATURE, dim=1)  # (N, K)
        kernels = torch.einsum("nk,koiyx->noiyx", attention, self.weights)
        # Grouped convolution, with the samples as groups, gives each sample its own kernel.
        x = F.conv2d(
            x.reshape(1, batch * channels, height, width), kernels.flatten(0, 1), padding=self.padding, groups=batch
        )
        x = x.reshape(batch, -1, *x.shape[-2:])
        return F.leaky_relu(self.gn(x), NEGATIVE_SLOPE)


class AttentionGate(nn.Module):
    """Additive attention on a skip connection (Oktay et al., 2018, arXiv 1804.03999).

    The gating signal is the upsampled decoder map, the skip the encoder map of the same size.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W_g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.W_x = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.psi = nn.Sequential(nn.Conv2d(channels // 2, 1, 1, bias=False), nn.Sigmoid())

    def forward(self, gating: Tensor, skip: Tensor) -> Tensor:
        """Return the skip, each pixel weighted by the gate map."""
        weight: Tensor = self.psi(F.relu(self.W_g(gating) + self.W_x(skip)))
        return skip * weight


class OutputBlock(nn.Module):
    """3x3 convolution, then 1x1 convolution to one logit per class, without an activation between."""

    def __init__(self, channels: int, num_class: int) -> None:
        super().__init__()
        self.output_block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, num_class, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_class, H, W)."""
        logits: Tensor = self.output_block(x)
        return logits


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Upsample bilinearly with aligned corners, as the original does everywhere."""
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=True)


def require_multiple(x: Tensor, multiple: int) -> None:
    """Raise ValueError, which gives the size to pad to, unless height and width are multiples."""
    height, width = x.shape[-2:]
    if height % multiple or width % multiple or not height or not width:
        raise ValueError(
            f"input of {height}x{width}; height and width must be multiples of {multiple}; "
            f"pad to {-(-height // multiple) * multiple}x{-(-width // multiple) * multiple}"
        )
