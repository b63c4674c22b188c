"""Where field of view, zones and sectors lie on the sky, as tracks' bearings do."""

import pytest

from pipeline.config.camera import Camera, Pose
from pipeline.config.rules import SectorConfig
from pipeline.console.directions import field_of_view, sector_directions, seen_directions
from pipeline.console.site_map import map_camera
from pipeline.tracking.camera_settings import orientation

SIZE_PX = (1280, 720)


def pose(**changes: float) -> Pose:
    return Pose.model_validate({"lat": 48, "lon": 11, "azimuth_deg": 90, "hfov_deg": 60} | changes)


@pytest.mark.parametrize("roll_deg", [0.0, 20.0])
def test_a_corner_of_a_zone_is_where_a_track_there_has_its_bearing(roll_deg: float) -> None:
    looking = pose(elevation_deg=20, roll_deg=roll_deg)
    corners = [(100.0, 100.0), (500.0, 120.0), (300.0, 600.0)]
    outline = seen_directions(looking, corners, SIZE_PX).outline
    for x, y in corners:
        bearing = orientation(looking).bearing(x, y, 1.0, SIZE_PX)
        assert (bearing.azimuth_deg, bearing.elevation_deg) in [pytest.approx(point, abs=2e-3) for point in outline]


def test_a_level_camera_sees_its_field_of_view() -> None:
    for size_px in (SIZE_PX, None):
        view = field_of_view(pose(), size_px)
        assert view.azimuth_deg == pytest.approx((60, 120), abs=0.01)
    assert field_of_view(pose(azimuth_deg=350), SIZE_PX).azimuth_deg == pytest.approx((320, 380), abs=0.01)
    raised = field_of_view(pose(elevation_deg=40), SIZE_PX).azimuth_deg
    assert raised[0] < 55 and raised[1] > 125, "the higher a camera looks, the more of the horizon it spans"


def test_a_camera_that_looks_up_or_down_sees_all_round() -> None:
    up, down = (field_of_view(pose(elevation_deg=tilt), SIZE_PX) for tilt in (85, -85))
    assert up.azimuth_deg == down.azimuth_deg == (0, 360)
    assert up.elevation_deg[1] == 90 and down.elevation_deg[0] == -90


def test_a_sector_across_north_is_one_wedge() -> None:
    sector = SectorConfig(azimuth_deg=(350, 20), elevation_deg=(5, 30))
    directions = sector_directions(sector)
    assert directions.azimuth_deg == (350, 380) and directions.elevation_deg == (5, 30)
    assert directions.outline[0] == (350, 5) and (20, 30) in directions.outline
    assert sector_directions(SectorConfig(azimuth_deg=(0, 360))).azimuth_deg == (0, 360)


def test_zones_are_mapped_when_the_frame_s_size_is_known() -> None:
    zones = {"roof": [(0, 0), (1280, 0), (1280, 360)], "fence": [(0, 700), (1280, 700)]}
    given = {"id": "north", "uri": "demo:scene", "zones": zones}
    camera = Camera.model_validate(given | {"pose": pose().model_dump(exclude={"height_m"})})
    assert map_camera(camera, None).zones == {}
    mapped = map_camera(camera, SIZE_PX)
    assert set(mapped.zones) == {"roof", "fence"} and mapped.pose is not None and mapped.pose.height_m is None
    assert mapped.zones["fence"].azimuth_deg == pytest.approx((60, 120), abs=3)
    assert len(mapped.zones["fence"].outline) == 17, "a line stays open"
    plain = map_camera(Camera.model_validate(given), SIZE_PX)
    assert plain.pose is None and plain.zones == {}
