"""What a found target is: a small network that sees it alone, enlarged.

In: float32 crops (N, 3, S, S) in 0..255, RGB, the target in the middle.  Out: logits (N, num_class).
It is the first stages of EfficientNet-Lite0 (Tan and Le, ICML 2019, arXiv 1905.11946; Lite: without squeeze and
excitation, ReLU6), so that training can start from what others learned on millions of photographs: names travel better
from there than from a few hundred recordings.
"""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STEM_CHANNELS = 32
# Blocks, kernel's side, stride of the first block, expansion, channels.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
LEAST_DEVIATION = 8.0  # grey levels added to a crop's own: noise on a clear sky is not blown up to a pattern
SPREAD = 0.5  # deviation of what the first layer is given: about that of the photographs


class ConvNorm(nn.Module):
    """A convolution and its normalisation, without a bias: the normalisation would take it away again."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        before = (size - stride) // 2  # as TensorFlow pads even sides: with a stride one more behind than before
        self.conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=before, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03)
        self._behind = size - stride - 2 * before

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(F.pad(x, (0, self._behind) * 2) if self._behind else x))
        return y

    def fold(self) -> None:
        """The normalisation becomes part of the convolution, for use."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class InvertedResidual(nn.Module):
    """Expanded, filtered channel by channel, projected (Sandler et al., CVPR 2018, arXiv 1801.04381)."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand: nn.Module = ConvNorm(in_channels, inner, 1) if expansion > 1 else nn.Identity()
        self.filter = ConvNorm(inner, inner, size, stride, groups=inner)
        self.project = ConvNorm(inner, out_channels, 1)
        self._adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(F.relu6(self.filter(F.relu6(self.expand(x)))))
        return x + y if self._adds else y


class TargetClassifier(nn.Module):
    """`stages`: how many of STAGES; `enlarged_px`: the side that crops are enlarged to, a multiple of 32."""

    def __init__(self, num_class: int, stages: int, enlarged_px: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.enlarged_px = enlarged_px
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.Sequential(*_blocks(stages))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(STAGES[stages - 1][-1], num_class)

    def forward(self, crops: Tensor) -> Tensor:
        mean, deviation = crops.mean((1, 2, 3), keepdim=True), crops.std((1, 2, 3), keepdim=True)
        x = (crops - mean) * (SPREAD / (deviation + LEAST_DEVIATION))
        x = F.interpolate(x, size=(self.enlarged_px, self.enlarged_px), mode="bilinear")
        x = self.blocks(F.relu6(self.stem(x)))
        logits: Tensor = self.head(self.dropout(x.mean((2, 3))))
        return logits


def _blocks(stages: int) -> Iterator[InvertedResidual]:
    channels = STEM_CHANNELS
    for blocks, size, stride, expansion, out_channels in STAGES[:stages]:
        for block in range(blocks):
            yield InvertedResidual(channels, out_channels, size, 1 if block else stride, expansion)
            channels = out_channels


class FusedClassifier:
    """A trained one in use, on the processor wherever the segmentation runs: it takes milliseconds."""

    def __init__(self, classifier: TargetClassifier) -> None:
        self._network = deepcopy(classifier).eval()
        for module in self._network.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        for parameter in self._network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (N, S, S, 3) -> class probabilities (N, num_class)."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # more would cost more than they bring, beside the segmentation's own above all
        try:
            logits = self._network(torch.from_numpy(crops).permute(0, 3, 1, 2).float())  # channels last in memory
        finally:
            torch.set_num_threads(threads)
        probabilities: NDArray[np.float32] = torch.softmax(logits, dim=1).numpy()
        return probabilities
