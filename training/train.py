"""Train a network on labelled clips: `python3 -m training.train CONFIG.yaml [--out DIR] [--resume]`.

In: one YAML file (see `training.config`).  Out, in DIR: `ema.safetensors` (the checkpoint to use), `state.pt` (to
resume from), `stable.pt` (the state before the learning rate falls, from which a run with more steps goes on), and
`log.csv`.  SIGTERM saves the state and exits with 0.
"""

import argparse
import csv
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from model.allocator import keep_memory
from model.blocks import OutputBlock
from model.checkpoint import load, save
from model.dasnet import DASNet
from model.fused import FusedDASNet
from model.metadata import Metadata, Preprocessing
from model.registry import build
from training.augment import Sampler
from training.cache import Frames, cached, every_nth
from training.check import check_frames, run_check
from training.config import Config, ConfigError, load_config
from training.datasets import CLASSES, DataError, describe, open_dataset
from training.losses import Loss, segmentation_loss

OUTPUT_BIAS = -4.0  # few pixels are targets
LOG_EVERY_STEPS = 10
CHECK_DRONE_FRAMES, CHECK_OTHER_FRAMES = {"hard": 3, "val": 1}, {"hard": 2, "val": 1}  # a clip
CHECK_COLUMNS = ("found", "recognised", "alarmed")


@dataclass
class Run:
    """What changes while training; all of it is in `state.pt`."""

    network: DASNet
    average: DASNet  # exponential moving average of the weights
    optimizer: torch.optim.AdamW
    step: int = 0


def start_run(config: Config) -> Run:
    torch.manual_seed(config.seed)
    network, average = (cast(DASNet, build("dasnet", **config.network)) for _ in range(2))
    for module in network.modules():
        if isinstance(module, OutputBlock):
            nn.init.constant_(cast(Tensor, module.output_block[1].bias), OUTPUT_BIAS)
    for head in network.decoder.aux_heads.values():
        nn.init.constant_(cast(Tensor, head.bias), OUTPUT_BIAS)
    if config.start_from:
        network.load_state_dict(load(config.start_from).network.state_dict())
    if config.spread_first_class:
        spread_first_class(network)
    average.load_state_dict(network.state_dict())
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return Run(network.train(), average.eval(), torch.optim.AdamW(groups, lr=config.peak_lr))


@torch.no_grad()
def spread_first_class(network: DASNet) -> None:
    """Every class starts as a copy of the first.

    Classes learned from nothing beside one that already finds all objects stay silent: their gradient vanishes where
    their probability does.
    """
    heads = [network.decoder.output.output_block[1], *network.decoder.aux_heads.values()]
    for head in cast(list[torch.nn.Conv2d], heads):
        for parameter in head.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter).clone())


def save_run(path: Path, run: Run, config: Config) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial")
    state = {
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "config": asdict(config),
    }
    torch.save(state, partial)
    partial.replace(path)


def resume_run(folder: Path, config: Config) -> Run:
    """The saved run; if the saved learning rate was already falling for fewer steps, the state before it fell."""
    path = folder / "state.pt"
    if not path.exists():
        raise ConfigError(f"--resume: {path} is missing; allowed: a folder holding the state of a run")
    state: dict[str, Any] = torch.load(path, weights_only=True)
    old = state["config"]
    if old["network"] != config.network:
        raise ConfigError(f"--resume: network = {config.network!r}; allowed: that of {path}, {old['network']!r}")
    if old["steps"] != config.steps and state["step"] > old["steps"] - old["decay_steps"]:
        state = torch.load(folder / "stable.pt", weights_only=True)
    run = start_run(config)
    run.network.load_state_dict(state["network"])
    run.average.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step = state["step"]
    return run


def learning_rate(config: Config, step: int) -> float:
    """Warm-up, constant, then linearly to 0 over the last `decay_steps`."""
    rise = (step + 1) / max(1, config.warmup_steps)
    fall = (config.steps - step) / max(1, config.decay_steps)
    return config.peak_lr * min(1.0, rise, fall)


def batch_shape(config: Config, step: int) -> tuple[int, int]:
    """Crops and their size: small crops show more objects a second, but the last steps are as in use."""
    small = step < config.decay_start and np.random.default_rng((config.seed, step)).random() < config.small_share
    return (config.small_batch, config.small_crop_px) if small else (config.batch, config.augmentation.crop_px)


