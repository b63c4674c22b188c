"""Geometry of two bearings: true positions are found within their stated errors, wherever on the Earth."""

import math

import msgspec
import numpy as np
import pytest

from pipeline.alerting.triangulation import Crossing, Place, crossing, line_of_sight
from pipeline.geodesy import destination, earth_fixed, geodetic, local_axes
from pipeline.types import Bearing, Position

RNG = np.random.default_rng(7)


def moved(place: Place, azimuth_deg: float, distance_m: float, up_m: float) -> Place:
    lat, lon = destination(place.lat, place.lon, azimuth_deg, distance_m)
    return Place(lat, lon, place.height_m + up_m)


def seen(camera: Place, target: Place, sigma_deg: float = 0.2, wrong_deg: tuple[float, float] = (0, 0)) -> Bearing:
    there = earth_fixed(target.lat, target.lon, target.height_m) - earth_fixed(camera.lat, camera.lon, camera.height_m)
    east, north, up = local_axes(camera.lat, camera.lon) @ there
    elevation_deg = math.degrees(math.atan2(up, math.hypot(east, north))) + wrong_deg[1]
    across = max(1e-6, math.cos(math.radians(elevation_deg)))
    azimuth_deg = math.degrees(math.atan2(east, north)) + wrong_deg[0] / across
    return Bearing(azimuth_deg % 360, elevation_deg, sigma_deg / across, sigma_deg)


def distance_m(one: Place, two: Place) -> float:
    ends = (earth_fixed(each.lat, each.lon, each.height_m) for each in (one, two))
    return float(np.linalg.norm(next(ends) - next(ends)))


def scene(number: int) -> tuple[Place, Place, Place]:
    """Two cameras that are 50 to 500 m apart, and a target between 100 and 1500 m away, anywhere on the Earth."""
    rng = np.random.default_rng(number)
    first = Place(float(rng.uniform(-80, 80)), float(rng.uniform(-180, 180)), float(rng.uniform(0, 3000)))
    second = moved(first, float(rng.uniform(0, 360)), float(rng.uniform(50, 500)), float(rng.uniform(-20, 20)))
    target = moved(first, float(rng.uniform(0, 360)), float(rng.uniform(100, 1500)), float(rng.uniform(-20, 400)))
    return first, second, target


@pytest.mark.parametrize("number", range(60))
def test_exact_bearings_give_the_place(number: int) -> None:
    first, second, target = scene(number)
    found = crossing(*(line_of_sight(each, seen(each, target, 0.01)) for each in (first, second)))
    if found is None:  # nearly on one line with both cameras
        return
    position = found.position()
    assert distance_m(Place(position.lat, position.lon, position.height_m), target) < 0.2
    assert msgspec.json.decode(msgspec.json.encode(position), type=Position) == position, "it can be stored and sent"
    assert found.miss_sigmas < 0.1
    assert found.ranges_m == pytest.approx((distance_m(first, target), distance_m(second, target)), rel=1e-3, abs=0.2)


def test_errors_are_as_large_as_stated() -> None:
    sigma_deg, ratios, misses = 0.2, [], []
    for number in range(400):
        first, second, target = scene(number)
        sights = [
            line_of_sight(each, seen(each, target, sigma_deg, tuple(RNG.normal(0, sigma_deg, 2))))
            for each in (first, second)
        ]
        found = crossing(*sights)
        if found is not None:
            error = found.point - earth_fixed(target.lat, target.lon, target.height_m)
            ratios.append(float(error @ np.linalg.inv(found.covariance) @ error))
            misses.append(found.miss_sigmas)
    assert len(ratios) > 250
    assert 2.4 < np.mean(ratios) < 3.8, "chi-squared of three degrees of freedom"
    assert 0.8 < np.sqrt(np.mean(np.square(misses))) < 1.2, "and of one"


@pytest.mark.parametrize("number", range(20))
def test_the_cameras_may_be_exchanged(number: int) -> None:
    first, second, target = scene(number)
    sights = [line_of_sight(each, seen(each, target, wrong_deg=(0.1, -0.1))) for each in (first, second)]
    one, two = crossing(*sights), crossing(*reversed(sights))
    assert (one is None) == (two is None)
    if one is not None and two is not None:
        assert one.position() == two.position() and one.ranges_m == pytest.approx(two.ranges_m[::-1])


def test_lines_that_part_or_run_side_by_side_cross_nowhere() -> None:
    first = Place(48, 11, 500)
    second = moved(first, 90, 200, 0)
    north, apart = Bearing(0, 10, 0.2, 0.2), Bearing(40, 10, 0.2, 0.2)
    assert crossing(line_of_sight(first, north), line_of_sight(second, north)) is None
    assert crossing(line_of_sight(first, Bearing(320, 10, 0.2, 0.2)), line_of_sight(second, apart)) is None
    assert crossing(line_of_sight(first, north), line_of_sight(second, Bearing(359, 10, 0.2, 0.2))) is None
    found = crossing(line_of_sight(first, north), line_of_sight(second, Bearing(330, 10, 0.2, 0.2)))
    assert isinstance(found, Crossing) and found.ranges_m[0] == pytest.approx(
        200 / math.tan(math.radians(30)), rel=0.05
    )
    # The same crossing is none where the directions are not known well enough.
    unsure = (Bearing(0, 10, 9, 9), Bearing(330, 10, 9, 9))
    assert crossing(line_of_sight(first, unsure[0]), line_of_sight(second, unsure[1])) is None


def test_two_targets_miss_each_other() -> None:
    first = Place(48, 11, 500)
    second = moved(first, 90, 200, 0)
    high, low = moved(first, 30, 500, 120), moved(first, 30, 500, 20)
    found = crossing(line_of_sight(first, seen(first, high)), line_of_sight(second, seen(second, low)))
    assert found is not None and found.miss_sigmas > 20


@pytest.mark.parametrize(
    "place", [(0, 0, 0), (48.1, 11.6, 520), (-33.9, 151.2, -12), (89.9, -120, 9000), (-89.9, 5, 0)]
)
def test_earth_fixed_coordinates_there_and_back(place: tuple[float, float, float]) -> None:
    assert geodetic(earth_fixed(*place)) == pytest.approx(place, abs=1e-6)
    axes = local_axes(*place[:2])
    assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-12)


def test_the_error_s_ellipse_is_longest_along_the_lines_of_sight() -> None:
    first = Place(48.0, 11.0, 500.0)
    second, target = moved(first, 90, 100, 0), moved(moved(first, 90, 50, 0), 0, 1000, 50)
    found = crossing(*(line_of_sight(each, seen(each, target)) for each in (first, second)))
    assert found is not None
    position = found.position()
    assert position.across_sigma_m is not None and position.sigma_azimuth_deg is not None
    assert position.across_sigma_m < position.horizontal_sigma_m / 5
    assert min(position.sigma_azimuth_deg, 180 - position.sigma_azimuth_deg) < 1, "north and south of the target"
