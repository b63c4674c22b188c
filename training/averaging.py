"""Exponential moving average (EMA) of a network's weights and running statistics."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def ema_update(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Update an exponential moving average of weights and running statistics with decay `keep`."""
    targets, sources = _floats(average), _floats(network)
    torch._foreach_lerp_(targets, sources, 1 - keep)


def _floats(network: nn.Module) -> list[Tensor]:
    buffers = [item for item in network.buffers() if item.is_floating_point()]
    return [*network.parameters(), *buffers]
