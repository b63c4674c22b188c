"""`cameras[].pose.onvif`: a camera that turns, and what its positions mean."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator

from pipeline.config.section import Section
from pipeline.config.uri import network_address
from pipeline.redaction import secrets_of

Position = Annotated[float, Field(ge=-36_000, le=36_000)]  # generic ones are -1 to 1; some cameras tell other ones
Degrees = Annotated[float, Field(ge=-720, le=720)]
FieldOfView = Annotated[float, Field(gt=0, lt=170)]
Line = tuple[tuple[Position, Degrees], tuple[Position, Degrees]]


class OnvifPose(Section):
    """Pan, tilt and zoom from the camera itself, by ONVIF: see [Cameras that turn](cameras-that-turn.md).

    `azimuth_deg` and `elevation_deg` of the pose are then those of the axis at pan and tilt of 0 degrees, `hfov_deg`
    that at zoom position 0. `{}` suffices for many cameras.
    """

    url: str | None = None
    """Address of the camera's device service, `http://` or `https://`, with `USER:PASSWORD@` before the host where it
    asks for them; default: `http://HOST/onvif/device_service` with host, user and password of `uri`."""
    profile: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Token of the media profile whose PTZ configuration is read; default: the first that has one."""
    pan: Line = ((-1.0, -180.0), (1.0, 180.0))
    """Two positions that the camera tells and their pan in degrees, clockwise from above, between and beyond which it
    is linear. Not used where the camera tells degrees."""
    tilt: Line = ((-1.0, -90.0), (1.0, 90.0))
    """Two positions that the camera tells and their tilt in degrees, upwards. Not used where the camera tells
    degrees."""
    zoom: Annotated[list[tuple[Position, FieldOfView]], Field(max_length=64)] = []
    """Further zoom positions, rising from above 0, each with the horizontal field of view there; default: at any other
    position than 0 the field of view is unknown, and tracks have no bearing."""
    delay_s: Annotated[float, Field(ge=-5, le=5)] = 0.0
    """How much later the video arrives than the camera's answers, s."""

    @field_validator("url")
    @classmethod
    def _valid_url(cls, url: str | None) -> str | None:
        address = network_address(url) if url is not None else None
        if url is not None and (
            url.partition("://")[0] not in ("http", "https") or address is None or address.is_ambiguous or address.query
        ):
            raise ValueError(
                "must be http://HOST/PATH or https://HOST/PATH, with USER:PASSWORD@ before the host where the camera "
                "asks for them; / ? # @ and % in them must be percent-encoded"
            )
        return url

    @field_validator("pan", "tilt")
    @classmethod
    def _two_points(cls, line: Line) -> Line:
        (first, _), (second, _) = line
        if first == second:
            raise ValueError("must be two different positions")
        return line

    @field_validator("zoom")
    @classmethod
    def _rising(cls, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        positions = [0.0, *(position for position, _ in points)]
        if any(after <= before for before, after in pairwise(positions)):
            raise ValueError("must be positions that rise, from above 0")
        return points

    @property
    def secrets(self) -> set[str]:
        """What of the address is not shown."""
        return secrets_of(self.url) if self.url is not None else set()
