"""Bearings: known directions, every axis of rotation, and errors that cover what they claim."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.scenes import SURE_UAV, frame

from model.metadata import Thresholds
from pipeline.config.file import load
from pipeline.errors import ConfigError
from pipeline.tracking.bearing import Orientation
from pipeline.tracking.camera_settings import orientations_of, places_of
from pipeline.tracking.stage import TrackStage
from pipeline.types import Band, Bearing, EscalationReason, EventKind

SIZE = 640, 512
LEVEL = Orientation(azimuth_deg=30, elevation_deg=0, roll_deg=0, hfov_deg=40, sigma_deg=0.5)
FOCAL_PX = 320 / math.tan(math.radians(20))


def direction(bearing: Bearing) -> tuple[float, float]:
    return bearing.azimuth_deg, bearing.elevation_deg


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((320, 256), (30, 0)),
        ((640, 256), (50, 0)),  # the edges are half of the field of view apart from the axis
        ((0, 256), (10, 0)),
        ((320, 256 - FOCAL_PX * math.tan(math.radians(7))), (30, 7)),
        ((320, 256 + FOCAL_PX * math.tan(math.radians(7))), (30, -7)),
    ],
)
def test_points_of_a_level_camera(point: tuple[float, float], expected: tuple[float, float]) -> None:
    assert direction(LEVEL.bearing(*point, 1, SIZE)) == pytest.approx(expected, abs=1e-3)


def test_azimuth_wraps_at_north() -> None:
    north = replace(LEVEL, azimuth_deg=355)
    assert direction(north.bearing(640, 256, 1, SIZE)) == pytest.approx((15, 0), abs=1e-3)
    assert direction(replace(LEVEL, azimuth_deg=360).bearing(320, 256, 1, SIZE)) == pytest.approx((0, 0), abs=1e-3)


def test_a_camera_that_looks_up_sees_above_its_axis_what_is_above_it() -> None:
    up = replace(LEVEL, elevation_deg=30)
    assert direction(up.bearing(320, 256, 1, SIZE)) == pytest.approx((30, 30), abs=1e-3)
    above = 256 - FOCAL_PX * math.tan(math.radians(10))
    assert direction(up.bearing(320, above, 1, SIZE)) == pytest.approx((30, 40), abs=1e-3)
    azimuth, elevation = direction(up.bearing(640, 256, 1, SIZE))
    assert azimuth > 50 and 0 < elevation < 30, "azimuths widen with elevation, and the horizon is lower at the edge"


def test_a_rolled_camera_turns_right_into_down() -> None:
    """Clockwise by 90 degrees: what is at its right lies below."""
    rolled = replace(LEVEL, roll_deg=90)
    assert direction(rolled.bearing(640, 256, 1, SIZE)) == pytest.approx((30, -20), abs=1e-3)
    assert direction(rolled.bearing(320, 0, 1, SIZE))[0] > 30


def test_the_errors_cover_what_they_claim() -> None:
    rng, true = np.random.default_rng(1), Orientation(80, 25, 3, 30, 0.4)
    exact = true.bearing(500, 100, 2.0, SIZE)
    seen = []
    for azimuth, elevation, dx, dy in rng.normal(0, (0.4, 0.4, 2.0, 2.0), (2000, 4)):
        turned = replace(true, azimuth_deg=80 + azimuth / math.cos(math.radians(25)), elevation_deg=25 + elevation)
        seen.append(direction(turned.bearing(500 + dx, 100 + dy, 2.0, SIZE)))
    deviation = np.std(seen, axis=0)
    assert deviation[0] == pytest.approx(exact.azimuth_sigma_deg, rel=0.15)
    assert deviation[1] == pytest.approx(exact.elevation_sigma_deg, rel=0.15)


def test_tracks_of_a_posed_camera_have_bearings(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    pose = "{lat: 52.1, lon: 11.6, azimuth_deg: 30, hfov_deg: 40, sigma_deg: 0.5}"
    site.write_text(f"cameras: [{{id: north, uri: 'demo:a', pose: {pose}}}, {{id: south, uri: 'demo:b'}}]\n")
    orientations = orientations_of(load(site))
    assert orientations == {"north": LEVEL}
    stage = TrackStage({band: Thresholds() for band in Band}, orientations=orientations)
    for camera in ("north", "south"):
        (track,) = stage.update(frame(0, [(320, 256, 10, SURE_UAV)], camera=camera)).tracks
        bearing = track.bearing and direction(track.bearing)
        assert bearing == (pytest.approx((30, 0), abs=0.3) if camera == "north" else None)


def test_cameras_with_complete_poses_share_an_alert(tmp_path: Path) -> None:
    """Two cameras 200 m apart look at one point, 500 m away; a third one has no height, and is none of them."""
    site = tmp_path / "site.yaml"
    look = "azimuth_deg: {}, hfov_deg: 40, sigma_deg: 0.5"
    poses = [
        f"{{lat: 52.1, lon: 11.6, height_m: 50, {look.format(0)}}}",
        f"{{lat: 52.1, lon: 11.60293, height_m: 50, {look.format(338.2)}}}",
        f"{{lat: 52.1, lon: 11.60293, {look.format(338.2)}}}",
    ]
    names = ("left", "right", "other")
    cameras = ", ".join(f"{{id: {name}, uri: 'demo:a', pose: {pose}}}" for name, pose in zip(names, poses, strict=True))
    site.write_text(f"cameras: [{cameras}]\n")
    config = load(site)
    assert list(places_of(config)) == ["left", "right"]
    stage = TrackStage(
        {band: Thresholds() for band in Band}, orientations=orientations_of(config), places=places_of(config)
    )
    alerts = {}
    for number in range(30):
        for name in names:
            outcome = stage.update(frame(number, [(320, 256 - number, 10, SURE_UAV)], camera=name))
            for event in outcome.events:
                alerts |= {name: event} if event.is_alert else {}
            if name == "right" and number == 29:
                assert outcome.joined == {alerts["left"].alert} and outcome.tracks[0].position is not None
    kinds = {name: (event.kind, event.reason) for name, event in alerts.items()}
    assert kinds == {
        "left": (EventKind.ALERT_OPENED, None),
        "right": (EventKind.ALERT_ESCALATED, EscalationReason.SECOND_CAMERA),
        "other": (EventKind.ALERT_OPENED, None),
    }
    assert alerts["left"].alert == alerts["right"].alert != alerts["other"].alert
    assert not stage.close("left").events[-1].is_alert and stage.close("right").events[-1].ends_alert


@pytest.mark.parametrize(
    ("pose", "fault"),
    [
        ("{lat: 91, lon: 0, azimuth_deg: 0, hfov_deg: 40}", "pose.lat: must be less than or equal to 90"),
        ("{lat: 0, lon: 0, azimuth_deg: 400, hfov_deg: 40}", "pose.azimuth_deg: "),
        ("{lat: 0, lon: 0, azimuth_deg: 0, hfov_deg: 0}", "pose.hfov_deg: "),
        ("{lat: 0, lon: 0, azimuth_deg: 0}", "pose.hfov_deg"),
        ("{lat: 0, lon: 0, azimuth_deg: 0, hfov_deg: 40, range_m: 5}", "pose.range_m: unknown key"),
    ],
)
def test_a_wrong_pose_is_told(pose: str, fault: str, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(f"cameras: [{{id: north, uri: 'demo:a', pose: {pose}}}]\n")
    with pytest.raises(ConfigError) as caught:
        load(site)
    assert fault in str(caught.value)
