"""Train a network: `python3 -m training.train CONFIG.yaml [--out DIR] [--resume] [--set KEY=VALUE]`.

In: one YAML file (see `training.config`).  Out, in DIR: `ema.safetensors` (the last checkpoint),
`best_loss.safetensors` and `best_iou.safetensors` (the best in validation), `state.pt` (for `--resume`), `stable.pt`
(the state before a trapezoid's decay, from which a run with more steps resumes), `config.yaml`, `log.csv`, and
`predictions/` (predictions for a few frames at each check).  With a section `judge`, the judge of chips is trained
after the network and written to the same checkpoints; `judge.state.pt` is its state.  SIGTERM or Ctrl-C saves the state
and exits with 0.  On several GPUs: `torchrun --nproc-per-node N -m training.train CONFIG.yaml`; with `--max-restarts`,
all processes are started again when one has died, and continue from `state.pt`.
"""

import argparse
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from model.dasnet import DASNet
from model.fused import FusedDASNet
from pipeline.errors import ConfigError
from pipeline.runtime.interruption import end_quietly
from training.averaging import ema_update
from training.config import CropSampling, TrainingConfig, snapshot
from training.distillation import PART as DISTILLATION
from training.distributed import DistributedProcess, start_process
from training.interruption import interruption
from training.log import EVERY_STEPS, TrainingLog
from training.losses import LossValue, part_names, segmentation_loss
from training.optimisation import autocast, decay_start
from training.quick_eval import quick_eval
from training.sample_predictions import write_predictions
from training.samples import TrainingData, batches, network_input, read_data, steps_per_epoch, training_samples
from training.state import TrainingRun, export, resume_run, start_run
from training.validation import validate

CHECK_COLUMNS = ("found", "recognised", "alarmed")


