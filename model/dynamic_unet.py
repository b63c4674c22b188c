"""What the networks of the DAS-Net family share: the dynamic encoder, the checks, and the order of things.

In: float32 images (N, 3, H, W) in 0..1, H and W multiples of `multiple`.  Out: logits (N, num_class, H, W); while
training, those with auxiliary heads return their logit maps of the same shape besides, coarse to fine.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from model.blocks import DynamicConvBlock, require_multiple

AUX_HEADS = 3  # the last three decoder stages are supervised
# Deeper maps may have odd sides: they are halved upwards, and the decoder goes back to the size of its skip.  At
# multiples of 2**size, all that the original takes, nothing differs from it; other pictures need less padding.
MOST_MULTIPLE = 32


class Encoder(nn.Module):
    """`size` dynamic blocks, each followed by 2x2 max pooling, and one more block at the bottom."""

    def __init__(self, in_channels: int, channels: int, size: int, padding: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level in range(size):
            layers.append(DynamicConvBlock(in_channels if level == 0 else channels, channels, padding))
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        layers.append(DynamicConvBlock(channels, channels, padding))
        self.encoder_layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps of all levels, finest first; the last is the bottom."""
        maps = []
        for layer in self.encoder_layers:
            x = layer(x)
            if not isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        return maps


class DynamicUNet(nn.Module, ABC):
    """An encoder and whatever decoder a network has.

    Arguments are named as in the original.  Raises ValueError for those that no network can be made from.
    """

    decoder: nn.Module
    least_size = 1

    def __init__(
        self,
        in_channels: int = 3,
        start_out_channels: int = 64,
        num_class: int = 1,
        size: int = 7,
        padding: int = 1,
        upsample: bool = True,
    ) -> None:
        for name, value, least in (
            ("in_channels", in_channels, 1),
            ("start_out_channels", start_out_channels, 1),
            ("num_class", num_class, 1),
            ("size", size, self.least_size),
        ):
            require_count(name, value, least)
        if padding != 1:
            raise ValueError(f"padding={padding!r}: the maps of both sides would not fit each other; allowed: 1")
        if not upsample:
            raise ValueError(f"upsample={upsample!r}: defined with bilinear upsampling only; allowed: True")
        super().__init__()
        self.size = size
        self.num_class = num_class
        self.in_channels = in_channels
        self.encoder = Encoder(in_channels, start_out_channels, size, padding)
        self.decoder = self.make_decoder(start_out_channels, num_class, size, padding)

    @abstractmethod
    def make_decoder(self, channels: int, num_class: int, size: int, padding: int) -> nn.Module: ...

    @property
    def multiple(self) -> int:
        """Height and width of an input must be multiples of this."""
        return int(min(2**self.size, MOST_MULTIPLE))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        require_multiple(x, self.multiple)
        logits: Tensor
        auxiliary: list[Tensor]
        logits, auxiliary = self.decoder(self.encoder(x))
        return (logits, auxiliary) if auxiliary else logits


def require_count(name: str, value: object, least: int) -> None:
    """Raises ValueError naming the argument, its value and what is allowed."""
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: allowed: a whole number, {least} or more")
