"""Time each stage of the native engine and compare it with the CPU's peak.

    python3 scripts/bench_native_stages.py --size 512x512 --precision bf16 --json stages.json

The peak is that of the engine's own matrix-product kernel with operands in cache, times the number of threads.  A
stage's operations are the multiply-accumulates that it executes as matrix products (after Winograd's reduction), so its
share of the peak also shows what transforms, normalisation and memory traffic cost.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from model.checkpoint import load
from model.dasnet import DASNet
from model.engine.native import NativeBackend
from pipeline.bench.results import machine
from pipeline.checkpoints import checkpoint_path

WINOGRAD_POINTS, TILE_PX = 36, 4
PEAK_SECONDS = 0.5


class Stage(NamedTuple):
    name: str
    macs: int  # multiply-accumulates as executed
    time_ms: float
    peak_share: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="default: the shipped one")
    parser.add_argument("--size", default="512x512", help="HEIGHTxWIDTH, multiples of 32")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    height_px, width_px = (int(side) for side in options.size.split("x"))
    network = load(checkpoint_path(options.checkpoint)).network
    assert isinstance(network, DASNet)
    engine = NativeBackend(network, options.precision, 32, options.threads)
    image = np.random.default_rng(0).random((3, height_px, width_px), np.float32)
    seconds = engine.time_stages(image, options.rounds)
    peak = engine.peak_macs(PEAK_SECONDS) * options.threads
    work = stage_macs(len(network.decoder.dy_blocks), engine.channels, height_px, width_px, engine.classes)
    stages = [Stage(name, macs, s * 1e3, macs / s / peak) for (name, macs), s in zip(work, seconds, strict=True)]
    print(table(stages))
    if options.json:
        report = {
            "machine": machine(),
            "size": options.size,
            "precision": options.precision,
            "threads": options.threads,
            "peak_gmacs": round(peak / 1e9, 1),
            "stages": [stage._asdict() for stage in stages],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def stage_macs(levels: int, channels: int, height_px: int, width_px: int, classes: int) -> list[tuple[str, int]]:
    """Name and executed multiply-accumulates of each stage, in the engine's order."""
    sides = [(height_px, width_px)]
    for _ in range(levels):
        sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))

    def winograd(side: tuple[int, int], inputs: int) -> int:
        tiles = -(-side[0] // TILE_PX) * -(-side[1] // TILE_PX)
        return WINOGRAD_POINTS * tiles * inputs * channels

    stages = [(f"encoder {level}", winograd(side, channels if level else 3)) for level, side in enumerate(sides)]
    for stage in range(levels):
        low, high = sides[levels - stage], sides[levels - stage - 1]
        gate = (low[0] * low[1] + high[0] * high[1]) * channels * max(16, channels // 2)
        stages += [(f"gate {stage}", gate), (f"decoder {stage}", winograd(high, 2 * channels))]
    columns = -(-3 * classes // 16) * 16
    return [*stages, ("output", 6 * -(-height_px // 4) * width_px * channels * columns)]


def table(stages: list[Stage]) -> str:
    total_ms = sum(stage.time_ms for stage in stages)
    rows = [f"{'stage':<12}{'ms':>8}{'% of time':>11}{'GMAC':>8}{'% of peak':>11}"]
    rows += [
        f"{stage.name:<12}{stage.time_ms:>8.2f}{100 * stage.time_ms / total_ms:>11.1f}{stage.macs / 1e9:>8.2f}"
        f"{100 * stage.peak_share:>11.1f}"
        for stage in stages
    ]
    return "\n".join([*rows, f"{'total':<12}{total_ms:>8.2f}{'':>11}{sum(stage.macs for stage in stages) / 1e9:>8.2f}"])


if __name__ == "__main__":
    sys.exit(main())
