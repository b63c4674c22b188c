"""What all sections of a site's configuration share: unknown keys are rejected, paths resolved."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


def _from_file_folder(path: Path, info: ValidationInfo) -> Path:
    return info.context["folder"] / _expand_user(path) if info.context else path


def _from_current_folder(path: Path, info: ValidationInfo) -> Path:
    return _expand_user(path).absolute() if info.context else path


def _expand_user(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("home folder unknown; must be the path of an existing user's home, or without ~") from None


def _all_different(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} stands twice; must be different names")
    return names


Names = Annotated[list[str], Field(min_length=1), AfterValidator(_all_different)]
SitePath = Annotated[Path, AfterValidator(_from_file_folder)]
"""A path relative to the configuration file."""
WorkingPath = Annotated[Path, AfterValidator(_from_current_folder)]
"""A path relative to the current folder."""


class Section(BaseModel):
    """A section: a mapping whose keys are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
