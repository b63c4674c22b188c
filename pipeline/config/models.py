"""The configuration of a site, as pydantic models; unknown keys are refused.

`pipeline.config.file` reads it from YAML.  The text below an attribute is its description in docs/configuration.md.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.config.uri import NETWORK_SCHEMES, public_uri, uri_fault
from pipeline.errors import ConfigError
from pipeline.redaction import Redactor, secrets_of
from pipeline.types import Band

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
    """One camera: where it is and how its frames are processed."""

    id: Identifier
    """Name of the camera: letters, digits, `_` and `-`, up to 64; unique in the site."""
    uri: str
    """Address: see *Camera addresses* above."""
    band: Band = Band.VISIBLE
    """Selects the checkpoint's scale and thresholds."""
    transport: Literal["tcp", "udp"] = "tcp"
    """Transport of RTSP."""
    decode: Literal["auto", "cpu", "cuda", "vaapi"] = "cpu"
    """Where video is decoded; `auto`: in hardware where available, otherwise software. Hardware: experimental."""
    rate_fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Upper limit on frames per second; default: as the camera sends."""
    scale: Annotated[float, Field(gt=0, le=8)] | None = None
    """Factor from frame pixels to pixels of the network's input; default: the checkpoint's for the band."""
    ignore: list[Annotated[list[Point], Field(min_length=3)]] = []
    """Privacy masks: polygons `[[x, y], ...]` in frame pixels in which nothing is reported."""
    region: tuple[Side, Side, Side, Side] | None = None
    """Region of interest `[x0, y0, x1, y1]` in frame pixels; default: the whole frame."""
    host: Identifier | None = None
    """Edge host that decodes it, with `dasnet run --host NAME`; default: the inference host."""

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
    """Which network runs, and on what."""

    checkpoint: Path | None = None
    """A checkpoint of dasnet or of the original DAS-Net; default: the shipped one."""
    threshold: Fraction | None = None
    """Object probability from which a pixel belongs to a detection; default: the checkpoint's."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    engine: str = "auto"
    """`auto`, or an engine of `dasnet replay --help`; `dasnet doctor` says what `auto` chooses."""


class Objective(_Section):
    """The wanted latency: bounds waiting and batching, and is what the metrics measure against."""

    capture_to_track_ms: Annotated[float, Field(gt=0)] = 500.0
    """From the reception of a frame to its tracks, in ms."""


class Store(_Section):
    """The SQLite database of events, tracks and alerts."""

    path: Path | None = None
    """Its file; default: `store.sqlite` in the run folder."""


class Retention(_Section):
    """What is deleted automatically: snapshots first, then old events, tracks and closed alerts; never open alerts."""

    days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """Age from which it is deleted."""
    max_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    """Limit on snapshots, store and `events.jsonl` together."""
    min_free_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Disk space that stays free; default: 2, or a tenth of a disk smaller than 20 GB."""


class Address(_Section):
    """Where a service of this host listens."""

    host: str = "127.0.0.1"
    """Address to listen at."""
    port: Port = 0
    """TCP port; 0: any free one."""


class Tls(_Section):
    """TLS of the console, by PEM files that are read again when they change; default: plain HTTP."""

    certificate: Path
    """The certificate, with the intermediate ones."""
    key: Path
    """Its private key, without a passphrase."""


class ConsoleAddress(Address):
    """The operator's web console."""

    tls: Tls | None = None
    trusted_proxies: list[IPvAnyNetwork] = []
    """Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""
    password_file: Annotated[Path | None, Field(validate_default=True)] = None
    """Made by `dasnet password FILE`; required where `console.host` is not loopback."""

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
    """How edge hosts reach the inference host; required where a camera has a `host`."""

    host: str
    """Address of the inference host, as the edge hosts reach it."""
    port: Annotated[int, Field(ge=1, le=65534)] = 5570
    """TCP port of frames; camera states go to the next one."""
    pixels: Literal["raw", "jpeg"] = "raw"
    """How frames travel; `jpeg` needs about a tenth of the bandwidth, and costs time and small targets."""
    encrypted: bool = True
    """CURVE encryption and authentication; `false` only where nobody else can reach that network."""
    keys: Annotated[Path | None, Field(validate_default=True)] = None
    """Folder of the CURVE keys, made by `dasnet keys FOLDER HOST...`; required where `encrypted`."""

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
    """Where and how the program logs."""

    format: Literal["console", "json"] = "console"
    """Format of stderr; the log file holds JSON."""
    file: Path | None = None
    """The log file; default: `dasnet.log` in the run folder."""


class JsonlSink(_Section):
    """Where events are delivered: a file with one JSON object per line."""

    type: Literal["jsonl"]
    """Kind of the sink."""
    path: Path | None = None
    """Its file; default: `events.jsonl` in the run folder."""


class Config(_Section):
    """A site."""

    cameras: Annotated[list[Camera], Field(min_length=1)]
    model: Model = Model()
    objective: Objective = Objective()
    link: Link | None = None
    store: Store = Store()
    retention: Retention = Retention()
    metrics: Address = Address(port=9464)
    """`/metrics`, `/healthz` and `/readyz` of this host."""
    console: ConsoleAddress = ConsoleAddress(port=8470)
    sinks: list[JsonlSink] = [JsonlSink(type="jsonl")]
    log: Log = Log()
    run_dir: Path = Path("run")
    """Folder of everything that a run writes."""
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

    def with_cameras_of(self, other: "Config") -> "Config":
        """The same site with other cameras.  What stood for a secret in either is still hidden."""
        merged = self.model_copy(update={"cameras": other.cameras})
        merged._secrets = self._secrets.union(other._secrets, *(secrets_of(camera.uri) for camera in self.cameras))
        merged._references = {key: text for key, text in self._references.items() if not key.startswith("cameras[")}
        merged._references |= {key: text for key, text in other._references.items() if key.startswith("cameras[")}
        return merged

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

    @property
    def snapshots_path(self) -> Path:
        return self.run_dir / "snapshots"

    @property
    def spill_path(self) -> Path:
        """Events that wait for a store which fails."""
        return self.run_dir / "spill.jsonl"

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
