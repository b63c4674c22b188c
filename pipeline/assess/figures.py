"""The figures of an assessment: rates and probabilities with exact bounds, claims, delays, limits.  Pure.

An alarm that an operator confirmed is no false alarm; one that nobody reviewed counts as false.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from pipeline.assess.observations import MAX_LOG_ODDS, Alarm, CameraObservation, Role, SeededEncounter
from pipeline.bounds import clopper_pearson, poisson_rate

CONFIDENCE = 0.95
ONE_SIDED = 2 * CONFIDENCE - 1  # the two-sided confidence whose upper bound holds with CONFIDENCE
SIZE_EDGES_PX = (5.0, 8.0, 12.0, 20.0)


class Rate(msgspec.Struct, frozen=True):
    """False alarms an hour, and what can be claimed of them.

    Attributes:
        alarms: all of them.
        confirmed: those that an operator confirmed as drones.
        dismissed: those that an operator dismissed.
        hours: of observation.
        per_hour: false alarms an hour; None without any observation.
        low: lower bound, two-sided 95%.
        high: upper bound, two-sided 95%; None: no bound.
        at_most: upper bound that holds with 95% by itself: the claim; None: no bound.
        hours_needed: further hours without a false alarm until `at_most` is the target.
    """

    alarms: int
    confirmed: int
    dismissed: int
    hours: float
    per_hour: float | None
    low: float
    high: float | None
    at_most: float | None
    hours_needed: float


class Detection(msgspec.Struct, frozen=True):
    """Probability of detection of a group of seeded encounters, with two-sided 95% bounds; None without encounters."""

    encounters: int
    detected: int
    suppressed: int  # not detected, since the track was taken for a distractor
    probability: float | None
    low: float
    high: float
    delay_median_s: float | None
    delay_p90_s: float | None


class SizeBin(msgspec.Struct, frozen=True):
    """Encounters of one range of apparent sizes."""

    from_px: float
    to_px: float
    detection: Detection


class OperatingPoint(msgspec.Struct, frozen=True):
    """What would have remained, had tracks below these log-odds raised no alert."""

    log_odds: float
    alarms_per_hour: float
    at_most: float
    probability: float | None


class Figures(msgspec.Struct, frozen=True):
    """The figures of one camera, or of a site.

    Attributes:
        name: id of the camera, or "all cameras".
        role: of the operating point.
        rate: its false alarms.
        detection: all of its encounters.
        by_size: the same by apparent size.
        curve: operating points, from the present one upwards.
        limit: the lowest log-odds that keep to the target with 95% confidence; None: the hours do not suffice.
    """

    name: str
    role: Role
    rate: Rate
    detection: Detection
    by_size: list[SizeBin]
    curve: list[OperatingPoint]
    limit: float | None


def camera_figures(camera: CameraObservation, role: Role, target_per_hour: float) -> Figures:
    """Return the figures of one camera."""
    return _figures(camera.id, role, camera.alarms, camera.encounters, camera.hours, target_per_hour)


def site_figures(cameras: Sequence[CameraObservation], role: Role, target_per_hour: float) -> Figures:
    """Return the figures of all cameras together, in hours of one camera."""
    alarms = [alarm for camera in cameras for alarm in camera.alarms]
    encounters = [encounter for camera in cameras for encounter in camera.encounters]
    return _figures("all cameras", role, alarms, encounters, sum(camera.hours for camera in cameras), target_per_hour)


def hours_for_claim(false_alarms: int, target_per_hour: float) -> float:
    """Return the hours in which so many false alarms still prove the target with 95% (15.0 h for none at 0.2/h)."""
    return poisson_rate(false_alarms, 1.0, ONE_SIDED)[1] / target_per_hour


def _figures(
    name: str,
    role: Role,
    alarms: Sequence[Alarm],
    encounters: Sequence[SeededEncounter],
    hours: float,
    target_per_hour: float,
) -> Figures:
    curve = _curve(alarms, encounters, hours)
    return Figures(
        name,
        role,
        _rate(alarms, hours, target_per_hour),
        _detection(encounters),
        [
            SizeBin(low, high, _detection([one for one in encounters if low <= one.size_px < high]))
            for low, high in zip(SIZE_EDGES_PX[:-1], (*SIZE_EDGES_PX[1:-1], math.inf), strict=True)
        ],
        curve,
        next((point.log_odds for point in curve if point.at_most <= target_per_hour), None),
    )


def _rate(alarms: Sequence[Alarm], hours: float, target_per_hour: float) -> Rate:
    verdicts = [alarm.verdict for alarm in alarms]
    false = len(alarms) - verdicts.count("true")
    low, high = poisson_rate(false, hours, CONFIDENCE)
    return Rate(
        alarms=len(alarms),
        confirmed=verdicts.count("true"),
        dismissed=verdicts.count("false"),
        hours=hours,
        per_hour=false / hours if hours else None,
        low=low,
        high=high if hours else None,
        at_most=poisson_rate(false, hours, ONE_SIDED)[1] if hours else None,
        hours_needed=max(0.0, hours_for_claim(false, target_per_hour) - hours),
    )


def _detection(encounters: Sequence[SeededEncounter]) -> Detection:
    delays_s = [one.delay_s for one in encounters if one.delay_s is not None]
    low, high = clopper_pearson(len(delays_s), len(encounters), CONFIDENCE)
    return Detection(
        encounters=len(encounters),
        detected=len(delays_s),
        suppressed=sum(one.suppressed_as is not None for one in encounters),
        probability=len(delays_s) / len(encounters) if encounters else None,
        low=low,
        high=high,
        delay_median_s=float(np.median(delays_s)) if delays_s else None,
        delay_p90_s=float(np.quantile(delays_s, 0.9)) if delays_s else None,
    )


def _curve(alarms: Sequence[Alarm], encounters: Sequence[SeededEncounter], hours: float) -> list[OperatingPoint]:
    """Return one point for every number of false alarms that is left, the present one first."""
    if not hours:
        return []
    false = sorted(alarm.log_odds for alarm in alarms if alarm.verdict != "true")
    seen = [one.log_odds for one in encounters if one.log_odds is not None]
    # Just above an alarm's log-odds, which are rounded to thousandths.
    thresholds = [-MAX_LOG_ODDS, *(round(value + 0.001, 3) for value in sorted(set(false)))]
    points = []
    for threshold in thresholds:
        left = sum(value >= threshold for value in false)
        detected = sum(value >= threshold for value in seen)
        points.append(
            OperatingPoint(
                threshold,
                left / hours,
                poisson_rate(left, hours, ONE_SIDED)[1],
                detected / len(encounters) if encounters else None,
            )
        )
    return points
