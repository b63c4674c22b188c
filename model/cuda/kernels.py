"""The steps of DAS-Net on a GPU that are bound by memory, not by arithmetic, as Triton kernels.

torch's upsampling, concatenation, norm and pooling take three quarters of the network's time on an H200, since each
reads and writes whole maps.  Here each step reads and writes each map once:

    _upsample_gate_concat     upsample the low map, gate the skip (arXiv 1804.03999), concatenate, sum the channels
    _moments                  moments of a map's channels, over each program's pixels
    _scales                   combined moments: GroupNorm as one multiplication and one addition per channel
    _normalise_and_activate   these, then LeakyReLU; in the encoder also 2x2 max pooling, and the sums of its result
    _attention                a dynamic convolution's kernel attention from the average of its input

Maps are (N, C, H, W) in channels_last.  All sums are in float32 and combined in a fixed order.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

BLOCK_PX = 64  # pixels that a program holds at a time
MAX_PROGRAMS = 528  # of a launch, unless it has more samples: four per multiprocessor of an H100
WARPS = 4  # per program
CHUNK = 64  # programs whose sums are combined at a time


@triton.jit
def _pixels(maps, pixel, valid, attention, CHANNELS: tl.constexpr, MIXED: tl.constexpr):
    """Load pixels (BLOCK, CHANNELS) in float32; MIXED maps hold the outputs of two kernels, which are mixed."""
    channel = tl.arange(0, CHANNELS)
    if MIXED:
        at = maps + pixel[:, None] * (2 * CHANNELS) + channel[None, :]
        base = tl.load(at, valid[:, None], 0.0).to(tl.float32)
        return base + attention * tl.load(at + CHANNELS, valid[:, None], 0.0).to(tl.float32)
    return tl.load(maps + pixel[:, None] * CHANNELS + channel[None, :], valid[:, None], 0.0).to(tl.float32)


@triton.jit
def _moments(
    maps,
    attentions,
    moments,
    pixels,
    CHANNELS: tl.constexpr,
    MIXED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Store count, mean and sum of squared differences from the mean (N, programs, 3, C)."""
    part, sample, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    attention = tl.load(attentions + sample) if MIXED else 0.0
    maps += sample.to(tl.int64) * pixels * (2 * CHANNELS if MIXED else CHANNELS)
    # Differences from one of its pixels keep the precision of sums of squares; they are reduced only at the end.
    near = tl.minimum(part * BLOCK + BLOCK // 2, pixels - 1) + tl.zeros([BLOCK], tl.int32)
    origin = _pixels(maps, near, near >= 0, attention, CHANNELS, MIXED)
    total = tl.zeros([BLOCK, CHANNELS], tl.float32)
    squares = tl.zeros([BLOCK, CHANNELS], tl.float32)
    counted = tl.zeros([BLOCK], tl.float32)
    for tile in range(part, tl.cdiv(pixels, BLOCK), parts):
        pixel = tile * BLOCK + tl.arange(0, BLOCK)
        valid = pixel < pixels
        x = tl.where(valid[:, None], _pixels(maps, pixel, valid, attention, CHANNELS, MIXED) - origin, 0.0)
        total += x
        squares += x * x
        counted += valid.to(tl.float32)
    count = tl.sum(counted, 0)
    mean = tl.sum(total, 0) / count
    at = moments + ((sample * parts + part) * 3) * CHANNELS + tl.arange(0, CHANNELS)
    tl.store(at, tl.zeros([CHANNELS], tl.float32) + count)
    tl.store(at + CHANNELS, mean + tl.sum(origin, 0) / BLOCK)
    tl.store(at + 2 * CHANNELS, tl.maximum(tl.sum(squares, 0) - mean * mean * count, 0.0))


@triton.jit
def _scales(
    moments,
    gamma,
    beta,
    scales,
    parts,
    eps,
    CHANNELS: tl.constexpr,
    GROUPS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Store each channel's scale and shift (N, 2, C)."""
    sample = tl.program_id(0)
    channel = tl.arange(0, CHANNELS)
    counts = tl.zeros([CHUNK, CHANNELS], tl.float32)
    totals = tl.zeros([CHUNK, CHANNELS], tl.float32)
    for start in range(0, parts, CHUNK):
        part = start + tl.arange(0, CHUNK)[:, None]
        at = moments + ((sample * parts + part) * 3) * CHANNELS + channel[None, :]
        more = tl.load(at, part < parts, 0.0)
        counts += more
        totals += more * tl.load(at + CHANNELS, part < parts, 0.0)
    count = tl.sum(counts, 0)
    mean = tl.sum(totals, 0) / count
    squares = tl.zeros([CHUNK, CHANNELS], tl.float32)
    for start in range(0, parts, CHUNK):
        part = start + tl.arange(0, CHUNK)[:, None]
        at = moments + ((sample * parts + part) * 3) * CHANNELS + channel[None, :]
        apart = tl.load(at + CHANNELS, part < parts, 0.0) - mean[None, :]
        squares += tl.load(at + 2 * CHANNELS, part < parts, 0.0) + tl.load(at, part < parts, 0.0) * apart * apart
    SIZE: tl.constexpr = CHANNELS // GROUPS
    by_group = tl.reshape(mean, [GROUPS, SIZE])
    centre = tl.sum(by_group, 1) / SIZE
    apart = by_group - centre[:, None]
    variance = tl.sum(tl.reshape(tl.sum(squares, 0) / count, [GROUPS, SIZE]) + apart * apart, 1) / SIZE
    inverse = 1.0 / tl.sqrt(variance + eps)
    scale = tl.reshape(tl.reshape(tl.load(gamma + channel), [GROUPS, SIZE]) * inverse[:, None], [CHANNELS])
    shift = tl.reshape(tl.reshape(scale, [GROUPS, SIZE]) * centre[:, None], [CHANNELS])
    tl.store(scales + sample * 2 * CHANNELS + channel, scale)
    tl.store(scales + sample * 2 * CHANNELS + CHANNELS + channel, tl.load(beta + channel) - shift)


@triton.jit
def _normalise_and_activate(
    maps,
    attentions,
    scales,
    activated,
    pooled,
    sums,
    pixels,
    width,
    slope,
    CHANNELS: tl.constexpr,
    MIXED: tl.constexpr,
    POOL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Normalise and activate a map; with POOL, pixels and width are those of the pooled map."""
    part, sample, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    channel = tl.arange(0, CHANNELS)
    attention = tl.load(attentions + sample) if MIXED else 0.0
    scale = tl.load(scales + sample * 2 * CHANNELS + channel)[None, :]
    shift = tl.load(scales + sample * 2 * CHANNELS + CHANNELS + channel)[None, :]
    whole = sample.to(tl.int64) * pixels * (4 * CHANNELS if POOL else CHANNELS)
    maps += whole * (2 if MIXED else 1)
    activated += whole
    pooled += sample.to(tl.int64) * pixels * CHANNELS
    total = tl.zeros([BLOCK, CHANNELS], tl.float32)
    for tile in range(part, tl.cdiv(pixels, BLOCK), parts):
        pixel = tile * BLOCK + tl.arange(0, BLOCK)
        valid = pixel < pixels
        if POOL:
            corner = (pixel // width) * (4 * width) + (pixel % width) * 2
            best = tl.full([BLOCK, CHANNELS], float("-inf"), tl.float32)
            for row in tl.static_range(2):
                for column in tl.static_range(2):
                    at = corner + row * (2 * width) + column
                    x = _pixels(maps, at, valid, attention, CHANNELS, MIXED) * scale + shift
                    x = tl.where(x > 0, x, x * slope)
                    tl.store(activated + at[:, None] * CHANNELS + channel[None, :], x, valid[:, None])
                    best = tl.maximum(best, x)
            tl.store(pooled + pixel[:, None] * CHANNELS + channel[None, :], best, valid[:, None])
            total += tl.where(valid[:, None], best, 0.0)
        else:
            x = _pixels(maps, pixel, valid, attention, CHANNELS, MIXED) * scale + shift
            x = tl.where(x > 0, x, x * slope)
            tl.store(activated + pixel[:, None] * CHANNELS + channel[None, :], x, valid[:, None])
    if POOL:
        tl.store(sums + (sample * parts + part) * CHANNELS + channel, tl.sum(total, 0))


@triton.jit
def _attention(
    sums,
    reduce,
    expand,
    bias,
    attentions,
    parts,
    pixels,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
    PADDED: tl.constexpr,
    CHUNK: tl.constexpr,
):
    sample = tl.program_id(0)
    channel = tl.arange(0, CHANNELS)
    total = tl.zeros([CHUNK, CHANNELS], tl.float32)
    for start in range(0, parts, CHUNK):
        part = start + tl.arange(0, CHUNK)[:, None]
        total += tl.load(sums + (sample * parts + part) * CHANNELS + channel[None, :], part < parts, 0.0)
    average = tl.sum(total, 0) / pixels
    unit = tl.arange(0, PADDED)
    valid = unit < HIDDEN
    rows = tl.load(reduce + unit[:, None] * CHANNELS + channel[None, :], valid[:, None], 0.0)
    hidden = tl.maximum(tl.sum(rows * average[None, :], 1), 0.0)
    score = tl.sum(hidden * tl.load(expand + unit, valid, 0.0), 0) + tl.load(bias)
    tl.store(attentions + sample, 1.0 / (1.0 + tl.exp(-score)))


@triton.jit
def _interpolate(maps, top, bottom, left, right, down, across, valid, width, CHANNELS: tl.constexpr):
    """Interpolate between four pixels, (BLOCK, CHANNELS) in float32."""
    channel = tl.arange(0, CHANNELS)[None, :]
    upper, lower = (
        maps + (top * width)[:, None] * CHANNELS + channel,
        maps + (bottom * width)[:, None] * CHANNELS + channel,
    )
    left, right = left[:, None] * CHANNELS, right[:, None] * CHANNELS
    mask = valid[:, None]
    a, b = tl.load(upper + left, mask, 0.0).to(tl.float32), tl.load(upper + right, mask, 0.0).to(tl.float32)
    c, d = tl.load(lower + left, mask, 0.0).to(tl.float32), tl.load(lower + right, mask, 0.0).to(tl.float32)
    above = a + (b - a) * across[:, None]
    return above + (c + (d - c) * across[:, None] - above) * down[:, None]


@triton.jit
def _upsample_gate_concat(
    low,
    gating,
    skip,
    local,
    psi,
    concat,
    sums,
    pixels,
    width,
    low_height,
    low_width,
    row_step,
    column_step,
    CHANNELS: tl.constexpr,
    GATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    part, sample, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    channel, inner = tl.arange(0, CHANNELS), tl.arange(0, GATE)
    low += sample.to(tl.int64) * low_height * low_width * CHANNELS
    gating += sample.to(tl.int64) * low_height * low_width * GATE
    skip += sample.to(tl.int64) * pixels * CHANNELS
    concat += sample.to(tl.int64) * pixels * 2 * CHANNELS
    inward = tl.load(local + inner[None, :] * CHANNELS + channel[:, None])  # (CHANNELS, GATE)
    outward = tl.load(psi + inner).to(tl.float32)
    of_low = tl.zeros([BLOCK, CHANNELS], tl.float32)
    of_skip = tl.zeros([BLOCK, CHANNELS], tl.float32)
    for tile in range(part, tl.cdiv(pixels, BLOCK), parts):
        pixel = tile * BLOCK + tl.arange(0, BLOCK)
        valid = pixel < pixels
        row, column = (pixel // width).to(tl.float32) * row_step, (pixel % width).to(tl.float32) * column_step
        top, left = tl.minimum(row.to(tl.int32), low_height - 1), tl.minimum(column.to(tl.int32), low_width - 1)
        bottom, right = tl.minimum(top + 1, low_height - 1), tl.minimum(left + 1, low_width - 1)
        down, across = row - top.to(tl.float32), column - left.to(tl.float32)
        upsampled = _interpolate(low, top, bottom, left, right, down, across, valid, low_width, CHANNELS)
        gate = _interpolate(gating, top, bottom, left, right, down, across, valid, low_width, GATE)
        x = tl.load(skip + pixel[:, None] * CHANNELS + channel[None, :], valid[:, None], 0.0)
        gate = tl.maximum(tl.dot(x, inward, gate, input_precision="ieee"), 0.0)
        weight = 1.0 / (1.0 + tl.exp(-tl.sum(gate * outward[None, :], 1)))
        gated = x.to(tl.float32) * weight[:, None]
        at = concat + pixel[:, None] * (2 * CHANNELS) + channel[None, :]
        tl.store(at, upsampled, valid[:, None])
        tl.store(at + CHANNELS, gated, valid[:, None])
        of_low += tl.where(valid[:, None], upsampled, 0.0)
        of_skip += gated
    at = sums + (sample * parts + part) * (2 * CHANNELS) + channel
    tl.store(at, tl.sum(of_low, 0))
    tl.store(at + CHANNELS, tl.sum(of_skip, 0))


@dataclass(frozen=True)
class ChannelSums:
    """Partial sums (N, programs, C) of a map's channels, in float32, over `pixels` in total."""

    values: Tensor
    pixels: int


def kernel_attention(sums: ChannelSums, reduce: Tensor, expand: Tensor, bias: Tensor) -> Tensor:
    """Return each sample's attention (N, 1), float32, for the first kernel; reduce (hidden, C), expand (1, hidden)."""
    count, parts, channels = sums.values.shape
    hidden = len(reduce)
    output = torch.empty((count, 1), device=reduce.device)
    padded = triton.next_power_of_2(hidden)
    _launch(
        _attention,
        (count,),
        sums.values,
        reduce,
        expand,
        bias,
        output,
        parts,
        sums.pixels,
        channels,
        hidden,
        padded,
        CHUNK,
    )
    return output


def upsample_gate_concat(
    low: Tensor, gating: Tensor, skip: Tensor, local: Tensor, psi: Tensor
) -> tuple[Tensor, ChannelSums]:
    """Return the concatenation (N, 2C, H, W) of the upsampled low map and the gated skip, and its channel sums.

    low (N, C, h, w); gating (N, G, h, w), computed from it; skip (N, C, H, W); local (G, C, 1, 1); psi (1, G, 1, 1).
    """
    count, channels, height, width = skip.shape
    pixels, parts = height * width, _program_count(count, height * width)
    output = _empty((count, 2 * channels, height, width), skip)
    sums = torch.empty((count, parts, 2 * channels), device=skip.device)
    steps = [(small - 1) / max(1, large - 1) for small, large in zip(low.shape[2:], (height, width), strict=True)]
    maps = (_rows(low), _rows(gating), _rows(skip), local, psi, output, sums)
    _launch(
        _upsample_gate_concat,
        (parts, count),
        *maps,
        pixels,
        width,
        *low.shape[2:],
        *steps,
        channels,
        gating.shape[1],
        BLOCK_PX,
    )
    return output, ChannelSums(sums, pixels)


@dataclass(frozen=True)
class Norm:
    """A block's GroupNorm and LeakyReLU; gamma and beta are (C,) float32."""

    gamma: Tensor
    beta: Tensor
    groups: int
    eps: float
    slope: float

    def __call__(self, maps: Tensor, mix: Tensor | None) -> Tensor:
        """Return the activated maps (N, C, H, W).

        With the attention `mix` (N, 1), `maps` (N, 2C, H, W) are the outputs of base and difference kernels.
        """
        return self._run(maps, mix, pool=False)[0]

    def pooled(self, maps: Tensor, mix: Tensor | None) -> tuple[Tensor, Tensor, ChannelSums]:
        """Return the activated maps, their 2x2 maxima (N, C, H / 2, W / 2), rounded up, and the maxima's sums."""
        if maps.shape[2] % 2 or maps.shape[3] % 2:  # only small, deep maps
            activated = self(maps, mix)
            pooled = F.max_pool2d(activated, 2, ceil_mode=True)
            averages = pooled.mean(dim=(2, 3), dtype=torch.float32)
            return activated, pooled, ChannelSums(averages[:, None], 1)
        activated, pooled, sums = self._run(maps, mix, pool=True)
        return activated, pooled, ChannelSums(sums, pooled.shape[2] * pooled.shape[3])

    def _run(self, maps: Tensor, mix: Tensor | None, pool: bool) -> tuple[Tensor, Tensor, Tensor]:
        maps, mixed, channels = _rows(maps), mix is not None, len(self.gamma)
        count, _, height, width = maps.shape
        attentions = self.gamma if mix is None else mix  # an unused pointer where nothing is mixed
        parts = _program_count(count, height * width)
        moments = torch.empty((count, parts, 3, channels), device=maps.device)
        scales = torch.empty((count, 2, channels), device=maps.device)
        _launch(_moments, (parts, count), maps, attentions, moments, height * width, channels, mixed, BLOCK_PX)
        _launch(
            _scales, (count,), moments, self.gamma, self.beta, scales, parts, self.eps, channels, self.groups, CHUNK
        )
        activated = _empty((count, channels, height, width), maps)
        if pool:
            height, width = height // 2, width // 2
        parts = _program_count(count, height * width)
        pooled = _empty((count, channels, height, width), maps) if pool else activated
        sums = torch.empty((count, parts, channels), device=maps.device) if pool else scales
        outputs = (activated, pooled, sums, height * width, width, self.slope)
        _launch(
            _normalise_and_activate, (parts, count), maps, attentions, scales, *outputs, channels, mixed, pool, BLOCK_PX
        )
        return activated, pooled, sums


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: object) -> None:
    kernel[grid](*arguments, num_warps=WARPS)


def _program_count(count: int, pixels: int) -> int:
    """Return how many programs share a sample's pixels."""
    return min(-(-pixels // BLOCK_PX), max(1, MAX_PROGRAMS // count))


def _rows(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
