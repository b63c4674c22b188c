"""What a hyper-parameter sweep tries: keys of the training configuration, and how trials are compared and stopped.

In: a YAML file.  Out: a `Sweep`, or a ConfigError with one line for each fault.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.yaml_file import Key, read_yaml
from pipeline.errors import ConfigError
from training.config import TrainingConfig, load_config
from training.schema import Count, Number, PositiveInt, Section, Text, validated


class Range(Section):
    """Values of one key: numbers drawn evenly, or evenly in their logarithm, or one of a list."""

    uniform: tuple[Number, Number] | None = None
    log: tuple[Number, Number] | None = None  # both above 0
    choice: Annotated[list[Any], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Range":
        kinds = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"has {', '.join(kinds) or 'nothing'}; must have one of uniform, log, choice")
        ends = self.uniform or self.log
        if ends is not None and (ends[0] >= ends[1] or (self.log is not None and ends[0] <= 0)):
            raise ValueError(f"{kinds[0]} = {list(ends)}; must be two numbers that rise, above 0 for log")
        return self

    @property
    def extremes(self) -> Sequence[Any]:
        """All choices, or both ends."""
        return self.choice or self.uniform or self.log or ()


class Sweep(Section):
    """All settings of a sweep."""

    space: dict[Text, Range] = Field(min_length=1)  # by key of the training configuration, as for --set
    trials: PositiveInt = 16
    metric: Text = "val_loss"  # a column of the checks in log.csv
    mode: Literal["min", "max"] = "min"
    grace_steps: PositiveInt = 1000  # of each trial, before it may be stopped
    reduction: Annotated[int, Field(ge=2)] = (
        3  # at each rung, this many times as late as the last, the best 1 of so many
    )
    seed: Count = 0


def load_sweep(path: Path) -> Sweep:
    """Return the sweep in a file; raise ConfigError with one line for each fault."""
    document = read_yaml(path)

    def line_of(key: Key) -> int | None:
        return document.line(key)

    return validated(Sweep, document.value, str(path), line_of)


def changes_of(values: dict[str, Any]) -> list[str]:
    """Return a trial's values as changes of the configuration, as for --set."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def check_space(sweep: Sweep, config: Path, changes: Sequence[str]) -> Iterator[TrainingConfig]:
    """Yield the configuration with each end of each range; raise ConfigError for the first that is invalid."""
    for key, values in sweep.space.items():
        for value in values.extremes:
            try:
                yield load_config(config, [*changes, *changes_of({key: value})])
            except ConfigError as error:
                raise ConfigError(f"space.{key}: {error}") from None
