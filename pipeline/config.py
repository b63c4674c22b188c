"""The configuration of a site, as pydantic models; unknown keys are refused.

`pipeline.config_file` reads it from YAML.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from pipeline.errors import ConfigError
from pipeline.redaction import Redactor, secrets_of
from pipeline.types import Band
from pipeline.uri import NETWORK_SCHEMES, public_uri, uri_fault

MIN_REGION_PX = 32
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
Point = tuple[float, float]
Side = Annotated[int, Field(ge=0, le=16384)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Camera(_Section):
    """One camera: where it is and how its picture is to be read."""

    id: Identifier
    uri: str
    band: Band = Band.VISIBLE
    transport: Literal["tcp", "udp"] = "tcp"
    decode: Literal["auto", "cpu", "cuda", "vaapi"] = "cpu"  # where; auto: on a graphics card that can
    rate_fps: Annotated[float, Field(gt=0, le=1000)] | None = None  # upper limit; None: as the camera sends
    scale: Annotated[float, Field(gt=0, le=8)] | None = None  # None: as the checkpoint says for the band
    ignore: list[Annotated[list[Point], Field(min_length=3)]] = []  # polygons in frame pixels, never searched
    region: tuple[Side, Side, Side, Side] | None = None  # x0, y0, x1, y1 in frame pixels: nothing else is searched
    host: Identifier | None = None  # where it is decoded, with `dasnet run --host`; None: on the host that searches

    @field_validator("uri")
    @classmethod
    def _is_an_address(cls, uri: str) -> str:
        fault = uri_fault(uri)
        if fault is not None:
            raise ValueError(fault)
        return uri

    @field_validator("region")
    @classmethod
    def _is_an_area(cls, region: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if region is not None and (region[2] - region[0] < MIN_REGION_PX or region[3] - region[1] < MIN_REGION_PX):
            raise ValueError(f"x0, y0, x1, y1 must span {MIN_REGION_PX} pixels or more in both directions")
        return region

    @property
    def is_live(self) -> bool:
        """Its newest frame is what counts; of a recording every frame counts."""
        return not self.uri.startswith("file:")

    @property
    def is_networked(self) -> bool:
        """Its address names a host, and perhaps user and password."""
        return self.uri.partition(":")[0] in NETWORK_SCHEMES

    @property
    def public_uri(self) -> str:
        """The address without user and password, for people and logs."""
        return public_uri(self.uri)


class Model(_Section):
    checkpoint: Path | None = None  # None: the shipped one
    threshold: Fraction | None = None  # None: the checkpoint's
    device: str = "auto"
    engine: str = "auto"


class Objective(_Section):
    capture_to_track_ms: Annotated[float, Field(gt=0)] = 500.0


class Store(_Section):
    path: Path | None = None  # None: store.sqlite in the run folder


class Address(_Section):
    host: str = "127.0.0.1"
    port: Port = 0  # 0: any free one


class ConsoleAddress(Address):
    password_file: Annotated[Path | None, Field(validate_default=True)] = None  # made by `dasnet password FILE`

    @field_validator("password_file")
    @classmethod
    def _not_open_to_all(cls, path: Path | None, known: ValidationInfo) -> Path | None:
        host = known.data.get("host", LOOPBACK[0])
        if path is None and host not in LOOPBACK:
            raise ValueError(
                f"is required, for console.host {host!r} would be reachable without a password; make one with"
                f" `dasnet password FILE`, or set console.host to one of {', '.join(LOOPBACK)}"
            )
        return path


class Link(_Section):
    """How cameras on other hosts reach the one that searches."""

    host: str  # its address, as the others reach it
    port: Annotated[int, Field(ge=1, le=65534)] = 5570  # for frames; what is said of cameras goes to the next one
    pixels: Literal["raw", "jpeg"] = "raw"  # on the way: jpeg needs a tenth, and costs time and small targets
    encrypted: bool = True
    keys: Annotated[Path | None, Field(validate_default=True)] = None  # folder, made by `dasnet keys FOLDER HOST...`

    @property
    def results_port(self) -> int:
        return self.port + 1

    @field_validator("keys")
    @classmethod
    def _not_open_to_all(cls, path: Path | None, known: ValidationInfo) -> Path | None:
        if path is None and known.data.get("encrypted", True):
            raise ValueError(
                "is required; make them with `dasnet keys FOLDER HOST...`, or set link.encrypted to false where nobody "
                "else can reach that network"
            )
        if path is not None and not known.data.get("encrypted", True):
            raise ValueError("link.encrypted is false, so that keys would not be used; allowed: one of the two")
        return path


class Log(_Section):
    format: Literal["console", "json"] = "console"  # of stderr; the file holds JSON
    file: Path | None = None  # None: dasnet.log in the run folder


class JsonlSink(_Section):
    type: Literal["jsonl"]
    path: Path | None = None  # None: events.jsonl in the run folder


class Config(_Section):
    """A site."""

    cameras: Annotated[list[Camera], Field(min_length=1)]
    model: Model = Model()
    objective: Objective = Objective()
    link: Link | None = None
    store: Store = Store()
    metrics: Address = Address(port=9464)
    console: ConsoleAddress = ConsoleAddress(port=8470)
    sinks: list[JsonlSink] = [JsonlSink(type="jsonl")]
    log: Log = Log()
    run_dir: Path = Path("run")
    _secrets: frozenset[str] = PrivateAttr(frozenset())
    _references: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def references(self) -> dict[str, str]:
        """The texts with `${...}` in them, as written in the file, by dotted key: what they stand for may be secret."""
        return self._references

    @model_validator(mode="after")
    def _unique_cameras(self) -> "Config":
        ids = [camera.id for camera in self.cameras]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"cameras: id {twice[0]!r} is used twice; every camera needs its own")
        return self

    @model_validator(mode="after")
    def _linked(self) -> "Config":
        away = [camera for camera in self.cameras if camera.host is not None]
        if away and self.link is None:
            raise ValueError(f"link: is required, for camera {away[0].id!r} is on host {away[0].host!r}")
        return self

    def at(self, host: str | None) -> "Config":
        """With the cameras of that host alone; None: all, as the host that searches knows them.  Raises ConfigError."""
        if host is None:
            return self
        cameras = [camera for camera in self.cameras if camera.host == host]
        if not cameras:
            hosts = sorted({camera.host for camera in self.cameras if camera.host is not None})
            raise ConfigError(f"no camera is on host {host!r}; allowed: {', '.join(hosts) or 'none is named'}")
        return self.model_copy(update={"cameras": cameras})

    @property
    def store_path(self) -> Path:
        return self.store.path or self.run_dir / "store.sqlite"

    @property
    def log_path(self) -> Path:
        return self.log.file or self.run_dir / "dasnet.log"

    def sink_path(self, sink: JsonlSink) -> Path:
        return sink.path or self.run_dir / "events.jsonl"

    @property
    def secrets(self) -> frozenset[str]:
        """What stood in the environment and in secret files, and what addresses hold."""
        return self._secrets.union(*(secrets_of(camera.uri) for camera in self.cameras))

    @property
    def redactor(self) -> Redactor:
        """Hides every secret of this configuration in a text."""
        return Redactor(self.secrets)

    def ledger_path(self, camera: str) -> Path:
        return self.run_dir / "ledgers" / f"{camera}.ledger"

    @property
    def metrics_address_path(self) -> Path:
        """Where the running program says the URL of its metrics, whose port may be any free one."""
        return self.run_dir / "metrics.address"

    def camera(self, name: str) -> Camera:
        for camera in self.cameras:
            if camera.id == name:
                return camera
        raise ConfigError(f"no camera {name!r}; allowed: {', '.join(camera.id for camera in self.cameras)}")
