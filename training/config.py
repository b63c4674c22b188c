"""A training run's settings, from one YAML file.

In: the file.  Out: `Config`.  Unknown keys and wrong values raise ConfigError naming the key, the value and what is
allowed.
"""

import os
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from training.augment import Augmentation
from training.datasets import SENSORS, SPLITS


class ConfigError(Exception):
    """Names the bad key, its value and what is allowed."""


@dataclass(frozen=True)
class Config:
    data: str  # folder in the dronedet format
    steps: int
    decay_steps: int  # the last ones, over which the learning rate falls to 0
    batch: int = 4  # crops a step
    small_share: float = 0.0  # of the steps before the decay: small_batch crops of small_crop_px instead
    small_batch: int = 8
    small_crop_px: int = 128
    warmup_steps: int = 150
    peak_lr: float = 1.5e-3
    weight_decay: float = 1e-2  # on matrices only
    clip_norm: float = 2.0
    ema: float = 0.998
    autocast: bool = True  # bfloat16
    start_from: str = ""  # a checkpoint whose weights to begin with
    spread_first_class: bool = (
        False  # give every class the first one's filters: a network that finds objects learns names
    )
    seed: int = 0
    threads: int = 2
    network: dict[str, Any] = field(default_factory=lambda: {"num_class": 4})
    splits: list[str] = field(default_factory=lambda: ["train"])
    clips: list[str] = field(default_factory=list)  # names; empty means all of the splits
    check_splits: list[str] = field(default_factory=lambda: ["hard", "val"])
    check_clips: list[str] = field(default_factory=list)
    cache: str = ".cache/training"
    every_drone_frame: int = 4
    every_other_frame: int = 8
    save_every_steps: int = 200
    check_every_steps: int = 500
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def decay_start(self) -> int:
        return self.steps - self.decay_steps


POSITIVE = (
    *("steps", "batch", "small_batch", "peak_lr", "clip_norm", "threads", "every_drone_frame", "every_other_frame"),
    *("save_every_steps", "check_every_steps"),
)


def load_config(path: str | Path) -> Config:
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"config {path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path}: is not YAML ({error})") from error
    return parse_config(content, str(path))


def parse_config(content: object, source: str = "config") -> Config:
    """A validated Config from a plain mapping."""
    values = _checked(Config, content, source)
    if "augmentation" in values:
        inner = _checked(Augmentation, values["augmentation"], f"{source}: augmentation")
        values["augmentation"] = Augmentation(**inner)
    config = Config(**{**values, "data": _expanded(values["data"], source)})
    for key in POSITIVE:
        _require(getattr(config, key) > 0, source, key, getattr(config, key), "more than 0")
    _require(0 <= config.decay_steps <= config.steps, source, "decay_steps", config.decay_steps, f"0..{config.steps}")
    _require(0 <= config.small_share <= 1, source, "small_share", config.small_share, "0..1")
    small_px = config.small_crop_px
    _require(small_px > 0 and small_px % 128 == 0, source, "small_crop_px", small_px, "multiples of 128")
    _require(config.warmup_steps >= 0, source, "warmup_steps", config.warmup_steps, "0 or more")
    _require(0 <= config.ema < 1, source, "ema", config.ema, "0 up to, not including, 1")
    _require(config.network.get("num_class") == 4, source, "network", config.network, "a mapping with num_class: 4")
    for split in (*config.splits, *config.check_splits):
        _require(split in SPLITS, source, "splits or check_splits", split, ", ".join(SPLITS))
    _check_augmentation(config.augmentation, f"{source}: augmentation")
    return config


def _expanded(folder: str, source: str) -> str:
    """With environment variables filled in: data lies elsewhere on every machine."""
    filled = os.path.expandvars(folder)
    _require("$" not in filled, source, "data", folder, "a folder, or ${NAME} of an environment variable that is set")
    return filled


def _check_augmentation(how: Augmentation, source: str) -> None:
    for item in fields(how):
        value = getattr(how, item.name)
        if item.name.endswith("_share"):
            _require(0 <= value <= 1, source, item.name, value, "0..1")
    _require(how.crop_px > 0 and how.crop_px % 128 == 0, source, "crop_px", how.crop_px, "multiples of 128")
    _require(0 < how.scale_min < how.scale_max, source, "scale_min", how.scale_min, f"above 0, below {how.scale_max}")
    _require(set(how.sensor_scale) == set(SENSORS), source, "sensor_scale", how.sensor_scale, f"a scale for {SENSORS}")
    for sensor, scale in how.sensor_scale.items():
        _require(scale > 0, source, f"sensor_scale.{sensor}", scale, "more than 0")


def _checked(kind: type, content: object, source: str) -> dict[str, Any]:
    """The mapping, if its keys are the dataclass's and its values are of the declared types."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: is {type(content).__name__}; allowed: a mapping of settings")
    hints = get_type_hints(kind)
    known = {item.name: item for item in fields(kind)}
    for key, value in content.items():
        if key not in known:
            raise ConfigError(f"{source}: unknown key {key!r} = {value!r}; allowed: {', '.join(sorted(known))}")
        wanted = getattr(hints[key], "__origin__", hints[key])
        if wanted is float and type(value) is int:
            continue
        is_right = isinstance(value, dict if wanted is Augmentation else wanted)
        if not is_right or (wanted is not bool and isinstance(value, bool)):
            raise ConfigError(f"{source}: {key} = {value!r}; allowed: {wanted.__name__}")
    missing = [n for n, item in known.items() if item.default is item.default_factory is MISSING and n not in content]
    if missing:
        raise ConfigError(f"{source}: {missing[0]} is missing; allowed: {hints[missing[0]].__name__}")
    return dict(content)


def _require(holds: bool, source: str, key: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{source}: {key} = {value!r}; allowed: {allowed}")
