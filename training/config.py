"""A training run's settings, from one YAML file.

In: the file, in our format or the original repository's (see `training.original`), and changes to single keys.
Out: `TrainingConfig`.  Unknown keys and wrong values raise ConfigError naming file, key, value and what is expected.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from model.metadata import Preprocessing
from pipeline.config.yaml_file import Document, Key, parse_yaml, read_yaml
from pipeline.errors import ConfigError
from training.datasets import CLASSES, SENSORS, SPLITS
from training.original import is_original, translate
from training.schema import (
    Count,
    Flag,
    NotNegative,
    Number,
    Positive,
    PositiveInt,
    Section,
    Share,
    Text,
    one_of,
    validated,
)

Split = Annotated[Text, one_of(SPLITS)]
Sensor = Annotated[Text, one_of(SENSORS)]
CropSize = Annotated[PositiveInt, Field(multiple_of=128)]
Decay = Annotated[Number, Field(ge=0, lt=1)]


class Augmentation(Section):
    """How crops are drawn and augmented; shares are of all samples, scales multiply the sensor's own."""

    crop_px: CropSize = 256
    sensor_scale: dict[Sensor, Positive] = Field(default={"infrared": 1.0, "visible": 0.5})
    scale_min: Positive = 0.4
    scale_max: Number = 2.0
    drone_share: Share = 0.6
    bird_share: Share = 0.2  # airplanes and helicopters share the rest
    around_object_share: Share = 0.85
    rotation_share: Share = 0.3
    paste_share: Share = 0.25
    decoy_share: Share = 0.25
    overlay_share: Share = 0.2
    pasted_px: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(default=[5, 44])  # longer side
    grey: Flag = True  # training crops and the network's input in use are converted to greyscale
    invert_share: Share = 0.25

    @field_validator("sensor_scale")
    @classmethod
    def _has_every_sensor(cls, scales: dict[str, float]) -> dict[str, float]:
        if set(scales) != set(SENSORS):
            raise ValueError(f"sampling.augmentation.sensor_scale = {scales}; must have {' and '.join(SENSORS)}")
        return scales

    @model_validator(mode="after")
    def _scales_are_ordered(self) -> "Augmentation":
        if self.scale_min >= self.scale_max:
            raise ValueError(f"sampling.augmentation.scale_min = {self.scale_min}; must be below {self.scale_max}")
        if self.pasted_px[0] > self.pasted_px[1]:
            raise ValueError(f"sampling.augmentation.pasted_px = {self.pasted_px}; must be [least, most]")
        return self

    @property
    def class_weights(self) -> tuple[float, ...]:
        """Weights (uav, bird, airplane, helicopter) under which the samples of all classes weigh the same."""
        rest = (1 - self.drone_share - self.bird_share) / 2
        shares = (self.drone_share, self.bird_share, rest, rest)
        return tuple(1 / (len(shares) * share) if share > 0 else 1.0 for share in shares)


class WholeFrames(Section):
    """Whole frames, stretched to a square, without augmentation: the paper's sampling."""

    kind: Literal["whole"] = "whole"
    size_px: PositiveInt = 512

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of whole frames in validation and inference."""
        return Preprocessing(mode="stretch", size=self.size_px)


class CropSampling(Section):
    """Augmented crops at the sensor's own scale: ours (see `training.augment`)."""

    kind: Literal["crops"] = "crops"
    small_share: Share = 0.0  # of the steps before the decay: small_batch crops of small_crop_px instead
    small_batch: PositiveInt = 8
    small_crop_px: CropSize = 128
    augmentation: Augmentation = Augmentation()

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of whole frames in validation and inference."""
        return Preprocessing("scale", scale=self.augmentation.sensor_scale, grey=self.augmentation.grey)


class Optimizer(Section):
    """The optimizer and its hyperparameters."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Positive = 1e-4  # the peak of the schedule
    weight_decay: NotNegative = 1e-2  # on matrices only
    momentum: Decay = 0.9  # of sgd


class Plateau(Section):
    """The learning rate is multiplied by `factor` after `patience` checks without a lower validation loss."""

    kind: Literal["plateau"] = "plateau"
    factor: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    patience: Count = 15
    cooldown: Count = 5


