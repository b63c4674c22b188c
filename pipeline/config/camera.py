"""The entries of `cameras`: address, band, what of the frame is watched, and where the camera stands."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipeline.config.onvif import OnvifPose
from pipeline.config.rules import SectorConfig, ZonePoints
from pipeline.config.section import Identifier, Section, SitePath
from pipeline.config.uri import NETWORK_SCHEMES, absolute_uri, network_address, public_uri, uri_fault
from pipeline.geometry import Point
from pipeline.redaction import secrets_of
from pipeline.types import Band

MIN_REGION_PX = 32
MAX_ZONES = 64

Side = Annotated[int, Field(ge=0, le=16384)]


class Pose(Section):
    """Where a camera stands, and where it looks; every track then has a bearing."""

    lat: Annotated[float, Field(ge=-90, le=90)]
    """Latitude, degrees (WGS 84)."""
    lon: Annotated[float, Field(ge=-180, le=180)]
    """Longitude, degrees (WGS 84)."""
    height_m: Annotated[float, Field(ge=-500, le=9000)] = 0.0
    """Height above the ellipsoid (WGS 84). Cameras that have it share the alert of a target that they both see: see
    [Alerts](alerts.md#one-target-two-cameras)."""
    azimuth_deg: Annotated[float, Field(ge=0, le=360)]
    """Direction of the optical axis, clockwise from true north."""
    elevation_deg: Annotated[float, Field(ge=-90, le=90)] = 0.0
    """Direction of the optical axis, above the horizon."""
    roll_deg: Annotated[float, Field(ge=-180, le=180)] = 0.0
    """Rotation about the optical axis, clockwise as seen from behind the camera."""
    hfov_deg: Annotated[float, Field(gt=0, lt=170)]
    """Horizontal field of view of the whole frame."""
    sigma_deg: Annotated[float, Field(ge=0, le=90)] = 1.0
    """Standard deviation of the axis's direction."""
    onvif: OnvifPose | None = None
    """Where a camera that turns looks; default: it does not turn."""


class Camera(Section):
    """A camera: its address, and how its frames are processed."""

    id: Identifier
    """Name of the camera, unique in the site: up to 64 letters, digits, `_` and `-`."""
    uri: str
    """Camera address; see *Camera addresses* above."""
    band: Band = Band.VISIBLE
    """Spectral band; selects the checkpoint's scale and thresholds."""
    transport: Literal["tcp", "udp"] = "tcp"
    """RTSP transport protocol."""
    decode: Literal["auto", "cpu", "cuda", "vaapi"] = "cpu"
    """Video decoder: software (`cpu`), hardware (`cuda`, `vaapi`), or `auto`: hardware where available, otherwise
    software. **Experimental**: hardware decoding has not been run on its hardware yet."""
    rate_fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Upper limit on the frame rate, in frames per second; default: no limit."""
    scale: Annotated[float, Field(gt=0, le=8)] | None = None
    """Resize factor from frame to network input; default: the checkpoint's for the band."""
    ignore: list[Annotated[list[Point], Field(min_length=3)]] = []
    """Privacy masks: polygons `[[x, y], ...]` in frame pixels; detections inside are discarded."""
    region: tuple[Side, Side, Side, Side] | None = None
    """Region of interest `[x0, y0, x1, y1]` in frame pixels; default: the whole frame."""
    calibration: SitePath | None = None
    """Calibration file of this camera, written by `dasnet assess`; default: an uncalibrated camera."""
    pose: Pose | None = None
    """Place and direction of the camera; default: unknown, and tracks have no bearing."""
    zones: Annotated[dict[Identifier, ZonePoints], Field(max_length=MAX_ZONES)] = {}
    """Zones for `rules`, by name, in frame pixels: a polygon `[[x, y], ...]` of three or more points, or a line of two,
    which is crossed from its left to its right, seen from the first point to the second."""
    sectors: Annotated[dict[Identifier, SectorConfig], Field(max_length=MAX_ZONES, validate_default=True)] = {}
    """Sectors for `rules`, by name: `{azimuth_deg: [from, to], elevation_deg: [from, to]}`; requires a `pose`."""
    host: Identifier | None = None
    """Name of the edge host that decodes this camera (`dasnet run --host NAME`); default: the inference host."""

    @field_validator("uri")
    @classmethod
    def _valid_uri(cls, uri: str, info: ValidationInfo) -> str:
        fault = uri_fault(uri)
        if fault is not None:
            raise ValueError(fault)
        return absolute_uri(uri, info.context["folder"]) if info.context else uri

    @field_validator("region")
    @classmethod
    def _large_enough(cls, region: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if region is not None and (region[2] - region[0] < MIN_REGION_PX or region[3] - region[1] < MIN_REGION_PX):
            raise ValueError(f"x0, y0, x1, y1 must span at least {MIN_REGION_PX} pixels in both directions")
        return region

    @field_validator("pose")
    @classmethod
    def _has_a_device(cls, pose: Pose | None, info: ValidationInfo) -> Pose | None:
        needs_host = pose is not None and pose.onvif is not None and pose.onvif.url is None
        if needs_host and info.data.get("uri", "http:").partition(":")[0] not in NETWORK_SCHEMES:
            raise ValueError("must have onvif.url, because uri names no host")
        return pose

    @field_validator("sectors")
    @classmethod
    def _of_a_pose(cls, sectors: dict[str, SectorConfig], info: ValidationInfo) -> dict[str, SectorConfig]:
        if sectors and info.data.get("pose") is None:
            raise ValueError("must be set with a pose only, from which directions are known")
        twice = sectors.keys() & info.data.get("zones", {}).keys()
        if twice:
            raise ValueError(f"{min(twice)!r} is also the name of a zone; must be another name")
        return sectors

    def zones_beyond(self, size_px: tuple[int, int]) -> list[str]:
        """Return the names of zones that reach beyond a frame of this width and height."""
        width, height = size_px
        return [
            name
            for name, points in self.zones.items()
            if not all(0 <= x <= width and 0 <= y <= height for x, y in points)
        ]

    @property
    def onvif_url(self) -> str | None:
        """The address of the ONVIF device service, with user and password; None: the camera does not turn."""
        if self.pose is None or self.pose.onvif is None:
            return None
        if self.pose.onvif.url is not None:
            return self.pose.onvif.url
        address = network_address(self.uri)
        assert address is not None
        userinfo = f"{address.userinfo}@" if address.userinfo else ""
        return f"http://{userinfo}{address.host}/onvif/device_service"

    @property
    def secrets(self) -> set[str]:
        """What of its addresses is not shown."""
        onvif = self.pose.onvif if self.pose is not None else None
        return secrets_of(self.uri) | (onvif.secrets if onvif is not None else set())

    @property
    def is_live(self) -> bool:
        """Whether frames may be dropped to keep up; every frame of a recording is processed."""
        return not self.uri.startswith("file:")

    @property
    def is_networked(self) -> bool:
        """Whether the address names a host, possibly with user and password."""
        return self.uri.partition(":")[0] in NETWORK_SCHEMES

    @property
    def public_uri(self) -> str:
        """The address without credentials, for display and logs."""
        return public_uri(self.uri)
