"""The paper's four baselines outside the DAS-Net family, from segmentation-models-pytorch.

In: float32 images (N, 3, H, W) in 0..1, H and W multiples of the network's `multiple`.  Out: logits
(N, num_class, H, W), also while training.  Weights are random, none are downloaded.  The package is an extra
(`baselines`), imported when a baseline is built.
"""

import importlib
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.blocks import require_multiple
from model.dynamic_unet import require_count
from model.errors import ModelError

LIBRARY = "segmentation_models_pytorch"


@dataclass(frozen=True)
class Baseline:
    """A baseline: the library's class, its encoder, and the multiple that its sides must have."""

    architecture: str
    encoder: str
    multiple: int


BASELINES = {
    "unet": Baseline("Unet", "resnet34", 32),
    "mobileunet": Baseline("Unet", "mobilenet_v2", 32),
    # Stride 16, and three poolings below that: sides under 128 pixels fail inside the network.
    "pan": Baseline("PAN", "resnet34", 128),
    "pspnet": Baseline("PSPNet", "resnet34", 8),
}


def build_baseline(name: str, in_channels: int = 3, num_class: int = 1) -> nn.Module:
    """Build a baseline with the attributes `multiple`, `num_class` and `in_channels` of our networks.

    Raise ModelError without the package, ValueError for counts below one.
    """
    require_count("in_channels", in_channels, 1)
    require_count("num_class", num_class, 1)
    baseline = BASELINES[name]
    architecture = getattr(_library(name), baseline.architecture)
    network: Any = architecture(
        encoder_name=baseline.encoder, encoder_weights=None, in_channels=in_channels, classes=num_class
    )
    network.multiple = baseline.multiple
    network.num_class = num_class
    network.in_channels = in_channels
    network.register_forward_pre_hook(_check_size)  # the library accepts some wrong sizes
    assert isinstance(network, nn.Module)
    return network


def _check_size(network: Any, inputs: tuple[Tensor, ...]) -> None:
    require_multiple(inputs[0], network.multiple)


def _library(name: str) -> Any:
    try:
        try:
            return importlib.import_module(LIBRARY)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            _declare_operators()
            return importlib.import_module(LIBRARY)
    except ImportError as error:
        raise ModelError(
            f"network {name}: needs the package segmentation-models-pytorch ({error}): pip install dasnet[baselines]"
        ) from error


def _declare_operators() -> None:
    """Declare torchvision's operators, so that it can be imported with a torch that it was not built for.

    Its compiled operators are missing then, and the import fails when it registers their shapes.  No baseline calls
    them, so declaring them is enough.
    """
    for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
        del sys.modules[module]  # the partly imported modules
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
