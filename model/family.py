"""The three ablations of DAS-Net in its paper.

In: float32 images (N, 3, H, W) in 0..1, H and W multiples of `multiple`.  Out: logits (N, num_class, H, W); while
training, DeepSupDyUNet also returns three auxiliary logit maps of the same shape, coarse to fine.

    network         encoder    decoder                         gates   auxiliary heads
    ThinDyUNet      dynamic    2 x (Conv3x3, BatchNorm)         -       -
    DeepSupDyUNet   dynamic    2 x (Conv3x3, BatchNorm)         -       last three stages
    FullDyUNet      dynamic    dynamic                         -       -
    DASNet          dynamic    dynamic                         yes     last three stages

Attribute names are those of the original implementation, so that its checkpoints load unchanged.
"""

import torch
from torch import Tensor, nn

from model.blocks import NEGATIVE_SLOPE, DynamicConvBlock, OutputBlock, upsample
from model.dynamic_unet import AUX_HEADS, DynamicUNet


class ConvBlock(nn.Module):
    """3x3 convolution -> BatchNorm -> LeakyReLU.  Without a bias, which the normalisation would cancel."""

    def __init__(self, in_channels: int, out_channels: int, padding: int = 1) -> None:
        super().__init__()
        self.cnn_block = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=padding, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(NEGATIVE_SLOPE),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, out_channels, H, W)."""
        y: Tensor = self.cnn_block(x)
        return y


class DoubleConvBlock(nn.Module):
    """Two ConvBlocks."""

    def __init__(self, in_channels: int, out_channels: int, padding: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [ConvBlock(in_channels, out_channels, padding), ConvBlock(out_channels, out_channels, padding)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, out_channels, H, W)."""
        for layer in self.layers:
            x = layer(x)
        return x


class PlainDecoder(nn.Module):
    """A decoder of static convolutions; `supervised` adds a 1x1 auxiliary head to each of the last three stages."""

    def __init__(self, channels: int, num_class: int, size: int, padding: int, supervised: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(size):
            # Upsampling has no weights, but as a list item it numbers the keys of the weights as the original does.
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))
            layers.append(DoubleConvBlock(2 * channels, channels, padding))
        layers.append(OutputBlock(channels, num_class))
        self.decoder_layers = nn.ModuleList(layers)
        self.aux_heads = nn.ModuleDict(
            {str(stage): nn.Conv2d(channels, num_class, 1) for stage in range(size - AUX_HEADS, size) if supervised}
        )

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits and auxiliary logits, if any, from the encoder's maps, finest first."""
        *layers, output = self.decoder_layers
        x, skips = maps[-1], maps[-2::-1]
        auxiliary = []
        for stage, (double, block, skip) in enumerate(zip(layers[::2], layers[1::2], skips, strict=True)):
            x = block(torch.cat([double(x), skip], dim=1))
            if self.training and str(stage) in self.aux_heads:
                auxiliary.append(upsample(self.aux_heads[str(stage)](x), maps[0].shape[-2:]))
        return output(x), auxiliary


class DynamicDecoder(nn.Module):
    """DAS-Net's decoder without attention gates and auxiliary heads."""

    def __init__(self, channels: int, num_class: int, size: int, padding: int) -> None:
        super().__init__()
        self.dy_blocks = nn.ModuleList(DynamicConvBlock(2 * channels, channels, padding) for _ in range(size))
        self.output = OutputBlock(channels, num_class)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits and auxiliary logits, if any, from the encoder's maps, finest first."""
        x, skips = maps[-1], maps[-2::-1]
        for block, skip in zip(self.dy_blocks, skips, strict=True):
            x = block(torch.cat([upsample(x, skip.shape[-2:]), skip], dim=1))
        return self.output(x), []


class ThinDyUNet(DynamicUNet):
    """Dynamic encoder, static decoder."""

    def make_decoder(self, channels: int, num_class: int, size: int, padding: int) -> nn.Module:
        """Return the decoder."""
        return PlainDecoder(channels, num_class, size, padding, supervised=False)


class DeepSupDyUNet(DynamicUNet):
    """Dynamic encoder, static decoder with deep supervision."""

    least_size = AUX_HEADS  # one level for each auxiliary head

    def make_decoder(self, channels: int, num_class: int, size: int, padding: int) -> nn.Module:
        """Return the decoder."""
        return PlainDecoder(channels, num_class, size, padding, supervised=True)


class FullDyUNet(DynamicUNet):
    """Dynamic encoder and decoder."""

    def make_decoder(self, channels: int, num_class: int, size: int, padding: int) -> nn.Module:
        """Return the decoder."""
        return DynamicDecoder(channels, num_class, size, padding)
