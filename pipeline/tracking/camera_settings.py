"""Policies and orientations of cameras, from the configuration and calibration files."""

from collections.abc import Mapping

from pipeline.config.calibration import Calibration
from pipeline.config.models import Config
from pipeline.tracking.bearing import Orientation
from pipeline.tracking.policy import Policy


def policies_of(config: Config, calibrations: Mapping[str, Calibration]) -> dict[str, Policy]:
    """Return the policy of each camera by id."""
    policies = {camera.id: Policy(config.model.role) for camera in config.cameras}
    return policies | {name: calibrated_policy(calibration) for name, calibration in calibrations.items()}


def calibrated_policy(calibration: Calibration) -> Policy:
    """Return the policy of a camera with this calibration."""
    return Policy(calibration.role, True, calibration.limits.alert_log_odds, calibration.frame_size_px)


def orientations_of(config: Config) -> dict[str, Orientation]:
    """Return the orientation of each camera whose pose is configured, by id."""
    return {
        camera.id: Orientation(
            camera.pose.azimuth_deg,
            camera.pose.elevation_deg,
            camera.pose.roll_deg,
            camera.pose.hfov_deg,
            camera.pose.sigma_deg,
        )
        for camera in config.cameras
        if camera.pose is not None
    }
