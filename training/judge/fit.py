"""The training loop of the judge.  Needs torch and numpy alone.

In: a `ChipSet`.  Out: a `JudgeRun`, saved to a state file every few steps and when stopped.  A step's random numbers
come from the seed and its number, so that a resumed run equals an uninterrupted one.
"""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.judge import Judge, normalised
from model.metadata import CLASSES
from model.native import processor
from pipeline.errors import ConfigError
from training.averaging import ema_update
from training.judge.augment import augmented
from training.judge.chip_set import STATIC, ChipSet
from training.judge.metrics import judge_metrics, metrics_line

CLASS_SHARES = (0.30, 0.16, 0.10, 0.10, 0.34)  # of all samples: CLASSES, and clutter
WEIGHT_DECAY, CLIP_NORM, EMA_DECAY = 0.03, 3.0, 0.997
WARM_UP_STEPS = 100
CONSTANT_SHARE, LEAST_RATE = 0.4, 0.01  # of the run at the peak rate, then linear to this share of it
TARGET_SMOOTHING, CLASS_SMOOTHING = 0.02, 0.05
CLASS_WEIGHT = 1.3  # of the class loss
REPORT_STEPS = 100
CHECKS = 4  # in a run
FIXED = ("batch", "lr", "seed")  # of a resumed run


@dataclass(frozen=True)
class FitSettings:
    """Length and hyperparameters of a run; either `steps` or `minutes` is above 0."""

    steps: int = 0
    minutes: float = 0.0  # of computing, in place of a number of steps
    batch: int = 96
    lr: float = 2e-3  # peak of AdamW
    seed: int = 1
    save_every_steps: int = 200

    def share_done(self, step: int, elapsed_s: float) -> float:
        """Return which share of the run is over."""
        return step / self.steps if self.steps else elapsed_s / (60 * self.minutes)


class JudgeRun:
    """Everything that changes during a run; the state file holds all of it."""

    def __init__(self, frames: int, settings: FitSettings, device: torch.device, first: Judge | None = None) -> None:
        torch.manual_seed(settings.seed)
        self.network = deepcopy(first or Judge(frames, len(CLASSES))).to(device)
        self.average = deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), settings.lr, weight_decay=WEIGHT_DECAY)
        self.device = device
        self.step, self.elapsed_s = 0, 0.0

    def save(self, path: Path, settings: FitSettings) -> None:
        """Write the state atomically."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "settings": asdict(settings),
        }
        partial = path.with_suffix(".partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path, settings: FitSettings) -> None:
        """Restore a saved state; raise ConfigError where there is none, or that of another run."""
        if not path.exists():
            raise ConfigError(f"--resume: {path} is missing; expected the state of an earlier run")
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in FIXED:
            was, wanted = state["settings"][name], getattr(settings, name)
            if was != wanted:
                raise ConfigError(f"--resume: {name} = {wanted!r}; must be that of {path}, {was!r}")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]


class ChipDraw:
    """Draws training chips: by CLASS_SHARES, and a long recording less than in proportion to its length."""

    def __init__(self, chips: ChipSet, seed: int) -> None:
        self._seed = seed
        _, groups, counts = np.unique(
            chips.recordings * (STATIC + 1) + chips.kinds, return_inverse=True, return_counts=True
        )
        weights = 1 / np.sqrt(counts[groups])
        classes = np.minimum(chips.kinds, len(CLASSES)).astype(np.int64)
        totals = np.bincount(classes, weights, minlength=len(CLASS_SHARES))
        self._cumulated = np.cumsum(weights * np.array(CLASS_SHARES)[classes] / totals[classes])
        self._clutter = np.flatnonzero(~chips.is_target)

    def batch(self, step: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the indices of a step's chips, and those of as many chips of clutter."""
        rng = np.random.default_rng((self._seed, step))
        drawn = np.searchsorted(self._cumulated, rng.random(count) * self._cumulated[-1])
        indices = np.minimum(drawn, len(self._cumulated) - 1)
        return indices, self._clutter[rng.integers(len(self._clutter), size=count)]


