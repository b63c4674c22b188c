"""The configuration of a site, as pydantic models that reject unknown keys.

`pipeline.config.file` reads it from YAML, and passes the folder of the file as the validation context `folder`, against
which paths are resolved.  The text below an attribute is its description in docs/configuration.md.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, IPvAnyNetwork, PrivateAttr, ValidationInfo, field_validator, model_validator

from pipeline.config.camera import Camera
from pipeline.config.rules import RuleConfig
from pipeline.config.section import Section, SitePath, WorkingPath
from pipeline.config.sinks import JsonlSinkConfig, SinkConfig
from pipeline.config.storage import EvidenceConfig, RecordingConfig, RetentionConfig, StoreConfig
from pipeline.errors import ConfigError
from pipeline.redaction import Redactor, secrets_of

LOOPBACK = ("127.0.0.1", "localhost", "::1")

Fraction = Annotated[float, Field(ge=0, le=1)]
MIN_SHARE = 0.02
Share = Annotated[float, Field(ge=MIN_SHARE, le=1)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Model(Section):
    """The segmentation network, and where it runs."""

    checkpoint: SitePath | None = None
    """A checkpoint of dasnet or of the original DAS-Net; default: the shipped one."""
    threshold: Fraction | None = None
    """Segmentation threshold: object probability above which a pixel is foreground; default: the checkpoint's."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    role: Literal["alert", "record"] = "alert"
    """Operating point: `alert`, few false alarms, or `record`, nothing missed."""
    engine: str = "auto"
    """Inference engine: `auto`, or one listed by `dasnet replay --help`; `dasnet doctor` shows what `auto` selects."""
    share: Literal["auto"] | Share = "auto"
    """Share of each live frame's pixels that the network looks at; `auto`: all, or as much as keeps up with cameras."""


class Objective(Section):
    """The latency objective: bounds queueing and batching; the metrics count frames that miss it."""

    capture_to_track_ms: Annotated[float, Field(gt=0)] = 500.0
    """Time from the reception of a frame to its tracks, in milliseconds."""


