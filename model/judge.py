"""The judge: a small temporal network that says whether a chip shows a target, which one, and how unusual it is.

In: chips, uint8 (N, T, S, S) grey crops of one place, registered, newest first (`pipeline.segmentation.chips`).
Out: per chip the log-odds of target against clutter, class probabilities, and a novelty score.  The two heads are kept
apart since the first generalises to cameras that training has not seen, and the second does not.  Novelty is the
Mahalanobis distance of the pooled features to the nearest class of training (Lee et al., NeurIPS 2018,
arXiv 1807.03888), in units of training's 99th percentile.
"""

from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.native import processor
from model.native.judge import NativeBody
from model.native.library import NativeError

CHANNELS = (32, 48, 96, 128)
BATCH = 6  # chips whose maps stay in the cache, and small enough for malloc to reuse their memory
DEVIATION_FLOOR = 4.0  # grey levels added to the chip's deviation, so that noise on a clear sky is not amplified


class Judge(nn.Module):
    """The network: convolutions over the frames and their differences, pooled by mean and maximum, and two heads."""

    def __init__(self, frames: int, num_class: int, dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        in_channels = 2 * frames - 1
        for number, out_channels in enumerate(CHANNELS):
            size, stride = (5, 2) if number == 0 else (3, 1)
            conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]
            if 0 < number < len(CHANNELS) - 1:
                layers.append(nn.MaxPool2d(2))
            in_channels = out_channels
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.target = nn.Linear(2 * CHANNELS[-1], 1)
        self.classes = nn.Linear(2 * CHANNELS[-1], num_class)
        features = 2 * CHANNELS[-1]
        # Of training's targets, by class: mean features, and the matrix that whitens them, scaled to novelty.
        self.register_buffer("means", torch.zeros(num_class, features))
        self.register_buffer("whitening", torch.zeros(features, features))
        # Calibration of the two heads, fitted on held-out chips (Platt scaling; temperature).
        self.register_buffer("target_scale", torch.tensor([1.0, 0.0]))
        self.register_buffer("class_scale", torch.ones(1))

    def features(self, chips: Tensor) -> Tensor:
        """Return pooled features (N, F) of normalised chips (N, T, S, S)."""
        return pooled(self.body(with_differences(chips)))

    def forward(self, chips: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of a target (N,) and of the classes (N, num_class), uncalibrated, of normalised chips."""
        features = self.dropout(self.features(chips))
        return self.target(features)[:, 0], self.classes(features)

    def novelty(self, features: Tensor) -> Tensor:
        """Return the distance (N,) of features (N, F) from what training knew; 1: its 99th percentile."""
        means, whitening = self.get_buffer("means"), self.get_buffer("whitening")
        distances = ((features[:, None] - means) @ whitening).norm(dim=2)
        nearest: Tensor = distances.amin(dim=1)
        return nearest


def with_differences(chips: Tensor) -> Tensor:
    """Return the body's input (N, 2 T - 1, S, S): chips (N, T, S, S), and the newest frame minus each other one."""
    return torch.cat([chips, chips[:, :1] - chips[:, 1:]], dim=1)


def pooled(maps: Tensor) -> Tensor:
    """Return the features (N, 2 C) of the body's output (N, C, h, w): its mean and its maximum."""
    return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)


def normalised(chips: Tensor) -> Tensor:
    """Return chips (N, T, S, S) in 0..255, normalised by the newest frame's median and deviation, logarithmic.

    So neither a camera's gain nor its offset changes a chip.
    """
    newest = chips[:, 0].flatten(1)
    middle = newest.median(dim=1).values[:, None, None, None]
    deviation = (newest - middle[:, :, 0, 0]).abs().median(dim=1).values[:, None, None, None]
    scaled = (chips - middle) / (1.5 * deviation + DEVIATION_FLOOR)
    return torch.sign(scaled) * torch.log1p(scaled.abs())


