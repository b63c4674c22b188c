"""Optimizer, learning-rate schedules, autocast and early stopping.

`training.state` saves their state.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from model.native.processor import has_fast_bf16
from training.config import Cosine, EarlyStopping, Optimizer, Plateau, TrainingConfig, Trapezoid


def build_optimizer(network: nn.Module, how: Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer, with weight decay on matrices and kernels only, not on biases and norms."""
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": how.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if how.kind == "adamw":
        return torch.optim.AdamW(groups, lr=how.lr)
    if how.kind == "adam":
        return torch.optim.Adam(groups, lr=how.lr)
    return torch.optim.SGD(groups, lr=how.lr, momentum=how.momentum)


def learning_rate(schedule: Cosine | Trapezoid, peak: float, step: int, steps: int) -> float:
    """Return the learning rate of step `step` of `steps`, counted from 0."""
    rise = (step + 1) / max(1, schedule.warmup_steps)
    if isinstance(schedule, Trapezoid):
        return peak * min(1.0, rise, (steps - step) / max(1, schedule.decay_steps))
    done = max(0, step - schedule.warmup_steps) / max(1, steps - schedule.warmup_steps)
    return peak * min(1.0, rise) * 0.5 * (1 + math.cos(math.pi * done))


def decay_start(schedule: Plateau | Cosine | Trapezoid, steps: int) -> int:
    """Return the step at which a trapezoid's decay starts; `steps` for the other schedules."""
    return steps - schedule.decay_steps if isinstance(schedule, Trapezoid) else steps


class LearningRate:
    """Sets the optimizer's learning rate before each step or, for a plateau, after each check."""

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainingConfig) -> None:
        self._optimizer, self._how, self._peak = optimizer, config.schedule, config.optimizer.lr
        self._plateau = None
        if isinstance(self._how, Plateau):
            how = self._how
            self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=how.factor, patience=how.patience, cooldown=how.cooldown
            )

    @property
    def value(self) -> float:
        """The current learning rate."""
        return float(self._optimizer.param_groups[0]["lr"])

    def before_step(self, step: int, steps: int) -> None:
        """Set the learning rate of a step."""
        if not isinstance(self._how, Plateau):
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate(self._how, self._peak, step, steps)

    def after_check(self, metrics: dict[str, float]) -> None:
        """Lower the learning rate on a plateau of the validation loss."""
        if self._plateau is not None:
            self._plateau.step(metrics["val_loss"])

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state."""
        return self._plateau.state_dict() if self._plateau is not None else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the schedule's state."""
        if self._plateau is not None:
            self._plateau.load_state_dict(state)


@dataclass
class ValidationProgress:
    """The best metrics so far, and the number of checks since the validation loss last fell."""

    best: dict[str, float] = field(default_factory=dict)  # "loss" and "iou", with whole-frame validation
    least_loss: float = math.inf  # reference of early stopping
    checks_without: int = 0

    def add(self, metrics: dict[str, float], stopping: EarlyStopping) -> list[str]:
        """Return which of "loss" and "iou" improved; checks without a loss change nothing."""
        if "val_loss" not in metrics:
            return []
        loss, iou = metrics["val_loss"], metrics["val_iou"]
        is_better = {"loss": loss < self.best.get("loss", math.inf), "iou": iou > self.best.get("iou", -math.inf)}
        better = [name for name, holds in is_better.items() if holds]
        self.best |= {name: metrics[f"val_{name}"] for name in better}
        if loss < self.least_loss - stopping.min_delta:
            self.least_loss, self.checks_without = loss, 0
        else:
            self.checks_without += 1
        return better

    def is_over(self, stopping: EarlyStopping) -> bool:
        """Return whether early stopping ends the run."""
        return 0 < stopping.patience <= self.checks_without


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a precision; "fp32" disables it, "auto" is bf16 where that is fast."""
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else has_fast_bf16()
        precision = "bf16" if fast else "fp32"
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")