class Address(Section):
    """A listening address of this host."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 0
    """TCP port; 0: any free port."""


class Tls(Section):
    """TLS for the console: PEM files, reloaded when they change; default: plain HTTP."""

    certificate: SitePath
    """The certificate, followed by intermediate certificates."""
    key: SitePath
    """The private key, without a passphrase."""


class ConsoleAddress(Address):
    """The operator's web console."""

    tls: Tls | None = None
    trusted_proxies: list[IPvAnyNetwork] = []
    """Networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted."""
    password_file: Annotated[SitePath | None, Field(validate_default=True)] = None
    """Password file, written by `dasnet password FILE`; required unless `console.host` is loopback."""

    @field_validator("password_file")
    @classmethod
    def _password_unless_loopback(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        host = info.data.get("host", LOOPBACK[0])
        if path is None and host not in LOOPBACK:
            raise ValueError(
                f"is required because console.host {host!r} would be reachable without a password; create one with"
                f" `dasnet password FILE`, or set console.host to one of {', '.join(LOOPBACK)}"
            )
        return path


class Link(Section):
    """Connection of edge hosts to the inference host; required where a camera has a `host`."""

    host: str
    """Address of the inference host, as the edge hosts reach it."""
    port: Annotated[int, Field(ge=1, le=65533)] = 5570
    """TCP port for frames; camera states use the next port, and clips the one after that."""
    pixels: Literal["raw", "jpeg"] = "raw"
    """Frame encoding on the network; `jpeg` needs about a tenth of the bandwidth, but adds latency and loses small
    targets."""
    encrypted: bool = True
    """CURVE encryption and authentication; `false` only on a trusted, isolated network."""
    keys: Annotated[SitePath | None, Field(validate_default=True)] = None
    """Folder of the CURVE keys, written by `dasnet keys FOLDER HOST...`; required where `encrypted`."""

    @property
    def results_port(self) -> int:
        """TCP port for camera states."""
        return self.port + 1

    @property
    def clips_port(self) -> int:
        """TCP port for clips."""
        return self.port + 2

    @field_validator("keys")
    @classmethod
    def _keys_if_encrypted(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None and info.data.get("encrypted", True):
            raise ValueError(
                "is required; create them with `dasnet keys FOLDER HOST...`, or set link.encrypted to false on a "
                "trusted, isolated network"
            )
        if path is not None and not info.data.get("encrypted", True):
            raise ValueError("must not be set while link.encrypted is false")
        return path


class LogConfig(Section):
    """Logging."""

    format: Literal["console", "json"] = "console"
    """Format on stderr; the log file holds JSON."""
    file: SitePath | None = None
    """The log file; default: `dasnet.log` in the run folder."""


class Config(Section):
    """A site."""

    cameras: Annotated[list[Camera], Field(min_length=1)]
    model: Model = Model()
    objective: Objective = Objective()
    link: Link | None = None
    store: StoreConfig = StoreConfig()
    retention: RetentionConfig = RetentionConfig()
    recording: RecordingConfig = RecordingConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    metrics: Address = Address(port=9464)
    """Address of `/metrics`, `/healthz` and `/readyz` of this host."""
    console: ConsoleAddress = ConsoleAddress(port=8470)
    rules: list[RuleConfig] = []
    sinks: list[SinkConfig] = [JsonlSinkConfig(type="jsonl")]
    log: LogConfig = LogConfig()
    run_dir: Annotated[WorkingPath, Field(validate_default=True)] = Path("run")
    """The run folder: everything that a run writes, unless configured elsewhere."""
    _secrets: frozenset[str] = PrivateAttr(frozenset())
    _references: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def references(self) -> dict[str, str]:
        """Strings with `${...}` as written in the file, by dotted key; their values may be secret."""
        return self._references

    @model_validator(mode="after")
    def _unique_cameras(self) -> "Config":
        ids = [camera.id for camera in self.cameras]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"cameras: id {twice[0]!r} is used twice; must be unique")
        return self

    @model_validator(mode="after")
    def _linked(self) -> "Config":
        remote = [camera for camera in self.cameras if camera.host is not None]
        if remote and self.link is None:
            raise ValueError(f"link: is required because camera {remote[0].id!r} is on host {remote[0].host!r}")
        return self

    def for_host(self, host: str | None) -> "Config":
        """Return the configuration with only the cameras of an edge host, or unchanged for the inference host (None).

        Raises:
            ConfigError: No camera is on that host.
        """
        if host is None:
            return self
        cameras = [camera for camera in self.cameras if camera.host == host]
        if not cameras:
            hosts = sorted({camera.host for camera in self.cameras if camera.host is not None})
            expected = f"must be one of {', '.join(hosts)}" if hosts else "expected a camera with the key 'host'"
            raise ConfigError(f"no camera is on host {host!r}; {expected}")
        return self.model_copy(update={"cameras": cameras})

    def with_cameras_of(self, other: "Config") -> "Config":
        """Return the same site with cameras and rules of another configuration; the secrets of both stay redacted."""
        merged = self.model_copy(update={"cameras": other.cameras, "rules": other.rules})
        merged._secrets = self._secrets.union(other._secrets, *(secrets_of(camera.uri) for camera in self.cameras))
        merged._references = {key: text for key, text in self._references.items() if not key.startswith("cameras[")}
        merged._references |= {key: text for key, text in other._references.items() if key.startswith("cameras[")}
        return merged

    @property
    def has_arming(self) -> bool:
        """Whether any rule applies only while the site is armed."""
        return any(rule.needs_arming for rule in self.rules)

    @property
    def store_path(self) -> Path:
        """File of the store."""
        return self.store.path or self.run_dir / "store.sqlite"

    @property
    def log_path(self) -> Path:
        """The log file."""
        return self.log.file or self.run_dir / "dasnet.log"

    def sink_path(self, sink: JsonlSinkConfig) -> Path:
        """Return the file of a JSONL sink."""
        return sink.path or self.run_dir / "events.jsonl"

    @property
    def secrets(self) -> frozenset[str]:
        """Values of environment variables and secret files, and the secrets of camera addresses and sinks."""
        own = (sink.secrets for sink in self.sinks)
        return self._secrets.union(*own, *(secrets_of(camera.uri) for camera in self.cameras))

    @property
    def redactor(self) -> Redactor:
        """A redactor of every secret of this configuration."""
        return Redactor(self.secrets)

    @property
    def snapshots_path(self) -> Path:
        """Folder of the alerts' snapshots."""
        return self.run_dir / "snapshots"

    @property
    def clips_path(self) -> Path:
        """Folder of the alerts' clips."""
        return self.run_dir / "clips"

    @property
    def evidence_path(self) -> Path:
        """Folder of the evidence log."""
        return self.run_dir / "evidence"

    @property
    def evidence_key_path(self) -> Path:
        """File of the secret key that signs the evidence log."""
        return self.evidence.key or self.run_dir / "evidence.key_secret"

    @property
    def spill_path(self) -> Path:
        """File of events that wait for a failing store."""
        return self.run_dir / "spill.jsonl"

    def ledger_path(self, camera: str) -> Path:
        """Return the file of a camera's frame counts."""
        return self.run_dir / "ledgers" / f"{camera}.ledger"

    @property
    def metrics_address_path(self) -> Path:
        """File that holds the URL of the running program's metrics; their port may be any free one."""
        return self.run_dir / "metrics.address"

    def camera(self, name: str) -> Camera:
        """Return the camera of that id.

        Raises:
            ConfigError: There is none.
        """
        for camera in self.cameras:
            if camera.id == name:
                return camera
        raise ConfigError(f"no camera {name!r}; must be one of {', '.join(camera.id for camera in self.cameras)}")
