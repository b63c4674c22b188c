"""Comparison of the paper's networks, trained briefly on procedural scenes with exact masks, on any machine.

    python3 scripts/compare_models.py --out out/comparison
    python3 scripts/compare_models.py --networks dasnet,thindyunet --seeds 42,2024 --steps 40 --size 128

Each network is trained with each seed, evaluated on unseen scenes, and compared, one process at a time.  An interrupted
comparison is resumed by the same command.  `--out` gets the comparison, small enough to be committed; `--runs` all
other files.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from model.registry import NETWORKS
from training.command_line import program

SEEDS = (42, 2024, 8888)  # the paper's
TEST_EVERY = 4  # n-th frame: frames of a scene are similar
CHECKS = 6  # per training
KEPT_FILES = {"ema.safetensors", "evaluation.json", "log.csv", "config.yaml", "precision_recall.png"}


def main() -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("--networks", type=names, default=list(NETWORKS), help="comma-separated; default: all")
    parser.add_argument("--seeds", type=numbers, default=list(SEEDS), help="comma-separated")
    parser.add_argument("--steps", type=positive, default=400, help="of 4 images each")
    parser.add_argument("--size", type=side, default=128, help="of the images, in pixels")
    parser.add_argument("--targets", type=positive, default=4, help="size of targets, times the usual")
    parser.add_argument("--images", type=positive, default=400, help="to train on")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--out", type=Path, default=Path("out/comparison"))
    parser.add_argument("--runs", type=Path, default=Path("out/comparison_runs"))
    options = parser.parse_args()
    data = f"scene:count={options.images},seed=1,size={options.size}x{options.size},targets={options.targets}"
    place = options.runs / f"{options.size}px-targets{options.targets}-{options.steps}steps-{options.images}images"
    folders = [(place / f"{network}-{seed}", network, seed) for seed in options.seeds for network in options.networks]
    try:
        for number, (folder, network, seed) in enumerate(folders, 1):
            print(f"{number}/{len(folders)} {network}, seed {seed}", flush=True)
            if not (folder / "evaluation.json").exists():
                config = training_config(data, network, seed, options.steps, options.size)
                train_and_evaluate(folder, data, config | {"threads": options.threads})
        run("pipeline", "compare", *(folder for folder, _, _ in folders), "--out", options.out)
    except subprocess.CalledProcessError as error:
        print(f"error: {' '.join(map(str, error.cmd[1:4]))} failed with exit code {error.returncode}", file=sys.stderr)
        return 1
    return 0


def training_config(data: str, network: str, seed: int, steps: int, size_px: int) -> dict[str, Any]:
    """Return the paper's sampling and optimizer, with a loss that suits empty images and a higher rate for few steps.

    With the paper's Dice, and with its sum with two cross-entropies, no dynamic network learns in so few steps.
    """
    return {
        "data": data,
        "network": {"name": network, "num_class": 1},
        "sampling": {"kind": "whole", "size_px": size_px},
        "steps": steps,
        "batch": 4,
        "loss": "field",
        "output_bias": -4.0,
        "optimizer": {"kind": "adamw", "lr": 0.003, "weight_decay": 0.01},
        "schedule": {"kind": "cosine", "warmup_steps": steps // 10},
        "clip_norm": 2.0,
        "precision": "auto",
        "seed": seed,
        "check_splits": ["val"],
        "max_check_samples": 40,
        "check_every_steps": max(1, steps // CHECKS),
    }


def train_and_evaluate(folder: Path, data: str, config: dict[str, Any]) -> None:
    """Train and evaluate one network; keep the files that a comparison needs."""
    folder.mkdir(parents=True, exist_ok=True)
    described = folder.with_suffix(".yaml")
    described.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    resume = ["--resume"] if (folder / "state.pt").exists() else []
    run("training.train", described, "--out", folder, *resume)
    how = ("--split", "test", "--every", TEST_EVERY, "--no-timing", "--out", folder)
    run("pipeline", "evaluate", "--checkpoint", folder / "ema.safetensors", "--data", data, *how)
    for path in folder.iterdir():  # states of the large networks take gigabytes
        if path.is_file() and path.name not in KEPT_FILES:
            path.unlink()


def run(module: str, *arguments: object) -> None:
    """Run a module as a command; raise CalledProcessError where it fails."""
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


def names(text: str) -> list[str]:
    """Return a comma-separated list of networks."""
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in NETWORKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}; must be of {', '.join(NETWORKS)}")
    return chosen


def numbers(text: str) -> list[int]:
    """Return a comma-separated list of integers."""
    return [int(part) for part in text.split(",")]


def positive(text: str) -> int:
    """Return an integer above 0."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}; must be 1 or more")
    return int(text)


def side(text: str) -> int:
    """Return a multiple of 128."""
    if int(text) < 128 or int(text) % 128:
        raise argparse.ArgumentTypeError(f"{text}; must be a multiple of 128")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
