"""Label-preserving augmentation of target crops, for whole batches, in torch.

In: crops (N, 3, S, S) float32 in 0..255 with a margin, and which of them are infrared.  Out: (N, 3, s, s), rotated,
scaled, shifted and mirrored; converted to greyscale, inverted, with other tones; at lower resolution, with noise.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

ROTATION_RAD, SHIFT = 0.25, 0.05  # standard deviations; shift in halves of a crop's side
SCALE_SPAN = 0.9  # of the logarithm of the scale
GREY_SHARE = 0.4
INVERT_SHARE = {True: 0.3, False: 0.15}  # of infrared crops and of others
GAMMA_SPAN, CONTRAST_SPAN, BRIGHTNESS_SPAN = 0.9, 1.2, 60.0  # of logarithms; grey levels
DOWNSCALING = ((0.18, 2.0), (0.12, 3.2))  # share of all crops, and factor
NOISE = 14.0  # grey levels, at most
GREY_NOISE_SHARE = 0.6


def augmented(crops: Tensor, infrared: Tensor, size: int, rng: Generator) -> Tensor:
    """Return augmented crops of `size` pixels; all randomness comes from `rng`."""
    pixels = _tones(_warped(crops, size, rng), infrared, rng)
    kind, before = torch.rand(len(crops), generator=rng), 0.0
    for share, factor in DOWNSCALING:
        small = F.interpolate(pixels, size=round(size / factor), mode="area")
        coarse = F.interpolate(small, size=size, mode="bilinear")
        pixels = torch.where(_each((kind >= before) & (kind < before + share)), coarse, pixels)
        before += share
    noise = torch.randn(pixels.shape, generator=rng)
    grey = _each(torch.rand(len(crops), generator=rng) < GREY_NOISE_SHARE)
    strength = NOISE * torch.rand(len(crops), generator=rng).square()
    return pixels + _each(strength) * torch.where(grey, noise[:, :1], noise)


def _warped(crops: Tensor, size: int, rng: Generator) -> Tensor:
    count = len(crops)
    angle = ROTATION_RAD * torch.randn(count, generator=rng)
    scale = size / crops.shape[-1] * torch.exp(SCALE_SPAN * (torch.rand(count, generator=rng) - 0.5))
    shift = SHIFT * torch.randn(count, 2, generator=rng)
    mirror = torch.where(torch.rand(count, generator=rng) < 0.5, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = torch.stack([cosine * mirror, -sine, shift[:, 0]], 1), torch.stack([sine * mirror, cosine, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack(rows, 1), [count, 3, size, size], align_corners=False)
    return F.grid_sample(crops, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _tones(pixels: Tensor, infrared: Tensor, rng: Generator) -> Tensor:
    count = len(pixels)

    def uniform() -> Tensor:
        return _each(torch.rand(count, generator=rng)) - 0.5

    grey = _each(torch.rand(count, generator=rng) < GREY_SHARE)
    pixels = torch.where(grey, pixels.mean(1, keepdim=True), pixels)
    shares = torch.where(infrared, INVERT_SHARE[True], INVERT_SHARE[False])
    pixels = torch.where(_each(torch.rand(count, generator=rng) < shares), 255 - pixels, pixels)
    pixels = 255 * (pixels.clamp(0, 255) / 255 + 1e-3) ** torch.exp(GAMMA_SPAN * uniform())
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return (pixels - mean) * torch.exp(CONTRAST_SPAN * uniform()) + mean + BRIGHTNESS_SPAN * uniform()


def _each(values: Tensor) -> Tensor:
    """Return values (N,) shaped for broadcasting over crops."""
    return values[:, None, None, None]