def batches(sampler: Sampler, config: Config, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (N, 3, S, S) in 0..1 and labels (N, S, S) of each step to come, made by one thread ahead of time."""
    ready: queue.Queue[list[tuple[Any, Any]] | Exception] = queue.Queue(maxsize=4)

    def make() -> None:
        try:
            for step in range(start, config.steps):
                count, crop_px = batch_shape(config, step)
                ready.put([sampler.sample(step, index, crop_px) for index in range(count)])
        except Exception as error:  # noqa: BLE001  (raised again where the batch is awaited)
            ready.put(error)

    threading.Thread(target=make, daemon=True).start()
    for _ in range(start, config.steps):
        made = ready.get()
        if isinstance(made, Exception):
            raise made
        images = torch.from_numpy(np.stack([image for image, _ in made]))  # channels last, as the network likes it
        yield images.permute(0, 3, 1, 2).float() / 255, torch.from_numpy(np.stack([labels for _, labels in made]))


def train_step(run: Run, fused: FusedDASNet, config: Config, images: Tensor, labels: Tensor) -> Loss:
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(config, run.step)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.autocast):
        logits, auxiliary = fused(images)
    loss = segmentation_loss(logits, auxiliary, labels, config.augmentation.class_weights)
    run.optimizer.zero_grad()
    loss.total.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), config.clip_norm)
    run.optimizer.step()
    keep = min(config.ema, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(run.average.parameters()), list(run.network.parameters()), 1 - keep)
    run.step += 1
    return loss


def export(folder: Path, run: Run, config: Config, summary: dict[str, Any], checks: dict[str, float]) -> None:
    scale = config.augmentation.sensor_scale
    metadata = Metadata(
        network="dasnet",
        arguments=config.network,
        classes=CLASSES,
        preprocessing=Preprocessing(mode="scale", scale=scale),
        training={
            "config": {**asdict(config), "data": Path(config.data).name},
            "data": summary,
            "seed": config.seed,
            "step": run.step,
            "check": checks,
        },
    )
    save(folder / "ema.safetensors", run.average, metadata)


def check(run: Run, config: Config, sets: dict[str, Frames]) -> dict[str, float]:
    """Of the averaged network, e.g. {"hard_recognised": 0.7, ...}."""
    fused = FusedDASNet(run.average).eval()
    scale = config.augmentation.sensor_scale
    return {
        f"{split}_{column}": round(value, 4)
        for split, frames in sets.items()
        for column, value in zip(CHECK_COLUMNS, run_check(fused, frames, scale, config.autocast).values, strict=True)
    }


def read_data(config: Config) -> tuple[Frames, dict[str, Frames], dict[str, Any]]:
    """Training frames, check frames a split, and a summary for the checkpoint."""
    clips = open_dataset(config.data, config.splits, config.clips)
    print(describe(clips), flush=True)
    frames = cached(config.cache, clips, every_nth(clips, config.every_drone_frame, config.every_other_frame))
    sets = {}
    for split in config.check_splits:
        chosen = open_dataset(config.data, [split], config.check_clips)
        numbers = check_frames(chosen, CHECK_DRONE_FRAMES.get(split, 1), CHECK_OTHER_FRAMES.get(split, 1))
        sets[split] = cached(config.cache, chosen, numbers)
    summary = {"folder": Path(config.data).name, "splits": config.splits, "clips": len(clips), "frames": len(frames)}
    return frames, sets, summary


class Log:
    """`log.csv`, and a line of progress on standard output."""

    def __init__(self, folder: Path, config: Config) -> None:
        checks = [f"{split}_{column}" for split in config.check_splits for column in CHECK_COLUMNS]
        self.columns = ["step", "loss", "dice", "focal", "names", "auxiliary", "lr", "s_per_step", *checks]
        self.path = folder / "log.csv"
        if not self.path.exists():
            self._append(self.columns)
        self.started_s, self.sums, self.count = time.monotonic(), np.zeros(5), 0

    def add(self, loss: Loss) -> None:
        self.sums += [float(part.detach()) for part in (loss.total, loss.dice, loss.focal, loss.names, loss.auxiliary)]
        self.count += 1

    def write(self, step: int, lr: float, checks: dict[str, float]) -> None:
        """The means since the last line."""
        means = self.sums / max(1, self.count)
        s_per_step = (time.monotonic() - self.started_s) / max(1, self.count)
        row = [step, *(round(float(mean), 5) for mean in means), f"{lr:.3g}", round(s_per_step, 3)]
        self._append([*row, *(checks.get(name, "") for name in self.columns[8:])])
        print(f"step {step} loss {means[0]:.4f} lr {lr:.2g} {s_per_step:.2f} s/step {checks or ''}", flush=True)
        self.started_s, self.sums, self.count = time.monotonic(), np.zeros(5), 0

    def _append(self, row: list[Any]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)


def train(config: Config, folder: Path, resume: bool) -> Run:
    """Run to `config.steps`, or until SIGTERM."""
    folder.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    torch.set_num_threads(config.threads)
    run = resume_run(folder, config) if resume else start_run(config)
    frames, sets, summary = read_data(config)
    print(f"{summary}, from step {run.step} to {config.steps}, pid {os.getpid()}", flush=True)
    stopping = threading.Event()

    before = signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    log, fused = Log(folder, config), FusedDASNet(run.network).train()
    sampler = Sampler(frames, config.augmentation, config.seed)
    for images, labels in batches(sampler, config, run.step):
        log.add(train_step(run, fused, config, images, labels))
        last = run.step == config.steps
        if run.step == config.decay_start:
            save_run(folder / "stable.pt", run, config)
        if run.step % config.save_every_steps == 0 or last or stopping.is_set():
            save_run(folder / "state.pt", run, config)
        if run.step % config.check_every_steps == 0 or last:
            checks = check(run, config, sets)
            export(folder, run, config, summary, checks)
            log.write(run.step, learning_rate(config, run.step - 1), checks)
        elif run.step % LOG_EVERY_STEPS == 0:
            log.write(run.step, learning_rate(config, run.step - 1), {})
        if stopping.is_set():
            print(f"stopped at step {run.step}; go on with --resume", flush=True)
            break
    signal.signal(signal.SIGTERM, before)
    return run


def main(arguments: list[str] | None = None) -> int:
    keep_memory()
    parser = argparse.ArgumentParser(prog="train", description="Train a network on labelled clips.")
    parser.add_argument("config", type=Path, help="a YAML file, e.g. configs/training/dasnet_field.yaml")
    parser.add_argument("--out", type=Path, help="folder of the run (default: .cache/runs/<name of the config>)")
    parser.add_argument("--resume", action="store_true", help="go on from DIR/state.pt")
    given = parser.parse_args(arguments)
    try:
        train(load_config(given.config), given.out or Path(".cache/runs") / given.config.stem, given.resume)
    except (ConfigError, DataError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
