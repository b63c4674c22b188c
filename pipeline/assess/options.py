"""The options of `dasnet assess`."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.assess.encounters import MAX_PER_HOUR
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class AssessOptions:
    """The command-line options; see `dasnet assess --help`."""

    hours: float
    out: Path | None = None
    seed: int = 0
    encounters_per_hour: float = 60.0
    target_per_hour: float = 0.2

    def check(self) -> None:
        """Raise ConfigError for a rate of encounters that leaves no time between them."""
        if self.encounters_per_hour > MAX_PER_HOUR:
            raise ConfigError(f"--encounters {self.encounters_per_hour:g}: must be at most {MAX_PER_HOUR:.0f} an hour")
