"""Where the lines of sectors lie in a frame: the opposite of the bearing of a point."""

import math
from typing import Any

import pytest

from pipeline.config.camera import Camera
from pipeline.console.sectors import NEAR, sector_lines
from pipeline.geometry import Point
from pipeline.tracking.bearing import Orientation

SIZE_PX = (640, 512)


def lines(sector: dict[str, Any], **pose: float) -> list[list[Point]]:
    place = {"lat": 48.0, "lon": 11.0, "azimuth_deg": 90.0, "hfov_deg": 40.0}
    camera = Camera.model_validate({"id": "a", "uri": "demo:scene", "pose": place | pose, "sectors": {"s": sector}})
    return sector_lines(camera)["s"]


def test_a_level_camera_sees_a_sector_as_a_frame_within_its_own() -> None:
    low, high, left, right = lines({"azimuth_deg": [80, 100], "elevation_deg": [-5, 5]})
    half = math.tan(math.radians(20)) * 2
    for line, x in ((left, -math.tan(math.radians(10)) / half), (right, math.tan(math.radians(10)) / half)):
        assert [point[0] for point in line] == pytest.approx([x] * len(line), abs=1e-4) and line[0][1] > 0 > line[-1][1]
    for line, y in ((low, math.tan(math.radians(5)) / half), (high, -math.tan(math.radians(5)) / half)):
        assert line[len(line) // 2] == (0.0, pytest.approx(y, abs=1e-4)), "flattest in the middle"
        assert abs(line[0][1]) > abs(y)


@pytest.mark.parametrize("hfov_deg", [0.5, 5, 40, 120])
@pytest.mark.parametrize(("elevation_deg", "roll_deg"), [(0, 0), (30, 0), (-20, 15), (70, -100)])
def test_points_of_a_line_have_its_direction(hfov_deg: float, elevation_deg: float, roll_deg: float) -> None:
    pose = {"azimuth_deg": 355.0, "elevation_deg": elevation_deg, "roll_deg": roll_deg, "hfov_deg": hfov_deg}
    orientation = Orientation(**pose, sigma_deg=1)
    found = lines({"azimuth_deg": [300, 355], "elevation_deg": [elevation_deg, 85]}, **pose)
    seen = 0
    for line in found:
        for x, y in line:
            assert max(abs(x), abs(y)) <= NEAR
            px = (320 + 640 * x, 256 + 640 * y)
            bearing = orientation.bearing(*px, 1.0, SIZE_PX)
            off = [abs((bearing.azimuth_deg - side + 180) % 360 - 180) for side in (300, 355)]
            off = [each * math.cos(math.radians(bearing.elevation_deg)) for each in off]
            off += [abs(bearing.elevation_deg - side) for side in (elevation_deg, 85)]
            assert min(off) < 0.02
            seen += abs(x) < 0.5 and abs(y) < 0.4
    assert seen, "two lines meet on the axis"


def test_what_lies_behind_or_holds_the_whole_frame_bounds_nothing() -> None:
    assert lines({"azimuth_deg": [250, 290]}) == []
    assert lines({"azimuth_deg": [0, 360]}) == []
    assert lines({"azimuth_deg": [10, 170], "elevation_deg": [-60, 60]}) == []
    (horizon,) = lines({"azimuth_deg": [0, 360], "elevation_deg": [0, 90]})
    assert {y for _, y in horizon} == {0.0} and horizon[0][0] < -0.5 and horizon[-1][0] > 0.5


def test_a_camera_without_a_pose_has_none() -> None:
    assert sector_lines(Camera(id="a", uri="demo:scene")) == {}
