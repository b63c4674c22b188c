"""Translation of the original repository's YAML files into our configuration.

In: its mapping of `dataset`, `trainer` and `model`.  Out: a mapping for `training.config`.  Keys that the original's
own scripts do not read (the numbers of sequences, a pretrained_path that is not a file) have no effect.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.config.yaml_file import Document
from training.schema import Count, Number, PositiveInt, Section, Text, validated

OPTIMIZERS = {  # with the arguments that the original's code gives them
    "AdamW": {"kind": "adamw", "weight_decay": 0.01},
    "Adam": {"kind": "adam", "weight_decay": 0.0},
    "SGD": {"kind": "sgd", "weight_decay": 0.0, "momentum": 0.8},
}
LOSSES = {"DiceLoss": "dice", "BCEWithLogitsLoss": "bce", "IoULoss": "jaccard", "CompoundLoss": "compound"}
SEED = 42  # the original's, unless its environment variable says another


def _side_px(size: object) -> object:
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or sides[0] != sides[1] or not isinstance(sides[0], int):
        raise ValueError("must be two equal numbers of pixels")
    return sides[0]


class Dataset(Section):
    """The original's section `dataset`."""

    root: Text
    num_workers: Count | None = None
    batch_size: PositiveInt | None = None
    image_size: Annotated[PositiveInt, BeforeValidator(_side_px)] = 512
    max_samples: Count | None = None
    max_samples_val: Count | None = None
    train_sequences: Any = None
    val_sequences: Any = None
    test_sequences: Any = None


class Scheduler(Section):
    """The original's section `trainer.scheduler`."""

    type: Literal["ReduceLROnPlateau"]
    factor: Number | None = None
    patience: Count | None = None
    cooldown: Count | None = None


class EarlyStop(Section):
    """The original's section `trainer.early_stop`."""

    patience: Count | None = None
    min_delta: Number | None = None
    mode: Literal["min"] = "min"


class Checkpoint(Section):
    """The original's section `trainer.checkpoint`."""

    save_dir: Text = ""


class Trainer(Section):
    """The original's section `trainer`."""

    pretrained_path: Text | None = None
    epochs: PositiveInt
    optimizer: Literal["AdamW", "Adam", "SGD"]
    loss_fn: Literal["DiceLoss", "BCEWithLogitsLoss", "IoULoss", "CompoundLoss"]
    lr: Number
    gpu_id: Any = None
    scheduler: Scheduler
    early_stop: EarlyStop | None = None
    checkpoint: Checkpoint | None = None


class Network(Section):
    """The original's section `model`: the network's arguments, under our names when dumped by alias."""

    name: Any = None
    in_channels: Any = None
    start_out_channels: Any = None
    num_classes: Any = Field(None, serialization_alias="num_class")
    num_blocks: Any = Field(None, serialization_alias="size")
    num_padding: Any = Field(None, serialization_alias="padding")
    is_upsample: Any = Field(None, serialization_alias="upsample")


class OriginalConfig(Section):
    """A configuration file of the original repository."""

    dataset: Dataset
    trainer: Trainer
    model: Network | None = None


def is_original(content: object) -> bool:
    """Return whether a configuration is one of the original's: ours has neither of these keys."""
    return isinstance(content, dict) and bool(content.keys() & {"dataset", "trainer"})


def translate(document: Document, source: str) -> dict[str, Any]:
    """Return our mapping; raise ConfigError naming every key or value that has no counterpart."""
    original = validated(OriginalConfig, document.value, source, document.line)
    dataset, trainer = original.dataset, original.trainer
    weights = trainer.pretrained_path or ""
    ours = {
        "data": dataset.root,
        "epochs": trainer.epochs,
        "batch": dataset.batch_size,
        "workers": dataset.num_workers,
        "max_samples": dataset.max_samples,
        "max_check_samples": dataset.max_samples_val,
        "sampling": {"kind": "whole", "size_px": dataset.image_size},
        "network": original.model.model_dump(by_alias=True, exclude_unset=True) if original.model else {},
        "loss": LOSSES[trainer.loss_fn],
        "optimizer": {**OPTIMIZERS[trainer.optimizer], "lr": trainer.lr},
        "schedule": {"kind": "plateau", **trainer.scheduler.model_dump(exclude={"type"}, exclude_none=True)},
        "early_stopping": (trainer.early_stop or EarlyStop()).model_dump(exclude={"mode"}, exclude_none=True),
        "start_from": weights if Path(weights).is_file() else "",
        "device": f"cuda:{trainer.gpu_id}" if trainer.gpu_id else "auto",
        "seed": SEED,
        "out": trainer.checkpoint.save_dir if trainer.checkpoint else "",
    }
    return {key: value for key, value in ours.items() if value is not None}
