"""The networks, by name: to build one, and to tell from weights alone which one they are of."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from model.dasnet import DASNet
from model.errors import ModelError
from model.external import BASELINES, build_baseline
from model.family import DeepSupDyUNet, FullDyUNet, ThinDyUNet

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "dasnet": DASNet,
    "deepsupdyunet": DeepSupDyUNet,
    "fulldyunet": FullDyUNet,
    "thindyunet": ThinDyUNet,
    **{name: partial(build_baseline, name) for name in BASELINES},
}

# Beginnings of keys that tell the networks apart; the first network that has all of its own is the one.
MARKS: dict[str, tuple[str, ...]] = {
    "dasnet": ("decoder.attention_gates.",),
    "fulldyunet": ("decoder.dy_blocks.",),
    "deepsupdyunet": ("decoder.decoder_layers.", "decoder.aux_heads."),
    "thindyunet": ("decoder.decoder_layers.",),
    "pan": ("decoder.fpa.",),
    "pspnet": ("decoder.psp.",),
    "mobileunet": ("encoder.features.", "segmentation_head."),
    "unet": ("segmentation_head.",),
}


def build(name: str, **arguments: Any) -> nn.Module:
    """A network with fresh weights, e.g. `build("dasnet", num_class=4)`.

    Raises ModelError for an unknown name or argument, or where the package of a baseline is missing.
    """
    if name not in NETWORKS:
        raise ModelError(f"unknown network {name!r}; allowed: {', '.join(sorted(NETWORKS))}")
    try:
        return NETWORKS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"network {name}: {error}") from error


def recognise(tensors: Mapping[str, Tensor]) -> tuple[str, int]:
    """Name and number of classes of the network that a state dict is of; the original's files say neither.

    What nothing is known of is taken for a dasnet with one class: filling it then says what does not fit.
    """
    name = next(
        (name for name, marks in MARKS.items() if all(any(key.startswith(m) for key in tensors) for m in marks)),
        "dasnet",
    )
    head = "segmentation_head.0.weight" if name in BASELINES else "output_block.1.weight"
    shape = next((tensor.shape for key, tensor in tensors.items() if key.endswith(head)), ())
    return name, shape[0] if shape else 1
