"""Train the judge of a checkpoint: `python3 -m training.judge.train CHECKPOINT --data FOLDER --out FILE --steps N`.

In: a checkpoint, and labelled videos: those of split `train` to learn from, those of `val` to calibrate on.  Out: the
checkpoint with a judge beside its network.  `dasnet train` does the same after a network's last step where its recipe
has a section `judge`.  SIGTERM or Ctrl-C saves the state of a training beside FILE, from which `--resume` continues,
and exits with 0; chips are cached clip by clip.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from model.checkpoint import load, save
from model.judge import Judge
from model.metadata import JudgeConfig
from pipeline.errors import ConfigError
from pipeline.runtime.interruption import end_quietly
from training.command_line import exit_code, program
from training.config import TrainingConfig
from training.datasets import LabelledRecording, open_dataset
from training.interruption import interruption
from training.judge.calibrate import calibrate
from training.judge.chips import CACHE, ChipSettings, collect_chips, open_sets, videos
from training.judge.fit import FitSettings, fit
from training.judge.metrics import judge_metrics, metrics_line


@dataclass(frozen=True)
class LearnedJudge:
    """A calibrated judge, and how it was trained, for the checkpoint's metadata."""

    judge: Judge
    summary: dict[str, Any]


def learn_judge(
    sets: dict[str, list[LabelledRecording]],
    how: ChipSettings,
    settings: FitSettings,
    cache: Path,
    state: Path,
    device: torch.device,
    resume: bool = False,
    first: Judge | None = None,
    say: Callable[[str], None] = partial(print, flush=True),
) -> LearnedJudge | None:
    """Return a judge trained on the recordings of "train" and calibrated on those of "check"; None if stopped.

    Raise DataError for recordings without videos, BrokenDataError for undecodable ones, ConfigError as `fit` does.
    """
    chips = {name: collect_chips(recordings, how, cache) for name, recordings in sets.items()}
    for name, found in chips.items():
        say(f"judge: {name}: {len(found.parts)} clips, {found.counts()}")
    train, check = chips["train"], chips["check"]
    with interruption() as stopping:
        run = fit(train, check, settings, state, stopping, device, say, resume, first)
    if stopping.is_set():
        say(f"judge: stopped at step {run.step}; continue with --resume")
        return None
    calibrate(run.average, train, check, device)
    figures = judge_metrics(run.average, check, device)
    say(f"judge: {metrics_line(figures)}")
    summary = {**asdict(settings), **asdict(how), "step": run.step, "figures": figures}
    summary |= {name: {"clips": len(found.parts), **found.counts()} for name, found in chips.items()}
    return LearnedJudge(run.average.cpu(), summary)


def recordings_of(config: TrainingConfig) -> dict[str, list[LabelledRecording]]:
    """Return the recordings that a recipe's judge learns from and is calibrated on; raise DataError without videos."""
    assert config.judge is not None
    train = open_dataset(config.data, config.splits, config.clips)
    sets = {"train": train, "check": open_dataset(config.data, config.judge.check_splits)}
    sets["train"] = [recording for recording in train if recording.sensor in config.sensors]
    return {name: list(videos(recordings)) for name, recordings in sets.items()}


def add_judge(config: TrainingConfig, folder: Path, resume: bool, device: torch.device) -> None:
    """Train a recipe's judge and write it to the run's checkpoints, beside their networks; nothing where stopped."""
    assert config.judge is not None
    own, state = config.judge, folder / "judge.state.pt"
    settings = FitSettings(steps=own.steps, batch=own.batch, lr=own.lr, seed=config.seed)
    how, cache = ChipSettings(own.every_s, own.max_chips), Path(config.cache)
    learned = learn_judge(recordings_of(config), how, settings, cache, state, device, resume and state.exists())
    if learned:
        for path in sorted(folder.glob("*.safetensors")):
            write_judged(path, path, learned)
            print(f"judge: written to {path}", flush=True)


def write_judged(source: Path, out: Path, learned: LearnedJudge, dtype: torch.dtype = torch.float32) -> None:
    """Write the checkpoint `source` with the judge to `out`, which may be the same file.

    The fusion's weights are their defaults, the judge alone: those of another judge would be wrong.
    """
    loaded = load(source)
    training = {**loaded.metadata.training, "judge": learned.summary}
    save(out, loaded.network, replace(loaded.metadata, judge=JudgeConfig(), training=training), learned.judge, dtype)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", action="append", required=True, help="folder of labelled videos; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, a .safetensors file")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int)
    length.add_argument("--minutes", type=float, help="of computing, in place of a number of steps")
    parser.add_argument("--batch", type=int, default=FitSettings.batch, help="chips in a step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=FitSettings.lr, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FitSettings.seed)
    parser.add_argument(
        "--every-s", type=float, default=ChipSettings.every_s, help="mean time between two samples of a clip, s"
    )
    parser.add_argument(
        "--max-chips", type=int, default=ChipSettings.max_chips, help="of all clips (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument(
        "--fine-tune", action="store_true", help="begin with the checkpoint's judge, not with random weights"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the state beside FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Train and write the checkpoint; raise ConfigError for wrong options, and what reading data raises."""
    for name in ("steps", "minutes", "batch", "lr", "every_s", "max_chips", "threads"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name.replace('_', '-')} {value}; must be above 0")
    loaded = load(options.checkpoint)  # before minutes of work for one that cannot be read
    if options.fine_tune and loaded.judge is None:
        raise ConfigError(f"--fine-tune: {options.checkpoint} has no judge; expected one to begin with")
    cv2.setNumThreads(1)
    torch.set_num_threads(options.threads)
    settings = FitSettings(options.steps or 0, options.minutes or 0.0, options.batch, options.lr, options.seed)
    how = ChipSettings(options.every_s, options.max_chips)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sets, state = open_sets(options.data, ["train"], ["val"]), options.out.with_suffix(".state.pt")
    learned = learn_judge(
        sets, how, settings, options.cache, state, device, options.resume, loaded.judge if options.fine_tune else None
    )
    if learned:
        write_judged(options.checkpoint, options.out, learned, torch.float16)
        print(f"written: {options.out}")


if __name__ == "__main__":
    end_quietly()
    sys.exit(main())
