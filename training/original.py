"""The original repository's YAML files, in our words.

In: its mapping of `dataset`, `trainer` and `model`, as it is.  Out: a mapping of ours for `training.config`.  Keys that
the original's own scripts do not read (the numbers of sequences, a pretrained_path that is no file) have no effect.
"""

from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

KEYS = {
    "dataset": (
        *("root", "num_workers", "batch_size", "image_size", "max_samples", "max_samples_val"),
        *("train_sequences", "val_sequences", "test_sequences"),
    ),
    "trainer": (
        *("pretrained_path", "epochs", "optimizer", "loss_fn", "lr", "gpu_id"),
        *("scheduler", "early_stop", "checkpoint"),
    ),
    "trainer.scheduler": ("type", "factor", "patience", "cooldown"),
    "trainer.early_stop": ("patience", "min_delta", "mode"),
    "trainer.checkpoint": ("save_dir",),
    "model": (
        *("name", "in_channels", "start_out_channels", "num_classes", "num_blocks", "num_padding", "is_upsample"),
    ),
}
OPTIMIZERS = {  # with the arguments that the original's code gives them
    "AdamW": {"kind": "adamw", "weight_decay": 0.01},
    "Adam": {"kind": "adam", "weight_decay": 0.0},
    "SGD": {"kind": "sgd", "weight_decay": 0.0, "momentum": 0.8},
}
LOSSES = {"DiceLoss": "dice", "BCEWithLogitsLoss": "bce", "IoULoss": "jaccard", "CompoundLoss": "compound"}
SCHEDULES = {"ReduceLROnPlateau": "plateau"}
ARGUMENTS = {  # of the network
    "name": "name",
    "in_channels": "in_channels",
    "start_out_channels": "start_out_channels",
    "num_classes": "num_class",
    "num_blocks": "size",
    "num_padding": "padding",
    "is_upsample": "upsample",
}
SEED = 42  # the original's, unless its environment variable says another


def is_original(content: object) -> bool:
    """Whether a configuration is one of the original's: ours has neither of these keys."""
    return isinstance(content, dict) and bool(content.keys() & {"dataset", "trainer"})


def translate(content: dict[str, Any], source: str) -> dict[str, Any]:
    """Raises ConfigError naming an unknown or missing key, or a value that we have no counterpart of."""
    _section({"": content}, "", tuple(name for name in KEYS if "." not in name), source)
    dataset, trainer, model = (_section(content, name, KEYS[name], source) for name in ("dataset", "trainer", "model"))
    stopping = _section(trainer, "early_stop", KEYS["trainer.early_stop"], source, "trainer.")
    folder = _section(trainer, "checkpoint", KEYS["trainer.checkpoint"], source, "trainer.").get("save_dir", "")
    weights = trainer.get("pretrained_path") or ""
    ours = {
        "data": _needed(dataset, "root", source, "dataset."),
        "epochs": _needed(trainer, "epochs", source, "trainer."),
        "batch": dataset.get("batch_size"),
        "workers": dataset.get("num_workers"),
        "max_samples": dataset.get("max_samples"),
        "max_check_samples": dataset.get("max_samples_val"),
        "sampling": {"kind": "whole", "size_px": _side_px(dataset.get("image_size", [512, 512]), source)},
        "network": {ARGUMENTS[key]: value for key, value in model.items()},
        "loss": _named(trainer, "loss_fn", LOSSES, source, "trainer."),
        "optimizer": {
            **_named(trainer, "optimizer", OPTIMIZERS, source, "trainer."),
            "lr": _needed(trainer, "lr", source, "trainer."),
        },
        "schedule": _schedule(trainer, source),
        "early_stopping": {key: value for key, value in stopping.items() if key != "mode"},
        "start_from": weights if Path(weights).is_file() else "",
        "device": "auto" if not trainer.get("gpu_id") else f"cuda:{trainer['gpu_id']}",
        "seed": SEED,
        "out": folder,
    }
    if stopping.get("mode", "min") != "min":
        raise ConfigError(f"{source}: trainer.early_stop.mode = {stopping['mode']!r}; allowed: min")
    return {key: value for key, value in ours.items() if value is not None}


def _schedule(trainer: dict[str, Any], source: str) -> dict[str, Any]:
    given = _section(trainer, "scheduler", KEYS["trainer.scheduler"], source, "trainer.")
    kind = _named(given, "type", SCHEDULES, source, "trainer.scheduler.")
    return {"kind": kind, **{key: value for key, value in given.items() if key != "type"}}


def _side_px(size: Any, source: str) -> int:
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or sides[0] != sides[1] or not isinstance(sides[0], int):
        raise ConfigError(f"{source}: dataset.image_size = {size!r}; allowed: two equal numbers of pixels")
    return sides[0]


def _section(
    parent: dict[str, Any], name: str, allowed: tuple[str, ...], source: str, prefix: str = ""
) -> dict[str, Any]:
    """A mapping inside of another, of known keys only; empty where it is left out."""
    section = parent.get(name) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{source}: {prefix}{name} = {section!r}; allowed: a mapping of {', '.join(allowed)}")
    for key, value in section.items():
        if key not in allowed:
            path = f"{prefix}{name}.{key}".removeprefix(".")
            raise ConfigError(f"{source}: unknown key {path!r} = {value!r}; allowed: {', '.join(allowed)}")
    return section


def _needed(section: dict[str, Any], key: str, source: str, prefix: str) -> Any:
    if section.get(key) is None:
        raise ConfigError(f"{source}: {prefix}{key} is missing")
    return section[key]


def _named(section: dict[str, Any], key: str, names: dict[str, Any], source: str, prefix: str) -> Any:
    value = _needed(section, key, source, prefix)
    if value not in names:
        raise ConfigError(f"{source}: {prefix}{key} = {value!r}; allowed: {', '.join(names)}")
    return names[value]
