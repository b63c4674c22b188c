"""Augmentation of chips that keeps what they show, whole batches, in torch.

In: chips (N, T, S, S) float32 in 0..255 with a margin, newest first.  Out: (N, T, s, s) whole numbers in 0..255: at
other scales, turned and mirrored, inexactly registered; targets before another place's background; with a shorter
history or a lower frame rate; coarse, as a soft lens shows them; with other contrast, polarity, noise and sharpness.
What became much smaller, was pasted or is coarse is still a target, but hardly shows which.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

SCALES = (0.75, 3.2)  # surroundings seen, in those of the unchanged chip: targets mostly get smaller
TURNED_SHARE = 0.3
SHIFT = 0.06  # of half the margined chip's side
MISREGISTERED_SHARE, MISREGISTRATION_PX = 0.5, 0.35
PASTED_SHARE = 0.45  # of the targets before a plain background
PLAIN_DEVIATION = 2.5  # grey levels, median absolute deviation: below it a background is plain ...
NOISE_DEVIATIONS = 2.5  # ... and differences of less than so many of its deviations are not pasted
PASTED_CONTRAST = (-0.3, 0.7)  # of logarithms, as the next
CONTRAST = (-1.2, 0.4)
COARSE_SHARE, COARSENESS = 0.15, (3, 4)  # reduced by these factors and enlarged again
SMALL_SCALE, HARD_WEIGHT = 1.9, 0.15  # from where on classes count less, and how much then
SHORT_SHARE, MAX_SHORT_S = 0.2, 0.45  # of histories that go back less than that
INVERTED_SHARE = 0.4
BRIGHTNESS = 20.0  # grey levels, as the next two
NOISE_SHARE, MAX_NOISE = 0.7, 3.0
FLICKER_SHARE, FLICKER = 0.3, 1.5
BLURRED_SHARE, SHARPENED_SHARE = 0.25, 0.17
SHARPENING = (0.5, 2.5)


def augmented(
    chips: Tensor, is_target: Tensor, backgrounds: Tensor, lags_s: Sequence[float], side_px: int, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Return augmented chips, and the weight (N,) of their classes.

    All randomness comes from `rng`, which is on the chips' device.

    Args:
        chips: float32 (N, T, S, S).
        is_target: bool (N,): which of them may get another background.
        backgrounds: chips of clutter, as many.
        lags_s: age of each of the T crops.
        side_px: of the result, s.
        rng: random generator.
    """
    chips, scale = _warped(chips, side_px, rng)
    chips, is_pasted = _pasted(chips, is_target, _warped(backgrounds, side_px, rng)[0], rng)
    chips, is_coarse = _coarse(_shortened(chips, lags_s, rng), rng)
    weight = torch.where(is_pasted | is_coarse | (scale > SMALL_SCALE), HARD_WEIGHT, 1.0)
    return _toned(chips, rng).clamp(0, 255).round(), weight


