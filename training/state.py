"""State of a training run, in memory and on disk.

In: the configuration, and the folder of a run.  Out: a `TrainingRun`, saved as `state.pt` for resumption, and
checkpoints that `model.load` reads.  No random state is saved: each step's random numbers come from the seed and the
step's number (see `training.samples` and `training.train`), so that a resumed run draws the same ones.
"""

from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from model.blocks import OutputBlock
from model.checkpoint import load, save
from model.dasnet import DASNet
from model.errors import ModelError
from model.metadata import Metadata
from model.registry import build
from pipeline.errors import ConfigError
from training.config import CropSampling, TrainingConfig
from training.distillation import Teacher
from training.narrowing import is_narrower, narrow
from training.optimisation import LearningRate, ValidationProgress, build_optimizer

FIXED_KEYS = ("network", "sampling.kind", "optimizer.kind", "schedule.kind")  # of a resumed run


@dataclass
class TrainingRun:
    """A run; `state.pt` holds everything that changes during it."""

    network: nn.Module
    average: nn.Module  # exponential moving average of the weights; a copy of them where ema is 0
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    scaler: torch.amp.GradScaler
    progress: ValidationProgress
    step: int = 0
    teacher: Teacher | None = None  # never changes, so that it is not saved

    @property
    def _stateful(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "scaler": self.scaler,
        }

    def save(self, path: Path, config: TrainingConfig, steps: int) -> None:
        """Write the state atomically; `steps` are those of the whole run."""
        state = {name: part.state_dict() for name, part in self._stateful.items()}
        state |= {"progress": asdict(self.progress), "step": self.step, "steps": steps}
        state["config"] = config.model_dump()
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        for name, part in self._stateful.items():
            part.load_state_dict(state[name])
        self.progress, self.step = ValidationProgress(**state["progress"]), state["step"]


def start_run(config: TrainingConfig, device: torch.device | None = None) -> TrainingRun:
    """Return a fresh run; raise ConfigError for a network or an initial checkpoint that does not fit."""
    device = device or torch.device("cpu")
    if config.precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision = 'fp16'; must be auto, fp32 or bf16 on a CPU")
    torch.manual_seed(config.seed)
    try:
        network = build(**config.network)
    except ModelError as error:
        raise ConfigError(f"network: {error}") from error
    _check_side(network, config)
    for layer in output_layers(network):
        nn.init.constant_(cast(Tensor, layer.bias), config.output_bias)
    if config.start_from:
        _start_from(network, config)
    if config.spread_first_class:
        spread_first_class(network)
    teacher = Teacher(config, device) if config.distillation else None
    network.to(device)
    average = deepcopy(network).eval().requires_grad_(False)
    optimizer = build_optimizer(network, config.optimizer)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    rate, progress = LearningRate(optimizer, config), ValidationProgress()
    return TrainingRun(network.train(), average, optimizer, rate, scaler, progress, teacher=teacher)


def resume_run(run: TrainingRun, folder: Path, config: TrainingConfig, steps: int) -> None:
    """Restore the saved run, from before its learning-rate decay if that had started for another number of steps.

    Raise ConfigError where there is no state, or the state of another network, sampling, optimizer or schedule.
    """
    path = folder / "state.pt"
    if not path.exists():
        raise ConfigError(f"--resume: {path} is missing; expected the folder of an earlier run")
    state = torch.load(path, map_location="cpu", weights_only=True)
    old, new = state["config"], config.model_dump()
    for key in FIXED_KEYS:
        was, wanted = _at(old, key), _at(new, key)
        if was != wanted:
            raise ConfigError(f"--resume: {key} = {wanted!r}; must be that of {path}, {was!r}")
    decay_steps = old["schedule"].get("decay_steps")
    if decay_steps is not None and state["steps"] != steps and state["step"] > state["steps"] - decay_steps:
        state = torch.load(folder / "stable.pt", map_location="cpu", weights_only=True)
    run.restore(state)


def export(
    path: Path, run: TrainingRun, config: TrainingConfig, summary: dict[str, Any], metrics: dict[str, float]
) -> None:
    """Write the averaged weights as a checkpoint."""
    metadata = Metadata(
        network=config.network["name"],
        arguments={key: value for key, value in config.network.items() if key != "name"},
        classes=config.classes,
        preprocessing=config.sampling.preprocessing,
        training={
            "config": {**config.model_dump(), "data": Path(config.data).name},
            "data": summary,
            "seed": config.seed,
            "step": run.step,
            "check": metrics,
        },
    )
    if run.teacher:
        run.teacher.export(path, run.average, metadata)
    else:
        save(path, run.average, metadata)


def output_layers(network: nn.Module) -> list[nn.Conv2d]:
    """Return the last convolutions of the output and of the auxiliary heads, one filter per class."""
    layers = [module.output_block[1] for module in network.modules() if isinstance(module, OutputBlock)]
    heads = getattr(network.decoder, "aux_heads", None)
    layers += heads.values() if isinstance(heads, nn.ModuleDict) else []
    outer = getattr(network, "segmentation_head", None)  # of the baselines
    layers += [outer[0]] if isinstance(outer, nn.Sequential) else []
    return cast(list[nn.Conv2d], layers)


@torch.no_grad()
def spread_first_class(network: nn.Module) -> None:
    """Initialise every class as a copy of the first.

    Untrained classes beside one that already detects all objects never learn: their gradient vanishes where their
    probability does.
    """
    for layer in output_layers(network):
        for parameter in layer.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter).clone())


def _start_from(network: nn.Module, config: TrainingConfig) -> None:
    loaded = load(config.start_from)
    if is_narrower(network, loaded.network):
        return narrow(cast(DASNet, network), cast(DASNet, loaded.network))
    theirs = {"name": loaded.metadata.network, **loaded.metadata.arguments}
    try:
        network.load_state_dict(loaded.network.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"start_from = {config.start_from!r}: holds {theirs}; must be the weights of {config.network}"
        ) from error


def _check_side(network: nn.Module, config: TrainingConfig) -> None:
    if isinstance(config.sampling, CropSampling):
        return
    side_px, multiple = config.sampling.size_px, int(cast(Any, network).multiple)
    if side_px % multiple:
        raise ConfigError(f"sampling.size_px = {side_px}; must be a multiple of {multiple} with {config.network}")


def _at(content: dict[str, Any], key: str) -> Any:
    for name in key.split("."):
        content = content[name]
    return content
