"""The networks by name: build one, or recognise from weights alone which one they belong to."""

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

# Key prefixes that identify each network; the first network all of whose prefixes occur is the match.
KEY_PREFIXES: dict[str, tuple[str, ...]] = {
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
    """Build a network with random weights, e.g. `build("dasnet", num_class=4)`.

    Raise ModelError for an unknown name or argument, or where the package of a baseline is missing.
    """
    if name not in NETWORKS:
        raise ModelError(f"network {name!r}; must be one of {', '.join(sorted(NETWORKS))}")
    try:
        return NETWORKS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"network {name}: {error}") from error


def recognise(tensors: Mapping[str, Tensor]) -> tuple[str, int]:
    """Return the name and number of classes of the network that a state dict belongs to.

    The original's files state neither.  Unrecognised weights are taken for a dasnet with one class, so that loading
    them reports what does not fit.
    """
    name = next(
        (
            name
            for name, prefixes in KEY_PREFIXES.items()
            if all(any(key.startswith(prefix) for key in tensors) for prefix in prefixes)
        ),
        "dasnet",
    )
    head = "segmentation_head.0.weight" if name in BASELINES else "output_block.1.weight"
    shape = next((tensor.shape for key, tensor in tensors.items() if key.endswith(head)), ())
    return name, shape[0] if shape else 1
