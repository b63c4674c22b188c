"""DAS-Net: symmetric dynamic convolutions, attention gates, deep supervision (Kim & Kim, Appl. Sci. 2026, 16, 5688).

In: float32 images (N, 3, H, W) in 0..1, H and W multiples of `multiple`.  Out: logits (N, num_class, H, W);
while training, also three auxiliary logit maps of the same shape, coarse to fine.
This is the reference implementation; `model.fused` is its exact, faster rewrite.
"""

import torch
from torch import Tensor, nn

from model.blocks import AttentionGate, DynamicConvBlock, OutputBlock, upsample
from model.dynamic_unet import AUX_HEADS, DynamicUNet


class Decoder(nn.Module):
    """`size` stages of upsampling, attention gate and dynamic convolution, then the output block."""

    def __init__(self, channels: int, num_class: int, size: int, padding: int) -> None:
        super().__init__()
        self.dy_blocks = nn.ModuleList(DynamicConvBlock(2 * channels, channels, padding) for _ in range(size))
        self.attention_gates = nn.ModuleList(AttentionGate(channels) for _ in range(size))
        self.aux_heads = nn.ModuleDict(
            {str(stage): nn.Conv2d(channels, num_class, 1) for stage in range(size - AUX_HEADS, size)}
        )
        self.output = OutputBlock(channels, num_class)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits and, while training, auxiliary logits from the encoder's maps, finest first."""
        x, skips = maps[-1], maps[-2::-1]
        auxiliary = []
        for stage, (block, gate, skip) in enumerate(zip(self.dy_blocks, self.attention_gates, skips, strict=True)):
            x = upsample(x, skip.shape[-2:])
            x = block(torch.cat([x, gate(x, skip)], dim=1))
            if self.training and str(stage) in self.aux_heads:
                auxiliary.append(upsample(self.aux_heads[str(stage)](x), maps[0].shape[-2:]))
        return self.output(x), auxiliary


class DASNet(DynamicUNet):
    """DAS-Net, as described in the module docstring."""

    least_size = AUX_HEADS  # one level for each auxiliary head
    decoder: Decoder

    def make_decoder(self, channels: int, num_class: int, size: int, padding: int) -> nn.Module:
        """Return the decoder."""
        return Decoder(channels, num_class, size, padding)
