"""Train and evaluate the judge on a GPU within ten minutes, from packed chips.  Needs torch and numpy alone.

    python3 -m training.judge.chips --data FOLDER --pack chips.npz       # at most 50 MiB, where the videos are
    python3 scripts/train_on_gpu.py chips.npz --out judge.state.pt       # where the GPU is

Prints figures on the held-out chips, before and after calibration, as JSON.  The state that it writes, put beside a
checkpoint to write (`FILE.state.pt`), is made one by `python3 -m training.judge.train ... --resume` with the same
`--minutes`, `--batch` and `--seed`.  Exits with 2 where there is no such device.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from threading import Event

import torch

from pipeline.errors import DasnetError
from training.judge.calibrate import calibrate
from training.judge.chip_set import unpack
from training.judge.fit import FitSettings, fit
from training.judge.metrics import calibration_error, judge_metrics


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the state of the run")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seed", type=int, default=FitSettings.seed)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("train-on-gpu: no CUDA device here; expected one, or --device cpu", file=sys.stderr)
        return 2
    device, sets = torch.device(options.device), unpack(options.pack)
    settings = FitSettings(minutes=options.minutes, batch=options.batch, seed=options.seed)
    say = partial(print, flush=True)
    for name, chips in sets.items():
        say(f"{name}: {len(chips.parts)} clips, {chips.counts()}")
    try:
        run = fit(sets["train"], sets["check"], settings, options.out, Event(), device, say)
        report = {"step": run.step, "s_per_step": round(run.elapsed_s / run.step, 4)}
        errors = {"before": calibration_error(run.average, sets["check"], device)}
        calibrate(run.average, sets["train"], sets["check"], device)
    except DasnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    errors["after"] = calibration_error(run.average, sets["check"], device)
    figures = judge_metrics(run.average, sets["check"], device)
    print(json.dumps(report | {"calibration_error": errors, "check": figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
