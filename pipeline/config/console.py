"""The sections of a site's configuration that say where it listens: the metrics, and the console with its users."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, IPvAnyNetwork, ValidationInfo, field_validator

from pipeline.config.section import Section, SitePath
from pipeline.config.users import UserRole

LOOPBACK = ("127.0.0.1", "localhost", "::1")

MAP_IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}

Latitude = Annotated[float, Field(ge=-85, le=85)]  # the map's projection has no poles
Longitude = Annotated[float, Field(ge=-180, le=180)]
Corner = tuple[Latitude, Longitude]
Port = Annotated[int, Field(ge=0, le=65535)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")]


class Address(Section):
    """A listening address of this host."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 0
    """TCP port; 0: any free port."""

    def at(self, port: int | None) -> Self:
        """Return the same with another port, or without one unchanged."""
        return self if port is None else self.model_copy(update={"port": port})


class MetricsAddress(Address):
    """Address of `/metrics`, `/healthz` and `/readyz` of this host."""

    port: Port = 9464
    """TCP port; 0: any free port."""


class Tls(Section):
    """TLS for the console: PEM files, reloaded when they change; default: plain HTTP."""

    certificate: SitePath
    """The certificate, followed by intermediate certificates."""
    key: SitePath
    """The private key, without a passphrase."""


class MapImage(Section):
    """An image that lies on the map, such as a site plan."""

    file: SitePath
    """PNG, JPEG or WebP."""
    corners: tuple[Corner, Corner, Corner]
    """Where its upper left, upper right and lower left corner lie: `[[lat, lon], [lat, lon], [lat, lon]]`."""

    @field_validator("file")
    @classmethod
    def _of_a_known_format(cls, file: Path) -> Path:
        if file.suffix.lower() not in MAP_IMAGE_TYPES:
            raise ValueError(f"must end in one of {', '.join(MAP_IMAGE_TYPES)}")
        return file

    @field_validator("corners")
    @classmethod
    def _span_an_area(cls, corners: tuple[Corner, Corner, Corner]) -> tuple[Corner, Corner, Corner]:
        (lat, lon), (right_lat, right_lon), (low_lat, low_lon) = corners
        if (right_lat - lat) * (low_lon - lon) == (right_lon - lon) * (low_lat - lat):
            raise ValueError("must be three corners that are not on one line")
        return corners


class MapSettings(Section):
    """What lies under the cameras on the console's map, from files of this host; default: a grid."""

    pmtiles: SitePath | None = None
    """PMTiles file (version 3) with vector tiles of the Protomaps basemap, or with PNG, JPEG or WebP tiles."""
    image: MapImage | None = None
    attribution: Annotated[str, Field(max_length=200)] = ""
    """Text that the licence of these files wants to be shown, such as `© OpenStreetMap contributors`."""


class ConsoleAddress(Address):
    """The operator's web console."""

    port: Port = 8470
    """TCP port; 0: any free port."""
    tls: Tls | None = None
    trusted_proxies: list[IPvAnyNetwork] = []
    """Networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted."""
    users_file: SitePath | None = None
    """Users file, written by `dasnet users`: named users with roles and cameras; read again when it changes."""
    proxy_user_header: HeaderName | None = None
    """Header in which `trusted_proxies` name the user who logged in there; such as `X-Forwarded-User`."""
    proxy_groups_header: HeaderName | None = None
    """Header in which they name the user's groups, separated by commas; such as `X-Forwarded-Groups`."""
    proxy_roles: dict[str, UserRole] = {}
    """Role by group, of users who are not in the users file; `"*"`: of everyone whom a proxy names."""
    session_hours: Annotated[float, Field(gt=0, le=8760)] = 168.0
    """How long a session lasts after the log-in."""
    password_file: Annotated[SitePath | None, Field(validate_default=True)] = None
    """Password file, written by `dasnet password FILE`: one user, `admin`; this, `users_file` or `proxy_user_header` is
    required unless `console.host` is loopback."""

    map: MapSettings = MapSettings()

    @field_validator("proxy_user_header")
    @classmethod
    def _with_proxies(cls, header: str | None, info: ValidationInfo) -> str | None:
        if header is not None and not info.data.get("trusted_proxies"):
            raise ValueError("is believed only from console.trusted_proxies, which must name the proxy")
        return header

    @field_validator("proxy_groups_header", "proxy_roles")
    @classmethod
    def _with_users(cls, value: object, info: ValidationInfo) -> object:
        if value and not info.data.get("proxy_user_header"):
            raise ValueError("has no effect without console.proxy_user_header; expected both")
        return value

    @field_validator("password_file")
    @classmethod
    def _password_unless_loopback(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        host = info.data.get("host", LOOPBACK[0])
        has_users = info.data.get("users_file") is not None
        if path is not None and has_users:
            raise ValueError("must not be set beside console.users_file")
        if path is None and not has_users and not info.data.get("proxy_user_header") and host not in LOOPBACK:
            raise ValueError(
                f"is required because console.host {host!r} would be reachable without a password; create one with"
                f" `dasnet password FILE`, or set console.host to one of {', '.join(LOOPBACK)}"
            )
        return path

    @property
    def has_login(self) -> bool:
        """Whether anyone must log in."""
        return self.users_file is not None or self.password_file is not None or self.proxy_user_header is not None
