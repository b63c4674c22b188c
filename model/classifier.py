"""Second-stage classifier: a small network that labels each detection crop.

In: float32 crops (N, 3, S, S) in 0..255, RGB, centred on the detection.  Out: logits (N, num_class).
It consists of the first stages of EfficientNet-Lite0 (Tan and Le, ICML 2019, arXiv 1905.11946; Lite: without squeeze
and excitation, ReLU6), so that training can start from ImageNet weights, which improves generalisation to unseen
cameras.
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
# Blocks, kernel size, stride of the first block, expansion ratio, channels.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
DEVIATION_OFFSET = 8.0  # grey levels added to a crop's deviation, so that noise on a clear sky is not amplified
INPUT_DEVIATION = 0.5  # of the first layer's input, about that of ImageNet's photographs


class ConvNorm(nn.Module):
    """Convolution -> BatchNorm.  Without a bias, which the normalisation would cancel."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = (size - stride) // 2  # TensorFlow's "same": with a stride, one more on the right than on the left
        self.conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03)
        self._extra_padding = size - stride - 2 * padding

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, out_channels, H / stride, W / stride)."""
        y: Tensor = self.norm(self.conv(F.pad(x, (0, self._extra_padding) * 2) if self._extra_padding else x))
        return y

    def fold(self) -> None:
        """Fold the normalisation into the convolution, for inference."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class InvertedResidual(nn.Module):
    """Inverted residual block: expansion, depthwise convolution, projection (arXiv 1801.04381, CVPR 2018)."""

    def __init__(self, in_channels: int, out_channels: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand: nn.Module = ConvNorm(in_channels, inner, 1) if expansion > 1 else nn.Identity()
        self.filter = ConvNorm(inner, inner, size, stride, groups=inner)
        self.project = ConvNorm(inner, out_channels, 1)
        self._has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, out_channels, H / stride, W / stride)."""
        y: Tensor = self.project(F.relu6(self.filter(F.relu6(self.expand(x)))))
        return x + y if self._has_shortcut else y


class TargetClassifier(nn.Module):
    """The classifier: `stages` of STAGES on crops enlarged to `enlarged_px`, a multiple of 32."""

    def __init__(self, num_class: int, stages: int, enlarged_px: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.enlarged_px = enlarged_px
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.Sequential(*_blocks(stages))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(STAGES[stages - 1][-1], num_class)

    def forward(self, crops: Tensor) -> Tensor:
        """Return logits (N, num_class) of crops (N, 3, S, S) in 0..255."""
        mean, deviation = crops.mean((1, 2, 3), keepdim=True), crops.std((1, 2, 3), keepdim=True)
        x = (crops - mean) * (INPUT_DEVIATION / (deviation + DEVIATION_OFFSET))
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
    """A trained classifier prepared for inference: BatchNorm folded, on the CPU, where it takes milliseconds."""

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
        """Return class probabilities (N, num_class) of uint8 RGB crops (N, S, S, 3)."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the work is small, and the segmentation's threads need the cores
        try:
            logits = self._network(torch.from_numpy(crops).permute(0, 3, 1, 2).float())  # channels last in memory
        finally:
            torch.set_num_threads(threads)
        probabilities: NDArray[np.float32] = torch.softmax(logits, dim=1).numpy()
        return probabilities
