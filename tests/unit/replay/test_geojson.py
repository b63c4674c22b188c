"""tracks.geojson: bearings of a camera with a pose, never a position."""

import json
from pathlib import Path

import pytest
from support.events import ref, track

from pipeline.errors import ConfigError, SourceError
from pipeline.replay.geojson import write_geojson
from pipeline.replay.options import camera_pose
from pipeline.replay.track_paths import MAX_POINTS, read_paths
from pipeline.replay.track_table import COLUMNS, TrackTableWriter
from pipeline.types import TrackState

POSE = camera_pose("52.0,13.0,40,90,0,60")


def table(folder: Path, frames: int) -> Path:
    """A target that moves by a pixel a frame from the middle to the right."""
    with TrackTableWriter(folder / "tracks.csv") as writer:
        for seq in range(frames):
            x = 310.0 + seq
            state = TrackState.TENTATIVE if seq < 5 else TrackState.CONFIRMED
            writer.write(ref(seq), None, [track(1, state=state, xyxy=(x, 236.0, x + 20, 276.0))])
    return folder / "tracks.csv"


def test_lines_lead_from_the_camera_to_where_it_saw_the_target(tmp_path: Path) -> None:
    table(tmp_path, 76)
    write_geojson(tmp_path, POSE, (640, 512))
    camera, *lines = json.loads((tmp_path / "tracks.geojson").read_text())["features"]
    assert camera["geometry"] == {"type": "Point", "coordinates": [13.0, 52.0, 40.0]}
    assert [line["properties"]["time_s"] for line in lines] == [0.0, 1.0, 2.0, 3.0], "from the first sighting"
    assert {line["geometry"]["type"] for line in lines} == {"LineString"}, "no position is known"
    first, last = lines[0], lines[-1]
    start, end = first["geometry"]["coordinates"]
    assert start == [13.0, 52.0] and end[0] > 13.014 and abs(end[1] - 52.0) < 1e-4, "due east"
    assert first["properties"]["azimuth_deg"] == pytest.approx(90, abs=0.01)
    assert last["properties"]["azimuth_deg"] > 92 and last["properties"]["distance_m"] is None


def test_a_recording_that_begins_before_zero_has_its_first_bearing(tmp_path: Path) -> None:
    rows = (f"{frame},{time_s},,1,uav,310,236,20,40,0.9,confirmed" for frame, time_s in ((1, -0.5), (2, 0.4)))
    (tmp_path / "tracks.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    write_geojson(tmp_path, POSE, (640, 512))
    _, *lines = json.loads((tmp_path / "tracks.geojson").read_text())["features"]
    assert [line["properties"]["time_s"] for line in lines] == [-0.5]


def test_a_table_of_one_endless_field_is_named(tmp_path: Path) -> None:
    (tmp_path / "tracks.csv").write_text(",".join(COLUMNS) + "\n" + "x" * 200_000)
    with pytest.raises(SourceError, match=r"not a tracks\.csv of dasnet, or damaged"):
        read_paths(tmp_path / "tracks.csv")


def test_without_a_pose_there_is_no_file_and_none_of_an_earlier_replay(tmp_path: Path) -> None:
    table(tmp_path, 3)
    write_geojson(tmp_path, POSE, (640, 512))
    write_geojson(tmp_path, None, (640, 512))
    assert not (tmp_path / "tracks.geojson").exists()


def test_a_long_path_keeps_its_ends(tmp_path: Path) -> None:
    (points,) = read_paths(table(tmp_path, 2000)).values()
    assert points[0] == (320.0, 256.0) and points[-1] == (2319.0, 256.0) and len(points) <= MAX_POINTS + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("52,13,40,90,0", "must be lat,lon,height_m"),
        ("52,13,40,90,0,x", "hfov_deg 'x': must be a valid number"),
        ("95,13,40,90,0,60", "lat '95': must be less than or equal to 90"),
    ],
)
def test_a_wrong_pose_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        camera_pose(text)
