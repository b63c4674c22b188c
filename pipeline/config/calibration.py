"""A camera's calibration: what `dasnet assess` learned of it, in a JSON file that `cameras[].calibration` names.

It is validated like a configuration: unknown keys are rejected, errors name file, line, key, value and what is
expected.
"""

from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from model.metadata import Role
from pipeline.config.camera import Camera
from pipeline.config.faults import explain
from pipeline.config.models import Config
from pipeline.config.section import Identifier
from pipeline.config.yaml_file import read_yaml
from pipeline.errors import ConfigError
from pipeline.types import Band

VERSION = 1
MAX_CELLS = 64  # of a grid, in each direction

Side = Annotated[int, Field(ge=1, le=16384)]
Cell = Annotated[float, Field(ge=0)]
Grid = Annotated[
    list[Annotated[list[Cell], Field(min_length=1, max_length=MAX_CELLS)]], Field(min_length=1, max_length=MAX_CELLS)
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Limits(_Part):
    """Limits chosen on the camera's own hours."""

    alert_log_odds: Annotated[float, Field(ge=-20, le=20)] | None
    """Log-odds of a track's score below which it raises no alert; none: the hours do not suffice to choose one."""
    alarms_per_hour: Annotated[float, Field(gt=0)]
    """Upper bound (95%) that alarms above it keep to."""


class Calibration(_Part):
    """The content of a calibration file."""

    version: Literal[1]
    """Of this format."""
    camera: Identifier
    """Id of the camera."""
    band: Band
    """Its band."""
    frame_size_px: tuple[Side, Side]
    """Width and height of its frames."""
    checkpoint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the checkpoint that it was assessed with."""
    role: Role
    """Role of the operating point."""
    hours: Annotated[float, Field(gt=0)]
    """Hours of observation."""
    created_utc_ns: Annotated[int, Field(ge=0)]
    """When the assessment ended."""
    limits: Limits
    noise_map: Grid
    """Usual change in each cell of a grid over the frame, grey levels, row by row."""

    @field_validator("noise_map")
    @classmethod
    def _rectangular(cls, grid: list[list[float]]) -> list[list[float]]:
        lengths = {len(row) for row in grid}
        if len(lengths) > 1:
            raise ValueError(f"rows have {min(lengths)} to {max(lengths)} cells; must have equally many")
        return grid

    def camera_fault(self, camera: Camera) -> str | None:
        """Return why this is not the calibration of that camera, or None where it is."""
        for key, own, expected in (("camera", self.camera, camera.id), ("band", self.band, camera.band)):
            if own != expected:
                return f"{key}: must be {expected} (given: {own})"
        return None

    def checkpoint_fault(self, sha256: str) -> str | None:
        """Return why the calibration does not apply to the checkpoint with that digest, or None where it does."""
        if self.checkpoint == sha256:
            return None
        return f"checkpoint: must be {sha256[:12]}..., the one in use (given: {self.checkpoint[:12]}...); assess again"

    def role_fault(self, role: Role) -> str | None:
        """Return why the calibration does not apply to the role in use, or None where it does."""
        if self.role == role:
            return None
        return f"role: must be {role}, the model.role in use (given: {self.role}); assess again"


def read_calibration(path: Path) -> Calibration:
    """Read and validate a calibration file.

    Raises:
        ConfigError: With one line for each fault.
    """
    document = read_yaml(path)  # JSON is YAML
    if not isinstance(document.value, dict):
        raise ConfigError(f"{path}: must be a calibration file, written by `dasnet assess`")
    try:
        return Calibration.model_validate(document.value)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(path, document, fault, Calibration) for fault in error.errors())) from None


def calibrations_of(config: Config, checkpoint_sha256: str) -> dict[str, Calibration]:
    """Return the calibration of each camera that has one for this checkpoint, by camera id.

    One that cannot be used, for whatever reason, is logged, and the camera treated as uncalibrated: the surveillance of
    a camera does not end by a side issue.
    """
    calibrations = {}
    for camera in config.cameras:
        if camera.calibration is None:
            continue
        try:
            calibration = read_calibration(camera.calibration)
            fault = calibration.camera_fault(camera) or calibration.checkpoint_fault(checkpoint_sha256)
            fault = fault or calibration.role_fault(config.model.role)
        except ConfigError as error:
            fault = str(error)
        if fault is None:
            calibrations[camera.id] = calibration
        else:
            structlog.get_logger().warning("calibration not used", camera=camera.id, reason=fault)
    return calibrations
