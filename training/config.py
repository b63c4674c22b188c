"""A training run's settings, from one YAML file.

In: the file, ours or one of the original's (see `training.original`), and changes to single keys.  Out: `Config`.
Unknown keys and wrong values raise ConfigError naming the key, the value and what is allowed.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from model.metadata import Preprocessing
from pipeline.config.yaml_file import parse_yaml, read_yaml
from pipeline.errors import ConfigError
from training.augment import Augmentation
from training.datasets import CLASSES, SENSORS, SPLITS
from training.original import is_original, translate
from training.schema import parsed, require


@dataclass(frozen=True)
class Whole:
    """Whole frames, stretched to a square, as they are: the paper's."""

    kind: Literal["whole"] = "whole"
    size_px: int = 512

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(mode="stretch", size=self.size_px)


@dataclass(frozen=True)
class Crops:
    """Augmented crops at the sensor's own scale: ours (see `training.augment`)."""

    kind: Literal["crops"] = "crops"
    small_share: float = 0.0  # of the steps before the decay: small_batch crops of small_crop_px instead
    small_batch: int = 8
    small_crop_px: int = 128
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def preprocessing(self) -> Preprocessing:
        """Of whole frames, in checks and in use."""
        return Preprocessing("scale", scale=self.augmentation.sensor_scale, grey=self.augmentation.grey)


@dataclass(frozen=True)
class Optimizer:
    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-4  # the highest
    weight_decay: float = 1e-2  # on matrices only
    momentum: float = 0.9  # of sgd


@dataclass(frozen=True)
class Plateau:
    """The learning rate falls by `factor` after `patience` checks without a lower validation loss."""

    kind: Literal["plateau"] = "plateau"
    factor: float = 0.5
    patience: int = 15
    cooldown: int = 5


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to 0."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: int = 0


