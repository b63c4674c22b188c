"""The base of the networks of the DAS-Net family: the dynamic encoder, argument checks and the forward pass.

In: float32 images (N, 3, H, W) in 0..1, H and W multiples of `multiple`.  Out: logits (N, num_class, H, W); while
training, networks with auxiliary heads also return logit maps of the same shape, coarse to fine.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from model.blocks import DynamicConvBlock, require_multiple

AUX_HEADS = 3  # the last three decoder stages are supervised
# Deeper maps may have odd sides: pooling rounds up, and the decoder upsamples to the size of its skip.  At multiples of
# 2**size, the only sizes that the original accepts, results equal the original's; other sizes need less padding.
MAX_MULTIPLE = 32


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
        """Return the maps of all levels, finest first, the bottom last."""
        maps = []
        for layer in self.encoder_layers:
            x = layer(x)
            if not isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        return maps


class DynamicUNet(nn.Module, ABC):
    """A dynamic encoder and the decoder that a subclass makes.

    Arguments have the original's names.  Raises ValueError for arguments out of range.
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
            raise ValueError(f"padding={padding!r}; must be 1, so that decoder and encoder maps have one size")
        if not upsample:
            raise ValueError(f"upsample={upsample!r}; must be True, bilinear upsampling")
        super().__init__()
        self.size = size
        self.num_class = num_class
        self.in_channels = in_channels
        self.encoder = Encoder(in_channels, start_out_channels, size, padding)
        self.decoder = self.make_decoder(start_out_channels, num_class, size, padding)

    @abstractmethod
    def make_decoder(self, channels: int, num_class: int, size: int, padding: int) -> nn.Module:
        """Return the decoder."""

    @property
    def multiple(self) -> int:
        """Return the number of which height and width of an input must be multiples."""
        return int(min(2**self.size, MAX_MULTIPLE))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return logits and, while training a network with auxiliary heads, the auxiliary logits."""
        require_multiple(x, self.multiple)
        logits: Tensor
        auxiliary: list[Tensor]
        logits, auxiliary = self.decoder(self.encoder(x))
        return (logits, auxiliary) if auxiliary else logits


def require_count(name: str, value: object, least: int) -> None:
    """Raise ValueError unless the argument is a whole number of at least `least`."""
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}; must be a whole number, at least {least}")
