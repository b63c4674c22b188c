"""Generalisation between bands: networks trained on infrared or visible clips only, evaluated on both.

    DASNET_CLIPS=FOLDER python3 scripts/cross_band.py --steps 600
    DASNET_CLIPS=FOLDER python3 scripts/cross_band.py --out out/colour --set sampling.augmentation.grey=false

Both trainings are short, from random weights, with `configs/training/dasnet_objects.yaml`; `--set` changes a key of it,
so that two calls compare two kinds of augmentation.  Metrics per frame of `val` and `hard`: drones detected as any
class and as uav, and frames without a drone that have a detection of class uav.  Finished trainings are reused.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from model.checkpoint import load
from pipeline.errors import ConfigError, DasnetError
from training.cache import CachedFrames, cache_frames
from training.command_line import exit_code, program
from training.config import CropSampling, TrainingConfig, load_config, snapshot
from training.datasets import SENSORS, open_dataset
from training.evaluation.arguments import parse_with_data
from training.quick_eval import QuickEval, quick_eval, quick_eval_frames
from training.train import CHECK_COLUMNS, fast_module

RECIPE = Path("configs/training/dasnet_objects.yaml")
DRONE_FRAMES, OTHER_FRAMES = 6, 4  # per clip


def main() -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("--splits", type=lambda text: text.split(","), default=["val", "hard"], help="to evaluate on")
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    parser.add_argument("--out", type=Path, default=Path("out/cross_band"))
    options = parse_with_data(parser)
    os.environ["DASNET_CLIPS"] = str(options.data)  # referred to by the recipe
    length = [f"steps={options.steps}", f"schedule.decay_steps={options.steps // 3}"]
    checks = [f"check_splits=[{','.join(options.splits)}]", f"check_every_steps={options.steps}"]
    return exit_code(lambda: run(options.splits, [*length, *checks, *options.set], options.out))


def run(splits: list[str], changes: list[str], out: Path) -> None:
    """Train and evaluate both directions, print the table and write cross_band.json."""
    config = load_config(RECIPE, changes)
    frames = {sensor: frames_of(config, splits, sensor) for sensor in SENSORS}
    rows = [row for sensor in SENSORS for row in train_and_measure(sensor, out / sensor, changes, frames)]
    print(table(rows))
    (out / "cross_band.json").write_text(json.dumps({"changes": changes, "rows": rows}, indent=1) + "\n")


def frames_of(config: TrainingConfig, splits: list[str], sensor: str) -> CachedFrames:
    """Return the frames of one sensor to evaluate on."""
    recordings = [recording for recording in open_dataset(config.data, splits) if recording.sensor == sensor]
    return cache_frames(config.cache, recordings, quick_eval_frames(recordings, DRONE_FRAMES, OTHER_FRAMES))


def train_and_measure(
    sensor: str, folder: Path, changes: list[str], frames: dict[str, CachedFrames]
) -> list[dict[str, object]]:
    """Train on one band and return its metrics on each, a row per band."""
    changes = [*changes, f"sensors=[{sensor}]"]
    config = load_config(RECIPE, changes)
    if (folder / "config.yaml").exists() and (folder / "config.yaml").read_text() != snapshot(config):
        raise ConfigError(f"--out {folder}: holds a training with other settings; expected another folder")
    if not (folder / "ema.safetensors").exists():  # written at the only check, after the last step
        given = [part for change in changes for part in ("--set", change)]
        resume = ["--resume"] if (folder / "state.pt").exists() else []
        command = [sys.executable, "-m", "training.train", str(RECIPE), "--out", str(folder), *given, *resume]
        if code := subprocess.run(command, check=False).returncode:
            raise DasnetError(f"training on {sensor}: exit code {code}")
    network = fast_module(load(folder / "ema.safetensors").network).eval()
    assert isinstance(config.sampling, CropSampling)
    shown, precision = config.sampling.preprocessing, config.precision
    return [as_row(sensor, band, quick_eval(network, frames[band], shown, precision)) for band in SENSORS]


def as_row(learned: str, measured: str, check: QuickEval) -> dict[str, object]:
    """Return a row of the table."""
    shares = dict(zip(CHECK_COLUMNS, (round(value, 3) for value in check.values), strict=True))
    found = {"drones": check.drones, "found": shares["found"], "recognised": shares["recognised"]}
    alarmed = {"others": check.distractor_frames, "alarmed": shares["alarmed"]}
    return {"learned": learned, "measured": measured, **found, **alarmed}


def table(rows: list[dict[str, object]]) -> str:
    """Return the rows as a Markdown table."""
    header = "| trained on | evaluated on | drones | found | as uav | other frames | with a uav |"
    lines = ["| " + " | ".join(map(str, row.values())) + " |" for row in rows]
    return "\n".join([header, "|" + " --- |" * 7, *lines])


if __name__ == "__main__":
    sys.exit(main())