def normalised_by_table(chips: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the same as `normalised`, of uint8 chips, a pixel's frames side by side in memory.

    A table of 256 values for each chip is many times as fast.
    """
    import cv2  # here: the judge is also trained where there is none

    levels = np.arange(256, dtype=np.float32)
    count, frames, height, width = chips.shape
    result = np.empty((count, height, width, frames), np.float32)
    for chip, out in zip(chips, result, strict=True):
        counts = np.bincount(chip[0].ravel(), minlength=256)
        middle = _median(counts)
        deviations = np.bincount(np.abs(np.arange(256) - middle), weights=counts, minlength=256)
        scaled = (levels - middle) / np.float32(1.5 * _median(deviations) + DEVIATION_FLOOR)
        table = np.sign(scaled) * np.log1p(np.abs(scaled))
        cv2.LUT(np.ascontiguousarray(chip.transpose(1, 2, 0)), table, dst=out)
    return result.transpose(0, 3, 1, 2)


def _median(counts: NDArray[np.generic]) -> int:
    """Return the lower median of whole numbers of which there are `counts`."""
    cumulated = np.cumsum(counts)
    return int(np.searchsorted(cumulated, (cumulated[-1] + 1) // 2))


@dataclass(frozen=True)
class Verdicts:
    """What the judge says of N chips."""

    target_log_odds: NDArray[np.float32]  # (N,), calibrated
    class_scores: NDArray[np.float32]  # (N, num_class) probabilities given that it is a target, calibrated
    novelty: NDArray[np.float32]  # (N,); above 1: unlike training


class FusedJudge:
    """A trained judge prepared for inference: BatchNorm folded, on the CPU, where it takes milliseconds.

    Args:
        judge: the network.
        dtype: of torch's convolutions.  By default they are computed natively, in float32; where that is not possible,
            by torch in bfloat16 where the processor multiplies it in vectors, else float32.  The first, heads and
            novelty are always computed in float32.
    """

    def __init__(self, judge: Judge, dtype: torch.dtype | None = None) -> None:
        self._dtype = dtype or (torch.bfloat16 if "avx512_bf16" in processor.features() else torch.float32)
        self._network = deepcopy(judge).eval()
        layers = list(self._network.body)
        for number, layer in enumerate(layers):
            if isinstance(layer, nn.Conv2d):
                norm = layers[number + 1]
                assert isinstance(norm, nn.BatchNorm2d)
                self._network.body[number] = fuse_conv_bn_eval(layer, norm)
                self._network.body[number + 1] = nn.Identity()
        first = self._network.body[0]
        assert isinstance(first, nn.Conv2d)
        self._first = without_differences(first)
        rest = [deepcopy(layer) for layer in list(self._network.body)[1:] if isinstance(layer, nn.Conv2d)]
        self._rest = self._network.body[1:].to(self._dtype)
        for part in (self._first, self._rest):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._native: NativeBody | None = None
        if dtype is None:
            with suppress(NativeError):
                self._native = NativeBody([self._first, *rest])

    @torch.inference_mode()
    def __call__(self, chips: NDArray[np.uint8]) -> Verdicts:
        """Judge chips, uint8 (N, T, S, S)."""
        network = self._network
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the work is small, and the segmentation's threads need the cores
        try:
            features = self._features(chips)
            scale, offset = network.get_buffer("target_scale")
            target = network.target(features)[:, 0] * scale + offset
            classes = torch.softmax(network.classes(features) * network.get_buffer("class_scale"), dim=1)
            novelty = network.novelty(features)
        finally:
            torch.set_num_threads(threads)
        return Verdicts(target.numpy(), classes.numpy(), novelty.numpy())

    def _features(self, chips: NDArray[np.uint8]) -> Tensor:
        if self._native is not None and self._native.accepts(chips):
            return torch.from_numpy(self._native(chips))
        starts = range(0, max(1, len(chips)), BATCH)
        return torch.cat([self._features_by_torch(chips[start : start + BATCH]) for start in starts])

    def _features_by_torch(self, chips: NDArray[np.uint8]) -> Tensor:
        maps = self._first(torch.from_numpy(normalised_by_table(chips)))
        return pooled(self._rest(maps.to(self._dtype)).float())


def without_differences(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the convolution of chips that equals this one of `with_differences`, of which it is a linear function."""
    weight, bias = conv.weight.detach(), conv.bias
    assert bias is not None
    frames = (weight.shape[1] + 1) // 2
    folded = weight[:, :frames].clone()
    folded[:, :1] += weight[:, frames:].sum(dim=1, keepdim=True)
    folded[:, 1:] -= weight[:, frames:]
    result = nn.Conv2d(frames, weight.shape[0], conv.kernel_size, conv.stride, conv.padding)  # type: ignore[arg-type]
    result.weight, result.bias = nn.Parameter(folded), nn.Parameter(bias.detach().clone())
    return result