def fit(
    chips: ChipSet,
    check: ChipSet,
    settings: FitSettings,
    state: Path,
    stopping: Event,
    device: torch.device,
    say: Callable[[str], None],
    resume: bool = False,
    first: Judge | None = None,
) -> JudgeRun:
    """Train until the end, or until `stopping` is set; return the run, its state saved.

    Args:
        chips: to learn from.
        check: for the figures that are printed.
        settings: of the run.
        state: file that the run is saved to and resumed from.
        stopping: ends the run after the step in progress.
        device: to compute on.
        say: takes lines of progress.
        resume: continue from the state file.
        first: the judge to begin with; None: random weights.

    Raises:
        ConfigError: Chips without target or clutter; a state of another run, or one that would be overwritten.
    """
    if chips.is_target.all() or not chips.is_target.any():
        raise ConfigError(f"chips: {chips.counts()}; expected targets and clutter to learn from")
    run = JudgeRun(len(chips.lags_s), settings, device, first)
    if resume:
        run.restore(state, settings)
    elif state.exists():
        raise ConfigError(f"{state}: holds the state of a run; expected no such file, or --resume")
    draw, loss, checks = ChipDraw(chips, settings.seed), 0.0, int(CHECKS * settings.share_done(run.step, run.elapsed_s))
    while (done := settings.share_done(run.step, run.elapsed_s)) < 1 and not stopping.is_set():
        started_s = time.monotonic()
        loss += (train_step(run, chips, draw, settings, done) - loss) / min(REPORT_STEPS, run.step)
        run.elapsed_s += time.monotonic() - started_s
        if run.step % REPORT_STEPS == 0:
            say(f"judge: step {run.step}, {done:.0%}, {run.elapsed_s / run.step:.2f} s a step, loss {loss:.3f}")
        if (passed := int(CHECKS * settings.share_done(run.step, run.elapsed_s))) > checks:
            checks = passed
            say(f"judge: step {run.step}: {metrics_line(judge_metrics(run.average, check, device))}")
        if run.step % settings.save_every_steps == 0:
            run.save(state, settings)
    run.save(state, settings)
    return run


def train_step(run: JudgeRun, chips: ChipSet, draw: ChipDraw, settings: FitSettings, done: float) -> float:
    """Take one optimisation step and return its loss; `done` is the share of the run before it."""
    seed = int(np.random.SeedSequence((settings.seed, run.step)).generate_state(1)[0])
    torch.manual_seed(seed)  # of dropout
    rng = torch.Generator(run.device).manual_seed(seed)
    for group in run.optimizer.param_groups:
        group["lr"] = settings.lr * rate_factor(run.step, done)
    chosen, beside = draw.batch(run.step, settings.batch)
    kinds = torch.from_numpy(chips.kinds[chosen].astype(np.int64)).to(run.device)
    images, backgrounds = (torch.from_numpy(chips.at(rows)).to(run.device).float() for rows in (chosen, beside))
    is_target = kinds < len(CLASSES)
    with torch.no_grad():
        images, weight = augmented(images, is_target, backgrounds, chips.lags_s, chips.side_px, rng)
        images = normalised(images)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=has_bfloat16(run.device)):
        target, classes = run.network.train()(images)
    loss = judge_loss(target.float(), classes.float(), kinds, weight)
    run.optimizer.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), CLIP_NORM)
    run.optimizer.step()
    run.step += 1
    ema_update(run.average, run.network, min(EMA_DECAY, run.step / (run.step + 20)))
    return float(loss.detach())


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 faster than float32."""
    return device.type != "cpu" or "avx512_bf16" in processor.features()


def judge_loss(target: Tensor, classes: Tensor, kinds: Tensor, weight: Tensor) -> Tensor:
    """Return the loss: cross-entropy of target against clutter, and of the targets' classes.

    Args:
        target: logits (N,).
        classes: logits (N, C).
        kinds: int64 (N,): a class, or C and above for clutter.
        weight: (N,) of each chip's class.
    """
    is_target = kinds < classes.shape[1]
    wanted = is_target.float() * (1 - 2 * TARGET_SMOOTHING) + TARGET_SMOOTHING
    loss = F.binary_cross_entropy_with_logits(target, wanted)
    if is_target.any():
        each = F.cross_entropy(classes[is_target], kinds[is_target], label_smoothing=CLASS_SMOOTHING, reduction="none")
        loss = loss + CLASS_WEIGHT * (weight[is_target] * each).sum() / weight[is_target].sum()
    return loss


def rate_factor(step: int, done: float) -> float:
    """Return the learning rate's factor: linear warm-up, constant, linear decay."""
    falling = (1 - done) / (1 - CONSTANT_SHARE)
    return min(1.0, (step + 1) / WARM_UP_STEPS) * min(1.0, max(LEAST_RATE, falling))