def train(
    config: TrainingConfig,
    folder: Path,
    resume: bool,
    on_check: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainingRun:
    """Train to the last step, until early stopping, or until SIGTERM, then the judge; return the network's run.

    Rank 0 calls `on_check` with step and metrics after each check, when its state is saved.
    """
    cv2.setNumThreads(1)
    torch.set_num_threads(config.threads)
    with start_process(config.device) as process:
        run = start_run(config, process.device)
        with process.first_on_host():
            if process.is_first:
                print(f"reading {config.data}", flush=True)
            data = read_data(config)
        if config.judge:  # imported where it is used: a network alone is trained with fewer packages
            from training.judge.train import add_judge, recordings_of

            recordings_of(config)  # raises before the network's hours what would be raised after them
        plan = StepPlan.of(config, len(data.frames), process.world)
        saved = (folder / "state.pt").exists()
        resume = resume or (process.any(process.was_restarted) and saved)
        if resume:
            resume_run(run, folder, config, plan.steps)
        elif saved:
            raise ConfigError(f"--out {folder}: holds the state of a run; expected another folder, or --resume")
        recorder = Recorder.of(folder, config, plan, data, run.step, on_check) if process.is_first else None
        with interruption() as stopping:  # there is a state to save from now on
            fit(run, config, plan, data, process, recorder, stopping)
        if recorder:
            recorder.close(
                run, "done" if not stopping.is_set() else f"stopped at step {run.step}; continue with --resume"
            )
    if config.judge and process.is_first and not stopping.is_set():
        add_judge(config, folder, resume, process.device)
    return run


@dataclass(frozen=True)
class StepPlan:
    """Number of steps of the whole run, of an epoch, and between two checks."""

    steps: int
    epoch_steps: int
    check_every_steps: int

    @classmethod
    def of(cls, config: TrainingConfig, frames: int, processes: int) -> "StepPlan":
        """Return the plan of a configuration."""
        epoch_steps = steps_per_epoch(frames, config.batch * processes)
        steps = config.steps or config.epochs * epoch_steps
        return cls(steps, epoch_steps, config.check_every_steps or epoch_steps)

    def checks_after(self, step: int) -> bool:
        """Return whether a check follows a step."""
        return step % self.check_every_steps == 0 or step == self.steps


def fit(
    run: TrainingRun,
    config: TrainingConfig,
    plan: StepPlan,
    data: TrainingData,
    process: DistributedProcess,
    recorder: "Recorder | None",
    stopping: threading.Event,
) -> None:
    """Run the training loop; each process takes its share of every step, rank 0 alone validates and records."""
    samples = training_samples(data.frames, config, process.world, plan.steps)
    module = process.wrapped(fast_module(run.network, process.device).train())
    todo = range(run.step, run.step if run.progress.is_over(config.early_stopping) else plan.steps)
    for images, labels in batches(samples, todo, process.rank, process.world, config.workers):
        loss = train_step(run, module, config, plan, process, images, labels)
        metrics: dict[str, float] = {}
        better: list[str] = []
        if plan.checks_after(run.step):
            metrics = process.from_first(lambda: check(run, config, data))
            better = run.progress.add(metrics, config.early_stopping)
            run.learning_rate.after_check(metrics)
        stops = process.any(stopping.is_set())
        ends = stops or run.step == plan.steps or run.progress.is_over(config.early_stopping)
        if recorder:
            recorder.add(run, loss, metrics, better, ends)
        if ends:
            return


def train_step(
    run: TrainingRun,
    module: nn.Module,
    config: TrainingConfig,
    plan: StepPlan,
    process: DistributedProcess,
    images: Tensor,
    labels: Tensor,
) -> LossValue:
    """Take one optimisation step and return its loss, that of all processes' images.

    `module` computes the same as `run.network`, faster, and averages gradients over processes.
    """
    # Dropout depends only on seed, step and rank, as samples do: there is no random state to save.
    torch.manual_seed(int(np.random.SeedSequence((config.seed, run.step, process.rank)).generate_state(1)[0]))
    run.learning_rate.before_step(run.step, plan.steps)
    images, labels = network_input(images.to(process.device)), labels.to(process.device)
    with autocast(process.device, config.precision):
        output = module(images)
    logits, auxiliary = output if isinstance(output, tuple) else (output, [])
    loss = segmentation_loss(config.loss, logits, auxiliary, labels, class_weights(config))
    if run.teacher:
        loss = run.teacher.add_to(loss, images, logits)
    run.optimizer.zero_grad()
    run.scaler.scale(loss.total).backward()  # type: ignore[no-untyped-call]
    run.scaler.unscale_(run.optimizer)
    if config.clip_norm:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), config.clip_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    ema_update(run.average, run.network, min(config.ema, (1 + run.step) / (10 + run.step)))
    run.step += 1
    total, *parts = process.mean(torch.stack([loss.total.detach(), *loss.parts.values()]))
    return LossValue(total, dict(zip(loss.parts, parts, strict=True)))


def class_weights(config: TrainingConfig) -> Sequence[float]:
    """Return the classes' weights in the loss: classes that are drawn seldom weigh more."""
    return config.sampling.augmentation.class_weights if isinstance(config.sampling, CropSampling) else ()


def fast_module(network: nn.Module, device: torch.device | None = None) -> nn.Module:
    """Return the exact CPU rewrite of a DAS-Net, which shares its weights; other networks unchanged.

    On a GPU the module itself is faster: the rewrite's loop over samples took 217 ms for a step of 32, the module 60
    (H200).
    """
    on_cpu = device is None or device.type == "cpu"
    return FusedDASNet(network) if isinstance(network, DASNet) and on_cpu else network


def check(run: TrainingRun, config: TrainingConfig, data: TrainingData) -> dict[str, float]:
    """Return the averaged network's metrics: {"val_loss": ..., ...}, or with crops {"hard_recognised": 0.7, ...}."""
    network, how = fast_module(run.average, next(run.average.parameters()).device).eval(), config.sampling
    if not isinstance(how, CropSampling):
        return validate(network, data.checks.values(), how.size_px, config)
    shown, precision = how.preprocessing, config.precision
    results = {split: quick_eval(network, frames, shown, precision) for split, frames in data.checks.items()}
    return {
        f"{split}_{column}": round(value, 4)
        for split, result in results.items()
        for column, value in zip(CHECK_COLUMNS, result.values, strict=True)
    }


