"""What a network learned from one band is worth in the other: trained on infrared alone and on visible alone.

    DASNET_CLIPS=FOLDER python3 scripts/cross_band.py --steps 600
    DASNET_CLIPS=FOLDER python3 scripts/cross_band.py --out out/colour --set sampling.augmentation.grey=false

Both trainings are short, from nothing, by `configs/training/dasnet_objects.yaml`; `--set` changes a key of it, so that
two calls compare two ways of augmentation.  Measured frame by frame on `val` and `hard`: drones found by any class,
found as uav, and frames without a drone in which something is called uav.  What was trained is not trained again.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from evaluate_clips import parsed_with_data

from model.checkpoint import load
from model.errors import ModelError
from pipeline.errors import ConfigError, DasnetError
from training.cache import CachedFrames, cache_frames
from training.config import TrainingConfig, CropSampling, load_config, snapshot
from training.datasets import SENSORS, open_dataset
from training.quick_eval import QuickEval, quick_eval_frames, quick_eval
from training.train import CHECK_COLUMNS, fast_module

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "configs" / "training" / "dasnet_objects.yaml"
DRONE_FRAMES, OTHER_FRAMES = 6, 4  # a clip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=lambda text: text.split(","), default=["val", "hard"], help="to measure on")
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--out", type=Path, default=Path("out/cross_band"))
    options = parsed_with_data(parser)
    os.environ["DASNET_CLIPS"] = str(options.data)  # the recipe asks for it
    length = [f"steps={options.steps}", f"schedule.decay_steps={options.steps // 3}"]
    checks = [f"check_splits=[{','.join(options.splits)}]", f"check_every_steps={options.steps}"]
    changes = [*length, *checks, *options.set]
    try:
        config = load_config(RECIPE, changes)
        frames = {sensor: frames_of(config, options.splits, sensor) for sensor in SENSORS}
        rows = [row for sensor in SENSORS for row in learn(sensor, options.out / sensor, changes, frames)]
    except (DasnetError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except subprocess.CalledProcessError as error:
        return error.returncode
    print(table(rows))
    (options.out / "cross_band.json").write_text(json.dumps({"changes": changes, "rows": rows}, indent=1) + "\n")
    return 0


def frames_of(config: TrainingConfig, splits: list[str], sensor: str) -> CachedFrames:
    recordings = [recording for recording in open_dataset(config.data, splits) if recording.sensor == sensor]
    return cache_frames(config.cache, recordings, quick_eval_frames(recordings, DRONE_FRAMES, OTHER_FRAMES))


def learn(sensor: str, folder: Path, changes: list[str], frames: dict[str, CachedFrames]) -> list[dict[str, object]]:
    """Train on one band, and measure on each: one row a band."""
    changes = [*changes, f"sensors=[{sensor}]"]
    config = load_config(RECIPE, changes)
    if (folder / "config.yaml").exists() and (folder / "config.yaml").read_text() != snapshot(config):
        raise ConfigError(f"--out {folder}: holds a training with other settings; allowed: another folder")
    if not (folder / "ema.safetensors").exists():  # the trainer writes it at its only check, the last step
        given = [part for change in changes for part in ("--set", change)]
        resume = ["--resume"] if (folder / "state.pt").exists() else []
        command = [sys.executable, "-m", "training.train", str(RECIPE), "--out", str(folder), *given, *resume]
        subprocess.run(command, check=True)
    network = fast_module(load(folder / "ema.safetensors").network).eval()
    assert isinstance(config.sampling, CropSampling)
    shown = config.sampling.preprocessing
    return [as_row(sensor, band, quick_eval(network, frames[band], shown, config.precision)) for band in SENSORS]


def as_row(learned: str, measured: str, check: QuickEval) -> dict[str, object]:
    shares = dict(zip(CHECK_COLUMNS, (round(value, 3) for value in check.values), strict=True))
    found = {"drones": check.drones, "found": shares["found"], "recognised": shares["recognised"]}
    alarmed = {"others": check.distractor_frames, "alarmed": shares["alarmed"]}
    return {"learned": learned, "measured": measured, **found, **alarmed}


def table(rows: list[dict[str, object]]) -> str:
    header = "| learned from | measured on | drones | found | as uav | other frames | with a uav |"
    lines = ["| " + " | ".join(map(str, row.values())) + " |" for row in rows]
    return "\n".join([header, "|" + " --- |" * 7, *lines])


if __name__ == "__main__":
    sys.exit(main())
