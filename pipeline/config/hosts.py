"""Several hosts: edge hosts (`link`), and inference hosts that share the cameras (`hosts` and `nats`)."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pipeline.config.section import Identifier, Section, SitePath, WorkingPath
from pipeline.config.sink import ClientTls
from pipeline.config.uri import network_address
from pipeline.redaction import secrets_of

Port = Annotated[int, Field(ge=0, le=65535)]


def _server(url: str) -> str:
    scheme, address = url.partition("://")[0], network_address(url)
    if scheme not in ("nats", "tls") or address is None or address.is_ambiguous or address.path or address.query:
        raise ValueError(
            "must be nats://HOST:PORT or tls://HOST:PORT, with USER:PASSWORD@ before the host where the server asks "
            "for them; / ? # @ and % in them must be percent-encoded"
        )
    return url


class InferenceHost(Section):
    """An inference host, by name: `dasnet run CONFIG --host NAME` starts it. Two GPUs of one machine are two hosts."""

    address: Annotated[str, Field(min_length=1)]
    """Its address, as edge hosts reach it."""
    capacity: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    """How many cameras it can process, in proportion to the other hosts."""
    port: Annotated[int, Field(ge=1, le=65533)] | None = None
    """TCP port for frames of edge hosts, as `link.port`, which is the default."""
    device: str | None = None
    """Inference device; default: `model.device`."""
    run_dir: WorkingPath | None = None
    """The run folder; default: the site's. Hosts on one machine must have different ones."""
    metrics_port: Port | None = None
    """TCP port of its metrics; default: `metrics.port`."""
    console_port: Port | None = None
    """TCP port of its console; default: `console.port`."""


class Link(Section):
    """Connection of edge hosts to the inference host; required where a camera has a `host`."""

    host: str | None = None
    """Address of the inference host, as the edge hosts reach it; required, except in a site with `hosts`."""
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

    def at(self, host: InferenceHost) -> "Link":
        """Return the link to one of several inference hosts."""
        return self.model_copy(update={"host": host.address, "port": host.port or self.port})

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


class NatsConfig(Section):
    """The NATS servers (JetStream) of a site with `hosts`; needs `pip install "dasnet[nats]"`."""

    servers: Annotated[list[Annotated[str, AfterValidator(_server)]], Field(min_length=1)]
    """Addresses, `nats://USER:PASSWORD@HOST:PORT` or `tls://`: the first that answers is used. Three or more must be of
    one NATS cluster: what hosts share is then on three of them, and survives the loss of one."""
    tls: ClientTls | None = None
    name: Identifier = "dasnet"
    """First part of the names of streams; must differ between sites on the same servers."""

    @field_validator("tls")
    @classmethod
    def _encrypted(cls, tls: ClientTls | None, info: ValidationInfo) -> ClientTls | None:
        if tls is not None and any(server.startswith("nats:") for server in info.data.get("servers", ())):
            raise ValueError("must be set with tls:// servers only")
        return tls

    @property
    def secrets(self) -> set[str]:
        """The addresses that hold a login, and the logins."""
        return {server for server in self.servers if "@" in server}.union(*map(secrets_of, self.servers))

    @property
    def replicas(self) -> int:
        """On how many servers the streams are: three survive the loss of one."""
        return 3 if len(self.servers) >= 3 else 1

    @property
    def places(self) -> str:
        """The servers for messages, without logins."""
        return ", ".join(place_of(server) for server in self.servers)


def login_of(server: str) -> tuple[str | None, str | None]:
    """Return the user and the password of a server's address, None where it has none."""
    address = network_address(server)
    user, colon, password = address.userinfo.partition(":") if address is not None else ("", "", "")
    return unquote(user) or None, unquote(password) if colon else None


def place_of(server: str) -> str:
    """Return the address of a server for messages, without its login."""
    address = network_address(server)
    return f"{server.partition('://')[0]}://{address.netloc if address is not None else ''}"