def check_columns(config: TrainingConfig) -> list[str]:
    """Return the names of the metrics of a check."""
    if not isinstance(config.sampling, CropSampling):
        return ["val_loss", "val_iou"]
    return [f"{split}_{column}" for split in config.check_splits for column in CHECK_COLUMNS]


@dataclass(frozen=True)
class Recorder:
    """Writes a run's files."""

    folder: Path
    config: TrainingConfig
    plan: StepPlan
    data: TrainingData
    log: TrainingLog
    on_check: Callable[[int, dict[str, float]], None] | None

    @classmethod
    def of(
        cls,
        folder: Path,
        config: TrainingConfig,
        plan: StepPlan,
        data: TrainingData,
        step: int,
        on_check: Callable[[int, dict[str, float]], None] | None,
    ) -> "Recorder":
        """Return the recorder of a run that starts at `step`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(snapshot(config), encoding="utf-8")
        parts = part_names(config.loss, len(config.classes)) + [DISTILLATION] * (config.distillation is not None)
        columns = [*parts, "lr", "s_per_step", *check_columns(config)]
        log = TrainingLog(folder, columns, step, plan.steps, config.tensorboard)
        log.say(data.description)
        log.say(f"{data.summary}, from step {step} to {plan.steps}, pid {os.getpid()}")
        return cls(folder, config, plan, data, log, on_check)

    def add(self, run: TrainingRun, loss: LossValue, metrics: dict[str, float], better: list[str], ends: bool) -> None:
        """Record a step: log, and where due checkpoints, predictions and state."""
        self.log.add(loss)
        if metrics or ends or run.step % EVERY_STEPS == 0:
            self.log.write(run.step, run.step / self.plan.epoch_steps, run.learning_rate.value, metrics)
        if metrics:
            for name in ("ema", *(f"best_{name}" for name in better)):
                export(self.folder / f"{name}.safetensors", run, self.config, self.data.summary, metrics)
            self._write_predictions(run)
        if run.step == decay_start(self.config.schedule, self.plan.steps):
            run.save(self.folder / "stable.pt", self.config, self.plan.steps)
        if metrics or ends or run.step % self.config.save_every_steps == 0:
            run.save(self.folder / "state.pt", self.config, self.plan.steps)
        if metrics and self.on_check is not None:
            self.on_check(run.step, metrics)

    def close(self, run: TrainingRun, how: str) -> None:
        """Log how the run ended, and the best checkpoint."""
        self.log.say(how)
        best = [name for name in ("iou", "loss") if name in run.progress.best]
        if best:
            figure = f"val_{best[0]} {run.progress.best[best[0]]:.4f}"
            self.log.say(f"best checkpoint: {self.folder / f'best_{best[0]}.safetensors'} ({figure})")
        elif (last := self.folder / "ema.safetensors").exists():  # quick evaluations choose no best checkpoint
            self.log.say(f"checkpoint: {last} (the last)")
        self.log.close()

    def _write_predictions(self, run: TrainingRun) -> None:
        sets = [frames for frames in self.data.checks.values() if len(frames)] or [self.data.frames]
        network = fast_module(run.average, next(run.average.parameters()).device).eval()
        path = self.folder / "predictions" / f"step_{run.step:07d}.png"
        write_predictions(path, network, sets, self.config.sampling.preprocessing, self.config.precision)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="train", description="Train a network.")
    parser.add_argument("config", type=Path, help="a YAML file, e.g. configs/training/dasnet.yaml, or the original's")
    parser.add_argument("--out", type=Path, help="folder of the run (default: .cache/runs/<name of the config>)")
    parser.add_argument("--resume", action="store_true", help="continue from DIR/state.pt")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. optimizer.lr=0.001")
    options = parser.parse_args(arguments)
    from training.run import run_training  # which imports this module

    return run_training(options.config, options.out, options.resume, options.set)


if __name__ == "__main__":
    end_quietly()
    sys.exit(main())
