"""The networks, by name."""

from collections.abc import Callable
from typing import Any

from torch import nn

from model.dasnet import DASNet
from model.errors import ModelError

NETWORKS: dict[str, Callable[..., nn.Module]] = {"dasnet": DASNet}


def build(name: str, **arguments: Any) -> nn.Module:
    """A network with fresh weights, e.g. `build("dasnet", num_class=4)`.

    Raises ModelError for an unknown name or argument.
    """
    if name not in NETWORKS:
        raise ModelError(f"unknown network {name!r}; allowed: {', '.join(sorted(NETWORKS))}")
    try:
        return NETWORKS[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"network {name}: {error}") from error