def _warped(chips: Tensor, side_px: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """Return the chips, scaled, turned, mirrored and shifted, older crops a little off; and the scales (N,)."""
    count, frames, side = chips.shape[:3]
    scale = torch.exp(_uniform(chips, math.log(SCALES[0]), math.log(SCALES[1]), rng))
    angle = _uniform(chips, -math.pi, math.pi, rng) * (_uniform(chips, 0, 1, rng) < TURNED_SHARE)
    mirror = torch.where(_uniform(chips, 0, 1, rng) < 0.5, -1.0, 1.0)
    blur = ((scale - 1) / 1.2).clamp(0, 1)[:, None, None, None]  # sampling sparsely would alias
    chips = torch.lerp(chips, blurred(chips), blur)
    cosine, sine = scale * angle.cos() * side_px / side, scale * angle.sin() * side_px / side
    turn = torch.stack([torch.stack([cosine * mirror, -sine], 1), torch.stack([sine * mirror, cosine], 1)], 1)
    shift = torch.rand((count, 1, 2), generator=rng, device=chips.device).mul(2 * SHIFT).sub(SHIFT)
    error = torch.randn((count, frames, 2), generator=rng, device=chips.device) * (MISREGISTRATION_PX * 2 / side)
    error = error * (_uniform(chips, 0, 1, rng) < MISREGISTERED_SHARE)[:, None, None]
    error[:, 0] = 0
    rows = turn[:, None].expand(-1, frames, -1, -1)
    matrix = torch.cat([rows, (shift + error)[..., None]], dim=3).flatten(0, 1)
    grid = F.affine_grid(matrix, [count * frames, 1, side_px, side_px], align_corners=False)
    warped = F.grid_sample(chips.flatten(0, 1)[:, None], grid, align_corners=False, padding_mode="reflection")
    return warped.view(count, frames, side_px, side_px), scale


def _pasted(chips: Tensor, is_target: Tensor, backgrounds: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """Return the chips, some targets as their difference to a plain background, before another place's; and which."""
    middle = chips.flatten(1).median(1).values
    difference = chips - _each(middle)
    deviation = difference.abs().flatten(1).median(1).values
    chosen = is_target & (deviation < PLAIN_DEVIATION) & (_uniform(chips, 0, 1, rng) < PASTED_SHARE)
    difference = difference * _each(torch.exp(_uniform(chips, *PASTED_CONTRAST, rng)))
    strength = (difference.abs() - NOISE_DEVIATIONS * _each(deviation)).clamp(min=0)
    return torch.where(_each(chosen), backgrounds + torch.sign(difference) * strength, chips), chosen


def _coarse(chips: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """Return the chips, some without fine detail; and which."""
    chosen, side_px = _uniform(chips, 0, 1, rng), chips.shape[-1]
    for number, factor in enumerate(COARSENESS):
        share = COARSE_SHARE / len(COARSENESS)
        which = (chosen >= number * share) & (chosen < (number + 1) * share)
        reduced = F.avg_pool2d(chips[which], factor, ceil_mode=True)
        chips = chips.clone()
        chips[which] = F.interpolate(reduced, size=side_px, mode="bilinear", align_corners=False)
    return chips, chosen < COARSE_SHARE


def _shortened(chips: Tensor, lags_s: Sequence[float], rng: Generator) -> Tensor:
    """Return the chips, some with the oldest crop that a shorter history has in place of older ones."""
    lags = torch.tensor(lags_s, device=chips.device)
    history_s = _uniform(chips, 0, MAX_SHORT_S, rng)
    history_s = torch.where(_uniform(chips, 0, 1, rng) < SHORT_SHARE, history_s, math.inf)
    reached = torch.minimum(lags[None], history_s[:, None])  # (N, T)
    source = (lags[None, None] <= reached[..., None]).sum(2) - 1
    return chips.gather(1, source[:, :, None, None].expand_as(chips))


def _toned(chips: Tensor, rng: Generator) -> Tensor:
    def share(value: float) -> Tensor:
        return _each(_uniform(chips, 0, 1, rng)) < value

    gain = torch.exp(_uniform(chips, *CONTRAST, rng)) * torch.where(share(INVERTED_SHARE)[:, 0, 0, 0], -1.0, 1.0)
    mean = chips.mean((1, 2, 3), keepdim=True)
    chips = (chips - mean) * _each(gain) + mean + _each(_uniform(chips, -BRIGHTNESS, BRIGHTNESS, rng))
    noise = torch.randn(chips.shape, generator=rng, device=chips.device)
    chips = chips + noise * _each(_uniform(chips, 0, MAX_NOISE, rng)) * share(NOISE_SHARE)
    kind, smooth = _each(_uniform(chips, 0, 1, rng)), blurred(chips)
    sharp = chips + (chips - smooth) * _each(_uniform(chips, *SHARPENING, rng))
    chips = torch.where(kind < BLURRED_SHARE + SHARPENED_SHARE, torch.where(kind < BLURRED_SHARE, smooth, sharp), chips)
    flicker = torch.rand((*chips.shape[:2], 1, 1), generator=rng, device=chips.device).mul(2 * FLICKER).sub(FLICKER)
    return chips + flicker * share(FLICKER_SHARE)


def blurred(chips: Tensor) -> Tensor:
    """Return chips (N, T, S, S) convolved with a binomial kernel of 5x5: by sums, several times as fast as conv2d."""
    x = F.pad(chips, (2, 2, 2, 2), mode="reflect")
    x = (6 * x[..., 2:-2] + 4 * (x[..., 1:-3] + x[..., 3:-1]) + x[..., :-4] + x[..., 4:]) / 16
    return (6 * x[..., 2:-2, :] + 4 * (x[..., 1:-3, :] + x[..., 3:-1, :]) + x[..., :-4, :] + x[..., 4:, :]) / 16


def _uniform(chips: Tensor, least: float, most: float, rng: Generator) -> Tensor:
    """Return a random number (N,) for each chip."""
    return torch.rand(len(chips), generator=rng, device=chips.device) * (most - least) + least


def _each(values: Tensor) -> Tensor:
    """Return values (N,) shaped for broadcasting over chips."""
    return values[:, None, None, None]
