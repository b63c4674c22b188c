"""Compare the networks, for `dasnet models`.

Out: one row per network with its parameters, GFLOP and, optionally, time on this machine, at 512x512, fp32, batch 1,
one class, beside the paper's figures (Kim & Kim, Appl. Sci. 2026, 16, 5688: 174,008 test images, NVIDIA A6000, mean of
three seeds), which were not measured here.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model.errors import ModelError
from model.registry import build

SIDE = 512
RUNS = 3


@dataclass(frozen=True)
class Paper:
    """Figures printed in the paper and in the table of its repository."""

    parameters_m: float
    ms: float
    miou: float
    dice: float


@dataclass(frozen=True)
class NetworkSummary:
    """A network's figures; None where it cannot be built here or was not measured."""

    name: str
    parameters: int | None
    gflop: float | None
    ms: float | None
    paper: Paper
    note: str = ""


PAPER = {
    "dasnet": Paper(1.66, 8.83, 0.6780, 0.7509),
    "fulldyunet": Paper(1.63, 9.04, 0.6451, 0.7159),
    "deepsupdyunet": Paper(1.34, 8.26, 0.6627, 0.7222),
    "thindyunet": Paper(1.34, 8.29, 0.6115, 0.6766),
    "unet": Paper(24.4, 9.93, 0.6760, 0.7413),
    "mobileunet": Paper(6.0, 10.23, 0.6185, 0.6790),
    "pan": Paper(21.4, 11.16, 0.6438, 0.7045),
    "pspnet": Paper(21.4, 11.46, 0.6094, 0.6768),
}
NOTES = {
    "mobileunet": "the paper says 6.0 M; the library's Unet with mobilenet_v2 has 6.629 M, no variant 6.0 M",
    "pspnet": "19.9 M of its parameters follow the stage where its encoder stops and are never used",
}


def summarise_networks(measure: bool) -> list[NetworkSummary]:
    """Return the figures of the paper's networks, its own first.  Measuring takes up to a minute."""
    return [_summary(name, measure) for name in PAPER]


def gflop(network: nn.Module, side: int = SIDE) -> float:
    """Return the GFLOP for one image of side x side: two per multiply-add of convolutions and matrix products only.

    The network may be on the meta device, where counting costs no computation.
    """
    device = next(network.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network.eval()(torch.empty(1, 3, side, side, device=device))
    return float(counter.get_total_flops()) / 1e9


def time_ms(network: nn.Module, side: int = SIDE, runs: int = RUNS) -> float:
    """Return the median time of a few runs of the eager network, after a warm-up run."""
    image = torch.rand(1, 3, side, side)
    times = []
    with torch.inference_mode():
        for _ in range(runs + 1):
            start = time.perf_counter()
            network.eval()(image)
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[1:])


def table(rows: Sequence[NetworkSummary]) -> str:
    """Return the figures as a text table."""
    lines = [
        f"{'':<14}{f'here, {SIDE}x{SIDE}, fp32, batch 1':>34}   {'in the paper (A6000; not measured here)':>39}",
        f"{'network':<14}{'parameters':>14}{'GFLOP':>10}{'ms':>10}   {'M':>9}{'ms':>10}{'mIoU':>10}{'Dice':>10}",
    ]
    for row in rows:
        parameters = "-" if row.parameters is None else f"{row.parameters:,}"
        gflop = "-" if row.gflop is None else f"{row.gflop:.1f}"
        ms = "-" if row.ms is None else f"{row.ms:.1f}"
        paper = row.paper
        lines.append(
            f"{row.name:<14}{parameters:>14}{gflop:>10}{ms:>10}   "
            f"{paper.parameters_m:>9}{paper.ms:>10.2f}{paper.miou:>10.4f}{paper.dice:>10.4f}"
        )
    lines += ["", "GFLOP: 2 x multiply-adds of convolutions and matrix products, nothing else."]
    lines.append("ms: the reference network, eager; the engine that `dasnet run` uses is faster for dasnet.")
    lines += [f"{row.name}: {row.note}." for row in rows if row.note]
    if missing := [row.name for row in rows if row.parameters is None]:
        lines.append(f"To build {', '.join(missing)} too: pip install dasnet[baselines].")
    return "\n".join(lines)


def _summary(name: str, measure: bool) -> NetworkSummary:
    try:
        with torch.device("meta"):  # shapes without memory: counting is instant
            network = build(name)
    except ModelError:  # the optional package is not installed
        return NetworkSummary(name, None, None, None, PAPER[name])
    parameters = sum(parameter.numel() for parameter in network.parameters())
    ms = time_ms(build(name)) if measure else None
    return NetworkSummary(name, parameters, gflop(network), ms, PAPER[name], NOTES.get(name, ""))
