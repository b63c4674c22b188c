"""Cursor on Target: a camera with its field of view, the bearing of a target as a line, and where it is.  Pure.

In: a camera's pose, bearings, positions, times.  Out: XML.  A target has a position only if two cameras see it: the end
of a line lies in its direction, at a length that is configured.
"""

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

from pipeline.config.camera import Pose
from pipeline.geodesy import destination
from pipeline.types import Bearing, Position, Severity

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what its unused parts lack
    import pytak

CAMERA_STALE_S = 60.0
LINE_STALE_S = 10.0
PRECISION = 7  # decimals of a degree: a centimetre
CAMERA, LINE, TARGET = "b-m-p-s-p-loc", "u-d-f", "a-u-A"  # unknown, in the air
_BY_HAND, _BY_MACHINE = "h-e", "m-i"  # how a position or a direction became known
_COLOURS = {Severity.ALARM: (255, 40, 30), Severity.WARNING: (255, 170, 0), Severity.INFO: (160, 160, 160)}


@dataclass(frozen=True)
class Viewpoint:
    """A camera on the map.

    Attributes:
        uid: unique in the world.
        name: what people call it.
        pose: where it stands and looks.
        line_m: length of its field of view and of its lines on the map.
    """

    uid: str
    name: str
    pose: Pose
    line_m: float

    def camera(self, state: str, time_ns: int) -> bytes:
        """Return the camera and, unless it turns, its field of view.

        Args:
            state: in words.
            time_ns: UTC, at which the state was known.
        """
        pose = self.pose
        parts = [] if pose.onvif is not None else [_sensor(pose, self.line_m)]
        detail = pytak.cot_detail(*parts, flow_tag=False)
        pytak.add_remarks(detail, [state])
        return self._event(self.uid, CAMERA, _BY_HAND, detail, self.name, time_ns, CAMERA_STALE_S)

    def line(
        self, alert: str, title: str, severity: Severity, bearing: Bearing, time_ns: int, stale_s: float = LINE_STALE_S
    ) -> bytes:
        """Return the bearing of an alert's target as a line; with `stale_s` of 0 its removal.

        Args:
            alert: its id.
            title: of the line.
            severity: its colour.
            bearing: of the target.
            time_ns: UTC, at which the target was seen there, or was gone.
            stale_s: for how long the line may be shown.
        """
        start = (self.pose.lat, self.pose.lon)
        detail = pytak.cot_detail(
            _link(start),
            _link(destination(*start, bearing.azimuth_deg, self.line_m)),
            ElementTree.Element("strokeColor", value=str(_argb(*_COLOURS[severity]))),
            ElementTree.Element("strokeWeight", value="3.0"),
            ElementTree.Element("labels_on", value="false"),
            flow_tag=False,
        )
        pytak.add_remarks(detail, [
            f"{title}: azimuth {bearing.azimuth_deg:.1f}° ± {bearing.azimuth_sigma_deg:.1f}°, "
            f"elevation {bearing.elevation_deg:.1f}° ± {bearing.elevation_sigma_deg:.1f}°. Distance unknown."
        ])  # fmt: skip
        return self._event(f"dasnet.{alert}", LINE, _BY_MACHINE, detail, title, time_ns, stale_s)

    def target(self, alert: str, title: str, position: Position, time_ns: int, stale_s: float = LINE_STALE_S) -> bytes:
        """Return where an alert's target is, with its standard deviations; arguments as for `line`."""
        detail = pytak.cot_detail(flow_tag=False)
        pytak.add_remarks(detail, [
            f"{title}: from two cameras, ± {position.horizontal_sigma_m:.0f} m, "
            f"height ± {position.height_sigma_m:.0f} m."
        ])  # fmt: skip
        point = pytak.cot_point(
            position.lat,
            position.lon,
            hae=position.height_m,
            ce=position.horizontal_sigma_m,
            le=position.height_sigma_m,
            precision=PRECISION,
        )
        return _cot(f"dasnet.{alert}.position", TARGET, _BY_MACHINE, detail, title, time_ns, stale_s, point)

    def _event(
        self, uid: str, kind: str, how: str, detail: ElementTree.Element, title: str, time_ns: int, stale_s: float
    ) -> bytes:
        pose = self.pose
        height_m = pose.height_m if "height_m" in pose.model_fields_set else None
        point = pytak.cot_point(pose.lat, pose.lon, hae=height_m, precision=PRECISION)
        return _cot(uid, kind, how, detail, title, time_ns, stale_s, point)


def _sensor(pose: Pose, line_m: float) -> ElementTree.Element:
    return ElementTree.Element(
        "sensor",
        azimuth=f"{pose.azimuth_deg:.2f}",
        elevation=f"{pose.elevation_deg:.2f}",
        roll=f"{pose.roll_deg:.2f}",
        fov=f"{pose.hfov_deg:.2f}",
        range=f"{line_m:.0f}",
        north="0",  # azimuths are of true north
        type="r-e",
        model="dasnet",
    )


def _cot(
    uid: str,
    kind: str,
    how: str,
    detail: ElementTree.Element,
    title: str,
    time_ns: int,
    stale_s: float,
    point: ElementTree.Element,
) -> bytes:
    event = pytak.cot_event(uid=uid, cot_type=kind, how=how, point=point, detail=detail, callsign=title)
    # It stamps the present; times are of what is told.
    event.set("time", _time(time_ns))
    event.set("start", _time(time_ns))
    event.set("stale", _time(time_ns + round(stale_s * 1e9)))
    return bytes(pytak.serialize_cot(event, trailing_newline=True))


def _link(point: tuple[float, float]) -> ElementTree.Element:
    return ElementTree.Element("link", point=",".join(pytak.truncate_float(degrees, PRECISION) for degrees in point))


def _time(time_ns: int) -> str:
    time = datetime.fromtimestamp(time_ns // 1_000_000 / 1000, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _argb(red: int, green: int, blue: int) -> int:
    """Return an opaque colour as a signed number of 32 bits."""
    return (0xFF << 24 | red << 16 | green << 8 | blue) - (1 << 32)