@dataclass(frozen=True)
class Trapezoid:
    """Linear warm-up, constant, then linearly to 0 over the last `decay_steps`."""

    kind: Literal["trapezoid"] = "trapezoid"
    warmup_steps: int = 150
    decay_steps: int = 0


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` checks in which the validation loss did not fall by `min_delta`; 0: never."""

    patience: int = 0
    min_delta: float = 0.001


@dataclass(frozen=True)
class Config:
    data: str  # a folder
    steps: int = 0  # either this or epochs
    epochs: int = 0
    batch: int = 24  # images a step, in each process
    network: dict[str, Any] = field(default_factory=lambda: {"name": "dasnet", "num_class": 1})
    sampling: Whole | Crops = field(default_factory=Whole)
    loss: Literal["dice", "bce", "jaccard", "compound", "field"] = "dice"
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Plateau | Cosine | Trapezoid = field(default_factory=Plateau)
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    clip_norm: float = 0.0  # of the gradient; 0: not clipped
    ema: float = 0.0  # weight averaging; 0: none
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # auto: bf16 where the device computes in it
    output_bias: float = 0.0  # with which the outputs begin; below 0 where few pixels are targets
    start_from: str = ""  # a checkpoint whose weights to begin with
    spread_first_class: bool = (
        False  # give every class the first one's filters: a network that finds objects learns names
    )
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    threads: int = 2  # of the processor, for the network
    workers: int = 0  # processes that make samples ahead; 0: the training one itself, between steps
    splits: list[str] = field(default_factory=lambda: ["train"])
    clips: list[str] = field(default_factory=list)  # names; empty means all of the splits
    sensors: list[str] = field(default_factory=lambda: list(SENSORS))  # to learn from; checks are of all
    check_splits: list[str] = field(default_factory=lambda: ["val"])
    check_clips: list[str] = field(default_factory=list)
    max_samples: int = 0  # frames, drawn by the seed; 0: all
    max_check_samples: int = 0
    cache: str = ".cache/training"
    every_drone_frame: int = 1
    every_other_frame: int = 1
    save_every_steps: int = 200
    check_every_steps: int = 0  # 0: after each epoch
    tensorboard: bool = False
    out: str = ""  # folder of the run, unless --out says another

    @property
    def classes(self) -> tuple[str, ...]:
        return CLASSES[: self.network["num_class"]]


POSITIVE = ("batch", "threads", "every_drone_frame", "every_other_frame", "save_every_steps")
NOT_NEGATIVE = (
    "workers",
    "steps",
    "epochs",
    "clip_norm",
    "seed",
    "max_samples",
    "max_check_samples",
    "check_every_steps",
)


def load_config(path: str | Path, changes: Sequence[str] = ()) -> Config:
    """`changes` are "key=value" with dotted keys and YAML values, e.g. "optimizer.lr=1e-3"."""
    content = read_yaml(Path(path)).value
    if is_original(content):
        content = translate(content, str(path))
    for change in changes:
        content = _changed(content, change)
    return parse_config(content, str(path))


def snapshot(config: Config) -> str:
    """As YAML, from which `load_config` makes the same Config."""
    return yaml.safe_dump(asdict(config), sort_keys=False)


def parse_config(content: object, source: str = "config") -> Config:
    """A validated Config from a plain mapping of ours."""
    config = parsed(Config, content, source)
    config = Config(**{**vars(config), "data": _expanded(config.data, source), "network": _network(config, source)})
    for key in POSITIVE:
        require(getattr(config, key) > 0, source, key, getattr(config, key), "more than 0")
    for key in NOT_NEGATIVE:
        require(getattr(config, key) >= 0, source, key, getattr(config, key), "0 or more")
    given = f"steps = {config.steps}, epochs = {config.epochs}"
    if (config.steps > 0) == (config.epochs > 0):
        raise ConfigError(f"{source}: {given}; allowed: one of them, above 0")
    require(0 <= config.ema < 1, source, "ema", config.ema, "0 up to, not including, 1")
    for key, known in {"splits": SPLITS, "check_splits": SPLITS, "sensors": SENSORS}.items():
        for value in getattr(config, key):
            require(value in known, source, key, value, ", ".join(known))
        require(bool(getattr(config, key)), source, key, [], f"at least one of {', '.join(known)}")
    _check_optimisation(config, source)
    if isinstance(config.sampling, Crops):
        _check_crops(config.sampling, f"{source}: sampling")
    else:
        require(config.sampling.size_px > 0, source, "sampling.size_px", config.sampling.size_px, "more than 0")
    return config


def _network(config: Config, source: str) -> dict[str, Any]:
    """With the name and number of classes filled in; the other arguments are checked when it is built."""
    network = {"name": "dasnet", "num_class": 1, **config.network}
    outputs = network["num_class"]
    require(outputs in range(1, len(CLASSES) + 1), source, "network.num_class", outputs, f"1..{len(CLASSES)}")
    require(network.get("in_channels", 3) == 3, source, "network.in_channels", network.get("in_channels"), "3")
    return network


def _check_optimisation(config: Config, source: str) -> None:
    optimizer, schedule, stopping = config.optimizer, config.schedule, config.early_stopping
    require(optimizer.lr > 0, source, "optimizer.lr", optimizer.lr, "more than 0")
    require(optimizer.weight_decay >= 0, source, "optimizer.weight_decay", optimizer.weight_decay, "0 or more")
    require(0 <= optimizer.momentum < 1, source, "optimizer.momentum", optimizer.momentum, "0 up to, not including, 1")
    for key, value in asdict(schedule).items():
        if key not in ("kind", "factor"):
            require(value >= 0, source, f"schedule.{key}", value, "0 or more")
    require(stopping.patience >= 0, source, "early_stopping.patience", stopping.patience, "0 or more")
    require(stopping.min_delta >= 0, source, "early_stopping.min_delta", stopping.min_delta, "0 or more")
    if isinstance(schedule, Plateau):
        require(0 < schedule.factor < 1, source, "schedule.factor", schedule.factor, "between 0 and 1")
    if isinstance(schedule, Trapezoid) and config.steps:
        require(
            schedule.decay_steps <= config.steps,
            source,
            "schedule.decay_steps",
            schedule.decay_steps,
            f"0..{config.steps}",
        )
    if isinstance(config.sampling, Crops):  # which are checked by what is found, not by a loss
        require(not isinstance(schedule, Plateau), source, "schedule.kind", "plateau", "cosine, trapezoid with crops")
        require(stopping.patience == 0, source, "early_stopping.patience", stopping.patience, "0 with crops")


def _check_crops(crops: Crops, source: str) -> None:
    require(crops.small_batch > 0, source, "small_batch", crops.small_batch, "more than 0")
    require(0 <= crops.small_share <= 1, source, "small_share", crops.small_share, "0..1")
    small_px, how = crops.small_crop_px, crops.augmentation
    require(small_px > 0 and small_px % 128 == 0, source, "small_crop_px", small_px, "multiples of 128")
    for item in fields(how):
        value = getattr(how, item.name)
        if item.name.endswith("_share"):
            require(0 <= value <= 1, source, f"augmentation.{item.name}", value, "0..1")
    source = f"{source}: augmentation"
    require(how.crop_px > 0 and how.crop_px % 128 == 0, source, "crop_px", how.crop_px, "multiples of 128")
    require(0 < how.scale_min < how.scale_max, source, "scale_min", how.scale_min, f"above 0, below {how.scale_max}")
    require(set(how.sensor_scale) == set(SENSORS), source, "sensor_scale", how.sensor_scale, f"a scale for {SENSORS}")
    for sensor, scale in how.sensor_scale.items():
        require(scale > 0, source, f"sensor_scale.{sensor}", scale, "more than 0")


def _expanded(folder: str, source: str) -> str:
    """With environment variables filled in: data lies elsewhere on every machine."""
    filled = os.path.expandvars(folder)
    require("$" not in filled, source, "data", folder, "a folder, or ${NAME} of an environment variable that is set")
    return filled


def _changed(content: object, change: str) -> object:
    """The mapping with one key set."""
    key, equals, text = change.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {change}: is no change; allowed: key=value, e.g. optimizer.lr=0.001")
    value = parse_yaml(text, f"--set {key}").value
    for name in reversed(key.split(".")):
        value = {name: value}
    return _merged(content, value)


def _merged(content: Any, change: Any) -> Any:
    if not isinstance(content, dict) or not isinstance(change, dict):
        return change
    return {**content, **{key: _merged(content.get(key), value) for key, value in change.items()}}