class Cosine(Section):
    """Linear warm-up, then half a cosine down to 0."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: Count = 0


class Trapezoid(Section):
    """Linear warm-up, constant, then linear decay to 0 over the last `decay_steps`."""

    kind: Literal["trapezoid"] = "trapezoid"
    warmup_steps: Count = 150
    decay_steps: Count = 0


class EarlyStopping(Section):
    """Stop after `patience` checks in which the validation loss did not fall by `min_delta`; 0: never."""

    patience: Count = 0
    min_delta: NotNegative = 0.001


class JudgeTraining(Section):
    """How the judge is trained, after the network (see `training.judge`); on videos only."""

    steps: PositiveInt = 3000
    batch: PositiveInt = 96  # chips per step
    lr: Positive = 2e-3  # the peak of the schedule
    every_s: Positive = 0.5  # mean time between two samples of a clip
    max_chips: PositiveInt = 60000
    check_splits: list[Split] = Field(default=["val"], min_length=1)  # held out, to calibrate on


class Distillation(Section):
    """A trained network whose logits are learned beside the labels (see `training.distillation`)."""

    teacher: Text  # a checkpoint with the network's classes and preprocessing
    weight: Positive = 1.0  # of the distance of the logits


class TrainingConfig(Section):
    """All settings of a training run."""

    data: Text  # a folder
    steps: Count = 0  # either this or epochs
    epochs: Count = 0
    batch: PositiveInt = 24  # images per step, in each process
    network: dict[Text, Any] = Field(default={"name": "dasnet", "num_class": 1}, validate_default=True)
    sampling: WholeFrames | CropSampling = Field(default=WholeFrames(), discriminator="kind")
    loss: Literal["dice", "bce", "jaccard", "compound", "field"] = "dice"
    optimizer: Optimizer = Optimizer()
    schedule: Plateau | Cosine | Trapezoid = Field(default=Plateau(), discriminator="kind")
    early_stopping: EarlyStopping = EarlyStopping()
    clip_norm: NotNegative = 0.0  # of the gradient; 0: not clipped
    ema: Decay = 0.0  # decay of the moving average of the weights; 0: none
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # auto: bf16 where the device computes in it
    distillation: Distillation | None = None
    output_bias: Number = 0.0  # initial bias of the output layers; below 0 where few pixels are targets
    start_from: Text = ""  # a checkpoint with the initial weights; of a wider DAS-Net, its strongest channels
    spread_first_class: Flag = False  # copy the first class's filters to all: an object detector learns classes
    seed: Count = 0
    device: Text = "auto"  # auto, cpu, cuda or cuda:N
    threads: PositiveInt = 2  # CPU threads of the network
    workers: Count = 0  # processes that prefetch samples; 0: the training process itself, between steps
    splits: list[Split] = Field(default=["train"], min_length=1)
    clips: list[Text] = Field(default=[])  # names; empty: all of the splits
    sensors: list[Sensor] = Field(default=list(SENSORS), min_length=1)  # to train on; checks use all sensors
    check_splits: list[Split] = Field(default=["val"], min_length=1)
    check_clips: list[Text] = Field(default=[])
    max_samples: Count = 0  # frames, drawn by the seed; 0: all
    max_check_samples: Count = 0
    cache: Text = ".cache/training"
    every_drone_frame: PositiveInt = 1
    every_other_frame: PositiveInt = 1
    save_every_steps: PositiveInt = 200
    check_every_steps: Count = 0  # 0: after each epoch
    judge: JudgeTraining | None = None  # none is trained
    tensorboard: Flag = False
    out: Text = ""  # folder of the run; `--out` overrides it

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of the network's outputs."""
        return CLASSES[: self.network["num_class"]]

    @field_validator("data")
    @classmethod
    def _expand(cls, folder: str) -> str:
        """Replace environment variables: the data's folder differs between machines."""
        filled = os.path.expandvars(folder)
        if "$" in filled:
            raise ValueError("expected a folder, or ${NAME} of an environment variable that is set")
        return filled

    @field_validator("network")
    @classmethod
    def _fill(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Fill in name and number of classes; other arguments are checked when the network is built."""
        network = {"name": "dasnet", "num_class": 1, **given}
        if network["num_class"] not in range(1, len(CLASSES) + 1):
            raise ValueError(f"network.num_class = {network['num_class']!r}; must be 1 to {len(CLASSES)}")
        if network.get("in_channels", 3) != 3:
            raise ValueError(f"network.in_channels = {network['in_channels']!r}; must be 3")
        return network

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainingConfig":
        if (self.steps > 0) == (self.epochs > 0):
            raise ValueError(f"steps = {self.steps}, epochs = {self.epochs}; must be one of them, above 0")
        if self.judge and (both := sorted({*self.judge.check_splits} & {*self.splits})):
            raise ValueError(f"judge.check_splits = {self.judge.check_splits}; must be others than splits, not {both}")
        schedule = self.schedule
        if isinstance(schedule, Trapezoid) and self.steps and schedule.decay_steps > self.steps:
            raise ValueError(f"schedule.decay_steps = {schedule.decay_steps}; must be 0 to {self.steps}")
        if isinstance(self.sampling, CropSampling):  # checked by detection rates, without a validation loss
            if isinstance(schedule, Plateau):
                raise ValueError("schedule.kind = 'plateau'; must be cosine or trapezoid with crops")
            if self.early_stopping.patience:
                raise ValueError(f"early_stopping.patience = {self.early_stopping.patience}; must be 0 with crops")
        return self


def load_config(path: str | Path, changes: Sequence[str] = ()) -> TrainingConfig:
    """Return the configuration in a file; raise ConfigError with one line for each fault.

    `changes` are "key=value" with dotted keys and YAML values, e.g. "optimizer.lr=1e-3".
    """
    document = read_yaml(Path(path))
    content = document.value
    if is_original(content):
        content, document = translate(document, str(path)), Document(None, {})
    changed = []
    for change in changes:
        key, value = _parsed_change(change)
        content = _merged(content, value)
        changed.append(key)

    def line_of(key: Key) -> int | None:
        return None if any(key[: len(other)] == other for other in changed) else document.line(key)

    return validated(TrainingConfig, content, str(path), line_of)


def parse_config(content: object, source: str = "config") -> TrainingConfig:
    """Return the configuration of a plain mapping; raise ConfigError with one line for each fault."""
    return validated(TrainingConfig, content, source, lambda _: None)


def snapshot(config: TrainingConfig) -> str:
    """Return the configuration as YAML, from which `load_config` makes an equal one."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def _parsed_change(change: str) -> tuple[Key, object]:
    """Return the changed key, and the mapping that changes it."""
    key, equals, text = change.partition("=")
    names = tuple(key.split("."))
    if not equals or not all(names):
        raise ConfigError(f"--set {change}: must be key=value, e.g. optimizer.lr=0.001")
    value = parse_yaml(text, f"--set {key}").value
    for name in reversed(names):
        value = {name: value}
    return names, value


def _merged(content: Any, change: Any) -> Any:
    if not isinstance(content, dict) or not isinstance(change, dict):
        return change
    return {**content, **{key: _merged(content.get(key), value) for key, value in change.items()}}
