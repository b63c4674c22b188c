"""DAS-Net: symmetric dynamic convolutions, attention gates, deep supervision (Kim & Kim, Appl. Sci. 2026, 16, 5688).

In: float32 images (N, 3, H, W) in 0..1, H and W multiples of 2**size.  Out: logits (N, num_class, H, W);
while training, also three auxiliary logit maps of the same shape, coarse to fine.
This module is the reference; `model.fused` holds its exact, faster rewrite.
"""

import torch
from torch import Tensor, nn

from model.blocks import AttentionGate, DynamicConvBlock, OutputBlock, require_multiple, upsample

AUX_HEADS = 3  # the last three decoder stages are supervised


class Encoder(nn.Module):
    """`size` dynamic blocks, each followed by 2x2 max pooling, and one more block at the bottom."""

    def __init__(self, in_channels: int, channels: int, size: int, padding: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level in range(size):
            layers += [DynamicConvBlock(in_channels if level == 0 else channels, channels, padding), nn.MaxPool2d(2)]
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


class Decoder(nn.Module):
    def __init__(self, channels: int, num_class: int, size: int, padding: int) -> None:
        super().__init__()
        self.dy_blocks = nn.ModuleList(DynamicConvBlock(2 * channels, channels, padding) for _ in range(size))
        self.attention_gates = nn.ModuleList(AttentionGate(channels) for _ in range(size))
        self.aux_heads = nn.ModuleDict(
            {str(stage): nn.Conv2d(channels, num_class, 1) for stage in range(size - AUX_HEADS, size)}
        )
        self.output = OutputBlock(channels, num_class)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        x, skips = maps[-1], maps[-2::-1]
        auxiliary = []
        for stage, (block, gate, skip) in enumerate(zip(self.dy_blocks, self.attention_gates, skips, strict=True)):
            x = upsample(x, skip.shape[-2:])
            x = block(torch.cat([x, gate(x, skip)], dim=1))
            if self.training and str(stage) in self.aux_heads:
                auxiliary.append(upsample(self.aux_heads[str(stage)](x), maps[0].shape[-2:]))
        return self.output(x), auxiliary


class DASNet(nn.Module):
    """See the module's text.  Arguments are named as in the original."""

    def __init__(
        self,
        in_channels: int = 3,
        start_out_channels: int = 64,
        num_class: int = 1,
        size: int = 7,
        padding: int = 1,
        upsample: bool = True,
    ) -> None:
        if not upsample:
            raise ValueError("upsample=False: DAS-Net is defined with bilinear upsampling only; allowed: True")
        if size < AUX_HEADS:
            raise ValueError(f"size={size}: allowed: {AUX_HEADS} or more levels, one for each auxiliary head")
        super().__init__()
        self.size = size
        self.num_class = num_class
        self.in_channels = in_channels
        self.encoder = Encoder(in_channels, start_out_channels, size, padding)
        self.decoder = Decoder(start_out_channels, num_class, size, padding)

    @property
    def multiple(self) -> int:
        """Height and width of an input must be multiples of this."""
        return int(2**self.size)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        require_multiple(x, self.multiple)
        logits, auxiliary = self.decoder(self.encoder(x))
        return (logits, auxiliary) if self.training else logits
