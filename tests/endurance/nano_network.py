"""A detector of the size that a buyer without a GPU would take, YOLO11n: its architecture with random weights.

Built from the public description (https://docs.ultralytics.com/models/yolo11, `yolo11.yaml` at scale n): with 80
classes 2.62 million parameters and 6.5 GFLOP at 640x640.  Speed does not depend on the weights.  `write` exports it to
ONNX, in float32, or in int8 with scales calibrated on random images.

In: float32 images (N, 3, H, W) in 0..1, sides multiples of 32.  Out: per place the distribution of the box's sides and
the class logits, (N, 64 + classes, places); decoding of boxes and non-maximum suppression are left out.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIDE_PX = 640
CLASSES = 4
BINS = 64  # of a box's sides: four times 16
CALIBRATION_IMAGES = 8


def convolution(
    inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Module:
    activation: nn.Module = nn.SiLU(inplace=True) if active else nn.Identity()
    padded = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(padded, nn.BatchNorm2d(outputs), activation)


class Bottleneck(nn.Module):
    def __init__(self, channels: int, share: float = 0.5) -> None:
        super().__init__()
        hidden = int(channels * share)
        self.layers = nn.Sequential(convolution(channels, hidden, 3), convolution(hidden, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.layers(x)
        return added


class C3k(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.left = nn.Sequential(convolution(channels, hidden), Bottleneck(hidden, 1.0), Bottleneck(hidden, 1.0))
        self.right, self.join = convolution(channels, hidden), convolution(2 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat([self.left(x), self.right(x)], 1))
        return joined


class C3k2(nn.Module):
    def __init__(self, inputs: int, outputs: int, share: float = 0.5, deep: bool = False) -> None:
        super().__init__()
        self.hidden = int(outputs * share)
        self.split = convolution(inputs, 2 * self.hidden)
        self.block = C3k(self.hidden) if deep else Bottleneck(self.hidden)
        self.join = convolution(3 * self.hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.split(x).split(self.hidden, 1)
        joined: Tensor = self.join(torch.cat([first, second, self.block(second)], 1))
        return joined


class Pyramid(nn.Module):
    """Spatial pyramid pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.join = convolution(channels, channels // 2), convolution(2 * channels, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.reduce(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        joined: Tensor = self.join(torch.cat(maps, 1))
        return joined


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads, self.width = channels // 64, 64
        self.key = self.width // 2
        self.qkv = convolution(channels, channels + 2 * self.key * self.heads, active=False)
        self.project = convolution(channels, channels, active=False)
        self.position = convolution(channels, channels, 3, groups=channels, active=False)

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        per_head = self.qkv(x).view(count, self.heads, 2 * self.key + self.width, height * width)
        query, key, value = per_head.split([self.key, self.key, self.width], 2)
        weights = ((query.transpose(-2, -1) @ key) * self.key**-0.5).softmax(-1)
        mixed = (value @ weights.transpose(-2, -1)).view(count, channels, height, width)
        projected: Tensor = self.project(mixed + self.position(value.reshape(count, channels, height, width)))
        return projected


class C2PSA(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = channels // 2
        self.split, self.join = convolution(channels, 2 * self.hidden), convolution(2 * self.hidden, channels)
        self.attention = Attention(self.hidden)
        self.feed = nn.Sequential(
            convolution(self.hidden, 2 * self.hidden), convolution(2 * self.hidden, self.hidden, active=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.split(x).split(self.hidden, 1)
        second = second + self.attention(second)
        joined: Tensor = self.join(torch.cat([first, second + self.feed(second)], 1))
        return joined


class Head(nn.Module):
    """Boxes and classes of one level."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        hidden = max(64, min(classes, 100))
        self.boxes = nn.Sequential(convolution(inputs, 64, 3), convolution(64, 64, 3), nn.Conv2d(64, BINS, 1))
        self.classes = nn.Sequential(
            convolution(inputs, inputs, 3, groups=inputs),
            convolution(inputs, hidden),
            convolution(hidden, hidden, 3, groups=hidden),
            convolution(hidden, hidden),
            nn.Conv2d(hidden, classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.boxes(x), self.classes(x)], 1).flatten(2)


class NanoNetwork(nn.Module):
    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.to_8 = nn.Sequential(
            convolution(3, 16, 3, 2),
            convolution(16, 32, 3, 2),
            C3k2(32, 64, 0.25),
            convolution(64, 64, 3, 2),
            C3k2(64, 128, 0.25),
        )
        self.to_16 = nn.Sequential(convolution(128, 128, 3, 2), C3k2(128, 128, deep=True))
        self.to_32 = nn.Sequential(convolution(128, 256, 3, 2), C3k2(256, 256, deep=True), Pyramid(256), C2PSA(256))
        self.up = nn.Upsample(scale_factor=2)
        self.up_16, self.up_8 = C3k2(384, 128), C3k2(256, 64)
        self.down_16, self.join_16 = convolution(64, 64, 3, 2), C3k2(192, 128)
        self.down_32, self.join_32 = convolution(128, 128, 3, 2), C3k2(384, 256, deep=True)
        self.heads = nn.ModuleList(Head(inputs, classes) for inputs in (64, 128, 256))

    def forward(self, image: Tensor) -> Tensor:
        fine = self.to_8(image)
        middle = self.to_16(fine)
        coarse = self.to_32(middle)
        up = self.up_16(torch.cat([self.up(coarse), middle], 1))
        at_8 = self.up_8(torch.cat([self.up(up), fine], 1))
        at_16 = self.join_16(torch.cat([self.down_16(at_8), up], 1))
        at_32 = self.join_32(torch.cat([self.down_32(at_16), coarse], 1))
        return torch.cat([head(x) for head, x in zip(self.heads, (at_8, at_16, at_32), strict=True)], 2)


class RandomImages:
    """Calibration images for ONNX Runtime's quantisation."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        shape = (1, 3, SIDE_PX, SIDE_PX)
        self._images: Iterator[NDArray[np.float32]] = iter(
            random.random(shape, np.float32) for _ in range(CALIBRATION_IMAGES)
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def write(folder: Path) -> dict[str, Path]:
    """Write the network as ONNX files, by precision."""
    quantization = import_module("onnxruntime.quantization")
    torch.manual_seed(0)
    paths = {precision: folder / f"nano_{precision}.onnx" for precision in ("fp32", "int8")}
    example = torch.zeros(1, 3, SIDE_PX, SIDE_PX)
    torch.onnx.export(
        NanoNetwork().eval(), (example,), paths["fp32"], input_names=["image"], output_names=["places"], dynamo=True,
        external_data=False, verbose=False,
    )  # fmt: skip
    quantization.quantize_static(
        paths["fp32"],
        paths["int8"],
        RandomImages(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )
    return paths
