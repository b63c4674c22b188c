"""How a camera's tracks become alerts: the role of the operating point, and what its calibration allows."""

from collections.abc import Mapping
from dataclasses import dataclass

from model.metadata import Role
from pipeline.config.calibration import Calibration
from pipeline.config.models import Config


@dataclass(frozen=True)
class Policy:
    """The policy of one camera.

    Attributes:
        role: which limit of the checkpoint confirms a track.
        calibrated: the camera was assessed with this checkpoint, so its distractors may be suppressed.
        alert_log_odds: least mean log-odds of an alerted track, as the assessment chose it; None: it chose none.
    """

    role: Role = "alert"
    calibrated: bool = False
    alert_log_odds: float | None = None


def policies_of(config: Config, calibrations: Mapping[str, Calibration]) -> dict[str, Policy]:
    """Return the policy of each camera by id."""
    policies = {camera.id: Policy(config.model.role) for camera in config.cameras}
    for name, calibration in calibrations.items():
        policies[name] = Policy(config.model.role, True, calibration.limits.alert_log_odds)
    return policies
