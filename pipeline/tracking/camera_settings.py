"""Policies, orientations and rules of cameras, from the configuration and calibration files."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pipeline.alerting.rules import Limits, Rule, When
from pipeline.alerting.schedule import DAYS, Period, Span, Weekly
from pipeline.alerting.triangulation import Place
from pipeline.alerting.zones import Area, Line, Sector, Zone
from pipeline.config.calibration import Calibration
from pipeline.config.camera import Camera, Pose
from pipeline.config.models import Config
from pipeline.config.rules import RuleConfig
from pipeline.tracking.axis import Mount
from pipeline.tracking.bearing import Orientation
from pipeline.tracking.policy import Policy
from pipeline.types import UAV, UNKNOWN, Severity

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def policies_of(config: Config, calibrations: Mapping[str, Calibration]) -> dict[str, Policy]:
    """Return the policy of each camera by id."""
    policies = {camera.id: Policy(config.model.role) for camera in config.cameras}
    return policies | {name: calibrated_policy(calibration) for name, calibration in calibrations.items()}


def calibrated_policy(calibration: Calibration) -> Policy:
    """Return the policy of a camera with this calibration."""
    return Policy(calibration.role, True, calibration.limits.alert_log_odds, calibration.frame_size_px)


def orientations_of(config: Config) -> dict[str, Orientation]:
    """Return the orientation of each camera that does not turn and whose pose is configured, by id."""
    return {
        camera.id: orientation(camera.pose)
        for camera in config.cameras
        if camera.pose is not None and camera.pose.onvif is None
    }


def mounts_of(config: Config) -> dict[str, Mount]:
    """Return what is fixed of each camera that turns, by id."""
    return {
        camera.id: Mount(camera.pose.roll_deg, camera.pose.sigma_deg, camera.pose.onvif.delay_s)
        for camera in config.cameras
        if camera.pose is not None and camera.pose.onvif is not None
    }


def orientation(pose: Pose) -> Orientation:
    """Return the orientation of a camera with this pose."""
    return Orientation(pose.azimuth_deg, pose.elevation_deg, pose.roll_deg, pose.hfov_deg, pose.sigma_deg)


def places_of(config: Config) -> dict[str, Place]:
    """Return where the cameras stand whose pose is complete, with a height, by id: their alerts may be one."""
    poses = {camera.id: camera.pose for camera in config.cameras if camera.pose is not None}
    return {
        name: Place(pose.lat, pose.lon, pose.height_m)
        for name, pose in poses.items()
        if "height_m" in pose.model_fields_set
    }


def rules_of(config: Config) -> dict[str, tuple[Rule, ...]]:
    """Return the rules of each camera by id, in their order; a rule whose zones a camera lacks is none of its rules."""
    return {
        camera.id: tuple(
            _rule(rule, zones if rule.zones is not None else None)
            for rule in config.rules
            if rule.cameras is None or camera.id in rule.cameras
            if (zones := _zones(camera, rule)) or rule.zones is None
        )
        for camera in config.cameras
    }


def _zones(camera: Camera, rule: RuleConfig) -> tuple[Zone, ...]:
    zones: dict[str, Zone] = {
        name: Line(*points) if len(points) == 2 else Area(tuple(points)) for name, points in camera.zones.items()
    }
    zones |= {name: Sector(sector.azimuth_deg, sector.elevation_deg) for name, sector in camera.sectors.items()}
    return tuple(zones[name] for name in rule.zones or () if name in zones)


def _rule(rule: RuleConfig, zones: tuple[Zone, ...] | None) -> Rule:
    return Rule(
        name=rule.name,
        alerts=rule.action == "alert",
        severity=Severity(rule.severity) if rule.severity is not None else None,
        cooldown_s=rule.cooldown_s,
        zones=zones,
        when=When(rule.when),
        dwell_s=rule.dwell_s or 0.0,
        labels=tuple(rule.labels or (UAV, UNKNOWN)),
        score=_limits(rule.min_score),
        log_odds=_limits(rule.min_log_odds),
        size_px=_limits(rule.min_size_px, rule.max_size_px),
        speed_px_s=_limits(rule.min_speed_px_s, rule.max_speed_px_s),
        duration_s=_limits(rule.min_duration_s),
        min_count=rule.min_count or 1,
        period=_period(rule),
        needs_arming=rule.needs_arming,
    )


def _limits(least: float | None, greatest: float | None = None) -> Limits:
    return Limits(-math.inf if least is None else least, math.inf if greatest is None else greatest)


def _period(rule: RuleConfig) -> Period | None:
    parts: list[Weekly | Span] = []
    if rule.schedule is not None:
        days = frozenset(DAYS.index(day) for day in rule.schedule.days)
        first_min, end_min = (_minutes(time) for time in (rule.schedule.from_, rule.schedule.to))
        parts.append(Weekly(days, first_min, end_min, ZoneInfo(rule.schedule.timezone)))
    if rule.between is not None:
        first_ns, end_ns = ((time - _EPOCH) // timedelta(microseconds=1) * 1000 for time in rule.between)
        parts.append(Span(first_ns, end_ns))
    return Period(tuple(parts)) if parts else None


def _minutes(time: str) -> int:
    """Return a time of day as minutes after midnight."""
    hours, _, minutes = time.partition(":")
    return 60 * int(hours) + int(minutes)
