"""What a found target is: a small residual network that sees it alone, enlarged.

In: float32 crops (N, 3, S, S) in 0..255, RGB, the target in the middle.  Out: logits (N, num_class).
It takes 18 million multiplications a target, hundreds of times fewer than a frame takes the segmentation network.
"""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

LEAST_DEVIATION = 8.0  # grey levels added to a crop's own: noise on a clear sky is not blown up to a pattern


class ConvNorm(nn.Module):
    """A convolution and its normalisation, without a bias: the normalisation would take it away again."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y

    def fold(self) -> None:
        """The normalisation becomes part of the convolution, for use."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1, at half the sides (He et al., CVPR 2016, arXiv 1512.03385)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, out_channels, 3, stride=2)
        self.second = ConvNorm(out_channels, out_channels, 3)
        self.shortcut = ConvNorm(in_channels, out_channels, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class TargetClassifier(nn.Module):
    """`widths`: channels after the stem and after each block; each of them halves the sides."""

    def __init__(self, num_class: int, widths: Sequence[int], dropout: float = 0.3) -> None:
        super().__init__()
        self.stem = ConvNorm(3, widths[0], 3, stride=2)
        self.blocks = nn.Sequential(*(ResidualBlock(*channels) for channels in pairwise(widths)))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_class)

    def forward(self, crops: Tensor) -> Tensor:
        mean, deviation = crops.mean((1, 2, 3), keepdim=True), crops.std((1, 2, 3), keepdim=True)
        x = self.blocks(F.relu(self.stem((crops - mean) / (deviation + LEAST_DEVIATION))))
        logits: Tensor = self.head(self.dropout(x.mean((2, 3))))
        return logits


class FusedClassifier:
    """A trained one in use, on the processor wherever the segmentation runs: it takes a millisecond."""

    def __init__(self, classifier: TargetClassifier) -> None:
        self._network = deepcopy(classifier).eval()
        for module in self._network.modules():
            if isinstance(module, ConvNorm):
                module.fold()

    @torch.inference_mode()
    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (N, S, S, 3) -> class probabilities (N, num_class)."""
        logits = self._network(torch.from_numpy(crops).permute(0, 3, 1, 2).float())  # channels last in memory
        probabilities: NDArray[np.float32] = torch.softmax(logits, dim=1).numpy()
        return probabilities
