"""The configuration of a site, as pydantic models that reject unknown keys.

`pipeline.config.file` reads it from YAML, and passes the folder of the file as the validation context `folder`, against
which paths are resolved.  The text below an attribute is its description in docs/configuration.md.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr, model_validator

from pipeline.config.camera import Camera
from pipeline.config.console import ConsoleAddress, MetricsAddress
from pipeline.config.hosts import InferenceHost, Link, NatsConfig
from pipeline.config.model import Model, Objective
from pipeline.config.rules import RuleConfig
from pipeline.config.section import Identifier, Section, WorkingPath
from pipeline.config.sinks import JsonlSinkConfig, PushSinkConfig, SinkConfig
from pipeline.config.storage import EvidenceConfig, LogConfig, RecordingConfig, RetentionConfig, StoreConfig
from pipeline.errors import ConfigError
from pipeline.redaction import Redactor


class Config(Section):
    """A site."""

    cameras: Annotated[list[Camera], Field(min_length=1)]
    model: Model = Model()
    objective: Objective = Objective()
    link: Link | None = None
    hosts: dict[Identifier, InferenceHost] = {}
    """The inference hosts that share the cameras; default: one, without a name. See
    [Several hosts](several-hosts.md#several-inference-hosts)."""
    nats: NatsConfig | None = None
    store: StoreConfig = StoreConfig()
    retention: RetentionConfig = RetentionConfig()
    recording: RecordingConfig = RecordingConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    metrics: MetricsAddress = MetricsAddress()
    """Address of `/metrics`, `/healthz` and `/readyz` of this host."""
    console: ConsoleAddress = ConsoleAddress()
    rules: list[RuleConfig] = []
    sinks: list[SinkConfig] = [JsonlSinkConfig(type="jsonl")]
    log: LogConfig = LogConfig()
    run_dir: Annotated[WorkingPath, Field(validate_default=True)] = Path("run")
    """The run folder: everything that a run writes, unless configured elsewhere."""
    _secrets: frozenset[str] = PrivateAttr(frozenset())
    _references: dict[str, str] = PrivateAttr(default_factory=dict)
    _inference_host: str | None = PrivateAttr(None)
    _pins: dict[str, str] = PrivateAttr(default_factory=dict)
    _path: Path | None = PrivateAttr(None)

    @property
    def path(self) -> Path | None:
        """The file that it was read from; None: from none."""
        return self._path

    @property
    def inference_host(self) -> str | None:
        """The name of the inference host that this is the configuration of, one of `hosts`; see `for_host`."""
        return self._inference_host

    @property
    def pins(self) -> dict[str, str]:
        """The only host that may process a camera, by camera."""
        return self._pins

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
        remote = [camera for camera in self.cameras if camera.host is not None and camera.host not in self.hosts]
        if remote and self.link is None:
            raise ValueError(f"link: is required because camera {remote[0].id!r} is on host {remote[0].host!r}")
        if self.link is not None and (self.link.host is None) != bool(self.hosts):
            fault = "must not be set in a site with hosts, which have an address each" if self.hosts else "is required"
            raise ValueError(f"link.host: {fault}")
        return self

    @model_validator(mode="after")
    def _shared(self) -> "Config":
        if bool(self.hosts) != (self.nats is not None):
            key, other = ("nats", "hosts") if self.hosts else ("hosts", "nats")
            raise ValueError(f"{key}: is required because {other} is set")
        recording = next((camera for camera in self.cameras if self.hosts and not camera.is_live), None)
        if recording is not None:
            raise ValueError(
                f"hosts: camera {recording.id!r} is a recording, which would begin anew on another host; must be live"
            )
        return self

    def for_host(self, host: str | None) -> "Config":
        """Return the configuration of one host.

        Of an edge host: with its cameras only.  Of one of `hosts`: with those that no other host captures as its own,
        and with its own ports and folders.  None: unchanged, of the only inference host.

        Raises:
            ConfigError: No camera is on that host, or there are several inference hosts and none is named.
        """
        if host is None and self.hosts:
            raise ConfigError(f"--host: is required in a site with hosts; must be one of {', '.join(self.hosts)}")
        if host is None or host == self._inference_host:
            return self
        if host in self.hosts:
            return self._for_inference_host(host, self.hosts[host])
        cameras = [camera for camera in self.cameras if camera.host == host]
        if not cameras:
            hosts = sorted({camera.host for camera in self.cameras if camera.host is not None} | self.hosts.keys())
            expected = f"must be one of {', '.join(hosts)}" if hosts else "expected a camera with the key 'host'"
            raise ConfigError(f"no camera is on host {host!r}; {expected}")
        return self.model_copy(update={"cameras": cameras})

    def _for_inference_host(self, host: str, entry: InferenceHost) -> "Config":
        own = self.model_copy(
            update={
                "cameras": [
                    camera.model_copy(update={"host": None}) if camera.host == host else camera
                    for camera in self.cameras
                ],
                "run_dir": entry.run_dir or self.run_dir,
                "metrics": self.metrics.at(entry.metrics_port),
                "console": self.console.at(entry.console_port),
                "model": self.model.model_copy(update={"device": entry.device or self.model.device}),
                "link": self.link and self.link.at(entry),
            }
        )
        own._inference_host = host
        own._pins = {camera.id: camera.host for camera in self.cameras if camera.host and camera.host in self.hosts}
        return own

    def with_cameras_of(self, other: "Config") -> "Config":
        """Return the same site with cameras and rules of another configuration; the secrets of both stay redacted."""
        merged = self.model_copy(update={"cameras": other.cameras, "rules": other.rules})
        merged._pins = other._pins
        merged._secrets = self._secrets.union(other._secrets, *(camera.secrets for camera in self.cameras))
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
    def push(self) -> PushSinkConfig | None:
        """The sink that pushes to browsers, or None."""
        return next((sink for sink in self.sinks if isinstance(sink, PushSinkConfig)), None)

    @property
    def secrets(self) -> frozenset[str]:
        """Values of environment variables and secret files, and the secrets of camera addresses and sinks."""
        own = [sink.secrets for sink in self.sinks]
        own += [self.nats.secrets] if self.nats is not None else []
        return self._secrets.union(*own, *(camera.secrets for camera in self.cameras))

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
