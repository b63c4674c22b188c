"""Start a DAS-Net of few channels from a wider, trained one: from its strongest channels.

In: both networks, equal but for the channels.  Out: the weights of the narrower one are set.  Each group of a
GroupNorm keeps the same share of its channels, so that what they are normalised by changes little.
"""

import torch
from torch import Tensor, nn

from model.blocks import NORM_GROUPS
from model.dasnet import DASNet
from model.dynamic_unet import AUX_HEADS

OUTPUT = "decoder.output.output_block"


def is_narrower(network: nn.Module, wide: nn.Module) -> bool:
    """Return whether the first is a DAS-Net that equals the second but has fewer channels."""
    if not isinstance(network, DASNet) or not isinstance(wide, DASNet):
        return False
    same = all(getattr(network, name) == getattr(wide, name) for name in ("size", "num_class", "in_channels"))
    return same and _channels(network) < _channels(wide)


@torch.no_grad()
def narrow(network: DASNet, wide: DASNet) -> None:
    """Set the weights of a network to those of the strongest channels of a wider one."""
    selection = _Selection(network, wide)
    kept = torch.arange(wide.in_channels)
    levels = []
    for level in range(wide.size + 1):
        kept = selection.block(f"encoder.encoder_layers.{2 * level}", kept)
        levels.append(kept)
    for stage, skip in enumerate(levels[-2::-1]):
        selection.gate(f"decoder.attention_gates.{stage}", kept, skip)
        kept = selection.block(f"decoder.dy_blocks.{stage}", torch.cat([kept, _channels(wide) + skip]))
        if stage >= wide.size - AUX_HEADS:
            selection.head(f"decoder.aux_heads.{stage}", kept)
    selection.output(kept)
    network.load_state_dict(selection.made)


class _Selection:
    """Selects of the wider network's weights those of a narrower one, layer by layer."""

    def __init__(self, network: DASNet, wide: DASNet) -> None:
        self._wide, self._expected = wide.state_dict(), network.state_dict()
        self.made: dict[str, Tensor] = {}

    def block(self, name: str, inputs: Tensor) -> Tensor:
        """Add a dynamic convolution that reads these channels; return those of its output that are kept."""
        wide, gamma = self._wide, self._wide[f"{name}.gn.weight"]
        weights = wide[f"{name}.weights"][:, :, inputs]
        strength = _norms(weights, 1) * gamma.abs()
        kept = _strongest(strength, len(self._expected[f"{name}.gn.weight"]), NORM_GROUPS)
        reduce, expand = wide[f"{name}.attention.1.weight"][:, inputs], wide[f"{name}.attention.3.weight"]
        hidden = _strongest(_norms(reduce, 0) * _norms(expand, 1), len(self._expected[f"{name}.attention.1.weight"]))
        self.made |= {
            f"{name}.weights": weights[:, kept],
            f"{name}.gn.weight": gamma[kept],
            f"{name}.gn.bias": wide[f"{name}.gn.bias"][kept],
            f"{name}.attention.1.weight": reduce[hidden],
            f"{name}.attention.3.weight": expand[:, hidden],
            f"{name}.attention.3.bias": wide[f"{name}.attention.3.bias"],
        }
        return kept

    def gate(self, name: str, gating: Tensor, skip: Tensor) -> None:
        """Add an attention gate that reads these channels."""
        from_gating, from_skip = self._wide[f"{name}.W_g.weight"][:, gating], self._wide[f"{name}.W_x.weight"][:, skip]
        psi = self._wide[f"{name}.psi.0.weight"]
        strength = (_norms(from_gating, 0) + _norms(from_skip, 0)) * _norms(psi, 1)
        hidden = _strongest(strength, len(self._expected[f"{name}.W_g.weight"]))
        self.made[f"{name}.W_g.weight"], self.made[f"{name}.W_x.weight"] = from_gating[hidden], from_skip[hidden]
        self.made[f"{name}.psi.0.weight"] = psi[:, hidden]

    def head(self, name: str, inputs: Tensor) -> None:
        """Add an auxiliary head that reads these channels."""
        self.made[f"{name}.weight"] = self._wide[f"{name}.weight"][:, inputs]
        self.made[f"{name}.bias"] = self._wide[f"{name}.bias"]

    def output(self, inputs: Tensor) -> None:
        """Add the output block, which reads these channels."""
        weights, bias = self._wide[f"{OUTPUT}.0.weight"][:, inputs], self._wide[f"{OUTPUT}.0.bias"]
        mix, offset = self._wide[f"{OUTPUT}.1.weight"], self._wide[f"{OUTPUT}.1.bias"]
        kept = _strongest(_norms(weights, 0) * _norms(mix, 1), len(self._expected[f"{OUTPUT}.0.bias"]))
        self.made[f"{OUTPUT}.0.weight"], self.made[f"{OUTPUT}.0.bias"] = weights[kept], bias[kept]
        self.made[f"{OUTPUT}.1.weight"] = mix[:, kept]
        dropped = torch.ones(len(bias), dtype=torch.bool).index_fill(0, kept, False)
        # What the others add wherever the input is 0 stays.
        self.made[f"{OUTPUT}.1.bias"] = offset + mix.flatten(1)[:, dropped] @ bias[dropped]


def _channels(network: DASNet) -> int:
    return len(network.state_dict()[f"{OUTPUT}.0.bias"])


def _norms(weights: Tensor, dim: int) -> Tensor:
    """Return the norm of the weights of each index of a dimension."""
    norms: Tensor = torch.linalg.vector_norm(weights.transpose(0, dim).flatten(1), dim=1)
    return norms


def _strongest(strength: Tensor, count: int, groups: int = 1) -> Tensor:
    """Return the indices, rising, of the `count` largest values, equally many of each group of neighbours."""
    of_group = strength.reshape(groups, -1).topk(count // groups, dim=1).indices
    first = torch.arange(groups)[:, None] * (len(strength) // groups)
    indices: Tensor = (of_group + first).flatten().sort().values
    return indices
