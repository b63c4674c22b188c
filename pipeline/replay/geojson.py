"""tracks.geojson: the bearings of the tracks of a recording whose camera's pose is known, for maps (RFC 7946).

One camera knows directions, not distances: a track is lines of a fixed length from the camera, never a position.
"""

import math
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config.camera import Pose
from pipeline.geodesy import destination
from pipeline.replay.output_file import LinesFile
from pipeline.replay.track_paths import TableRow, read_rows
from pipeline.tracking.bearing import Orientation
from pipeline.tracking.camera_settings import orientation

FILE = "tracks.geojson"
LINE_M = 1000.0  # how long lines are drawn; not a distance of anything
STEP_S = 1.0  # a track has at most one line in this time
_JSON = msgspec.json.Encoder()


def write_geojson(folder: Path, pose: Pose | None, size_px: tuple[int, int] | None) -> None:
    """Write tracks.geojson beside tracks.csv; without a pose remove that of an earlier replay.

    Args:
        folder: of the outputs.
        pose: of the camera, for the whole recording.
        size_px: width and height of its frames; None: no frame was read.

    Raises:
        SourceError: tracks.csv cannot be read.
    """
    path = folder / FILE
    path.unlink(missing_ok=True)
    if pose is None or size_px is None:
        return
    direction, last_s = orientation(pose), dict[int, float]()
    with LinesFile(path) as file:
        file.add(b'{"type":"FeatureCollection","features":[')
        file.add(_JSON.encode(_camera(pose)))
        for row in read_rows(folder / "tracks.csv"):
            if row.time_s - last_s.get(row.track, -math.inf) >= STEP_S:
                last_s[row.track] = row.time_s
                file.add(b"," + _JSON.encode(_line(pose, direction, row, size_px)))
        file.add(b"]}")


def _camera(pose: Pose) -> dict[str, Any]:
    height = [pose.height_m] if "height_m" in pose.model_fields_set else []
    properties = {"kind": "camera", "azimuth_deg": pose.azimuth_deg, "elevation_deg": pose.elevation_deg,
                  "hfov_deg": pose.hfov_deg}  # fmt: skip
    return _feature("Point", [pose.lon, pose.lat, *height], properties)


def _line(pose: Pose, direction: Orientation, row: TableRow, size_px: tuple[int, int]) -> dict[str, Any]:
    bearing = direction.bearing_of(row.xyxy, size_px)
    lat, lon = destination(pose.lat, pose.lon, bearing.azimuth_deg, LINE_M)
    properties = {
        "kind": "bearing", "track": row.track, "label": row.label, "state": row.state, "time_s": row.time_s,
        "time_utc": row.time_utc, **msgspec.structs.asdict(bearing), "distance_m": None, "line_m": LINE_M,
    }  # fmt: skip
    return _feature("LineString", [[pose.lon, pose.lat], [lon, lat]], properties)


def _feature(kind: str, coordinates: list[Any], properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}
