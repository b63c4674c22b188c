"""The networks of the paper side by side, trained briefly on procedural scenes with exact masks, on any machine.

    python3 scripts/compare_models.py --out out/comparison
    python3 scripts/compare_models.py --networks dasnet,thindyunet --seeds 42,2024 --steps 40 --size 128

Each network is trained with each seed, evaluated on scenes that it has not seen, and compared.  One process at a time;
what was interrupted goes on where it was when the script is called again.  `--out` gets the comparison, small enough to
be committed; `--runs` everything else.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from model.registry import NETWORKS  # noqa: E402

SEEDS = (42, 2024, 8888)  # the paper's
TEST_EVERY = 4  # frames of a scene resemble each other
CHECKS = 6  # while training
KEPT = {"ema.safetensors", "evaluation.json", "log.csv", "config.yaml", "precision_recall.png"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=names, default=list(NETWORKS), help="with commas between; default: all")
    parser.add_argument("--seeds", type=numbers, default=list(SEEDS), help="with commas between")
    parser.add_argument("--steps", type=positive, default=400, help="of 4 images each")
    parser.add_argument("--size", type=side, default=128, help="of the images, in pixels")
    parser.add_argument("--targets", type=positive, default=4, help="times as large as usual in scenes")
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
        print(f"error: {' '.join(map(str, error.cmd[1:4]))} ended with {error.returncode}", file=sys.stderr)
        return 1
    return 0


def training_config(data: str, network: str, seed: int, steps: int, size_px: int) -> dict[str, Any]:
    """The paper's whole images and optimizer; a loss that empty images suit too, and a higher rate for few steps.

    With the paper's Dice, and with its sum with two cross-entropies, no dynamic network finds anything in so few.
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
    folder.mkdir(parents=True, exist_ok=True)
    described = folder.with_suffix(".yaml")
    described.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    resume = ["--resume"] if (folder / "state.pt").exists() else []
    run("training.train", described, "--out", folder, *resume)
    how = ("--split", "test", "--every", TEST_EVERY, "--no-timing", "--out", folder)
    run("pipeline", "evaluate", "--checkpoint", folder / "ema.safetensors", "--data", data, *how)
    for path in folder.iterdir():  # states of the large networks take gigabytes
        if path.is_file() and path.name not in KEPT:
            path.unlink()


def run(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


def names(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in NETWORKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}; allowed: {', '.join(NETWORKS)}")
    return chosen


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}; allowed: 1 or more")
    return int(text)


def side(text: str) -> int:
    if int(text) < 128 or int(text) % 128:
        raise argparse.ArgumentTypeError(f"{text}; allowed: multiples of 128")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
