"""Policies from the configuration and calibration files."""

from collections.abc import Mapping

from pipeline.config.calibration import Calibration
from pipeline.config.models import Config
from pipeline.tracking.policy import Policy


def policies_of(config: Config, calibrations: Mapping[str, Calibration]) -> dict[str, Policy]:
    """Return the policy of each camera by id."""
    policies = {camera.id: Policy(config.model.role) for camera in config.cameras}
    return policies | {name: calibrated_policy(calibration) for name, calibration in calibrations.items()}


def calibrated_policy(calibration: Calibration) -> Policy:
    """Return the policy of a camera with this calibration."""
    return Policy(calibration.role, True, calibration.limits.alert_log_odds, calibration.frame_size_px)
