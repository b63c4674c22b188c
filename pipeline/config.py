"""The configuration: one YAML file, validated; unknown keys are refused.

`${NAME}` stands for an environment variable and `${file:PATH}` for the content of a secret file, in any text.  Relative
paths are relative to the configuration file, the run folder to the current one.  Errors name file, key, value and what
is allowed; a value that holds a secret is never shown.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.errors import ConfigError
from pipeline.redaction import HIDDEN, Redactor, secrets_of
from pipeline.types import Band

NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https")
SCHEMES = (*NETWORK_SCHEMES, "sdp", "file", "v4l2", "demo")
MIN_REGION_PX = 32
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_REFERENCE = re.compile(r"\$\{([^}]*)\}")

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
Point = tuple[float, float]
Side = Annotated[int, Field(ge=0, le=16384)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    def _known_scheme(cls, uri: str) -> str:
        scheme = uri.partition(":")[0]
        if scheme not in SCHEMES:
            shown = "" if "@" in scheme else f" {scheme[:20]!r}"  # a password may stand where the scheme should
            raise ValueError(f"unknown scheme{shown}; allowed: {', '.join(f'{s}:' for s in SCHEMES)}")
        if scheme in NETWORK_SCHEMES and not urlsplit(uri).hostname:
            raise ValueError(f"a camera's address needs a host, as in {scheme}://user:password@host/path")
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


class Retention(_Section):
    """What is deleted by itself: snapshots first, then old events, tracks and alerts; open alerts never."""

    days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    max_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0  # snapshots, store and events.jsonl together
    min_free_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None  # None: 2, a tenth of a smaller disk


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
    retention: Retention = Retention()
    metrics: Address = Address(port=9464)
    console: ConsoleAddress = ConsoleAddress(port=8470)
    sinks: list[JsonlSink] = [JsonlSink(type="jsonl")]
    log: Log = Log()
    run_dir: Path = Path("run")
    _secrets: frozenset[str] = PrivateAttr(frozenset())  # what stood in the environment and in secret files
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

    @property
    def redactor(self) -> Redactor:
        """Hides every secret of this configuration in a text."""
        return Redactor(self._secrets.union(*(secrets_of(camera.uri) for camera in self.cameras)))

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


def public_uri(uri: str) -> str:
    """Without user and password, also where they hold unescaped characters: all up to the last @ is taken for them.

    Without the query, too: some cameras take user and password there.  What has no known scheme may still hold them.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator and uri.partition(":")[0] in SCHEMES:
        return uri
    place, question, _ = (rest if separator else uri).rpartition("@")[2].partition("?")
    return (f"{scheme}://" if separator else "") + place + (f"?{HIDDEN}" if question else "")


def load(path: Path) -> Config:
    """Read, expand and validate.  Raises ConfigError with one line for each fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason})") from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {_yaml_fault(error)}") from None  # its text quotes the line
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: holds no configuration; allowed: a mapping with at least 'cameras'")
    secrets: set[str] = set()
    expanded = _expand(raw, path, (), secrets)
    try:
        config = Config.model_validate(expanded)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, raw, fault) for fault in error.errors())) from None
    config = _resolve(config, path.resolve().parent)
    hosts = [urlsplit(camera.public_uri).netloc for camera in config.cameras if camera.is_networked]
    config._secrets = frozenset(secret for secret in secrets if not any(secret in host for host in hosts))
    config._references.update(_written(raw, ()))
    return config


def _yaml_fault(error: yaml.YAMLError) -> str:
    """What is wrong and where, without what is written there: it may be a secret."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it holds characters that are not allowed"
    problem = re.sub(r"'[^'<]{2,}'", "a name", error.problem or "")
    return f"{problem} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"


def _written(value: Any, key: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list):
        for part, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _written(item, (*key, part))
    elif isinstance(value, str) and _REFERENCE.search(value):
        yield dotted(key), value


def _expand(value: Any, path: Path, key: tuple[str | int, ...], secrets: set[str]) -> Any:
    """With every reference replaced; what replaced them is added to `secrets`."""
    if isinstance(value, dict):
        return {name: _expand(item, path, (*key, name), secrets) for name, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, path, (*key, index), secrets) for index, item in enumerate(value)]
    if isinstance(value, str):
        values = {name: _referenced(name, path, key) for name in _REFERENCE.findall(value)}
        secrets.update(values.values())
        return _REFERENCE.sub(lambda match: values[match[1]], value)
    return value


def _referenced(name: str, path: Path, key: tuple[str | int, ...]) -> str:
    where = f"{path}: {dotted(key)}"
    if name.startswith("file:"):
        secret = path.resolve().parent / name.removeprefix("file:")
        try:
            return secret.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where}: secret file {secret} cannot be read ({type(error).__name__})") from error
    if name not in os.environ:
        raise ConfigError(f"{where}: environment variable {name} is not set")
    return os.environ[name]


def dotted(key: tuple[str | int, ...]) -> str:
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"


def _explain(path: Path, raw: Any, fault: Any) -> str:
    """One line: file, key, the value as written (so that an expanded secret never shows), and what is allowed."""
    key = tuple(part for part in fault["loc"] if part != "jsonl")
    written = raw
    for part in key:
        try:
            written = written[part]
        except (KeyError, IndexError, TypeError):
            written = None
            break
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        allowed = ", ".join(_allowed_keys(key[:-1]))
        return f"{path}: {dotted(key)}: unknown key; allowed: {allowed}"
    if fault["type"] == "missing":
        return f"{path}: {dotted(key)}: is required"
    shown = "" if isinstance(written, dict | list) or written is None else f" (given: {public_uri(str(written))!r})"
    return f"{path}: {dotted(key)}: {message}{shown}"


def _allowed_keys(key: tuple[str | int, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "cameras": Camera,
        "model": Model,
        "objective": Objective,
        "link": Link,
        "store": Store,
        "retention": Retention,
        "metrics": Address,
        "console": ConsoleAddress,
        "log": Log,
        "sinks": JsonlSink,
    }
    section = sections.get(str(key[0]), Config) if key else Config
    return list(section.model_fields)


def _resolve(config: Config, folder: Path) -> Config:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    cameras = [camera.model_copy(update={"uri": _absolute_uri(camera.uri, folder)}) for camera in config.cameras]
    sinks = [sink.model_copy(update={"path": absolute(sink.path)}) for sink in config.sinks]
    return config.model_copy(
        update={
            "cameras": cameras,
            "sinks": sinks,
            "model": config.model.model_copy(update={"checkpoint": absolute(config.model.checkpoint)}),
            "log": config.log.model_copy(update={"file": absolute(config.log.file)}),
            "console": config.console.model_copy(update={"password_file": absolute(config.console.password_file)}),
            "store": config.store.model_copy(update={"path": absolute(config.store.path)}),
            "link": config.link and config.link.model_copy(update={"keys": absolute(config.link.keys)}),
            "run_dir": config.run_dir.expanduser().absolute(),
        }
    )


def _absolute_uri(uri: str, folder: Path) -> str:
    scheme, _, rest = uri.partition(":")
    if scheme in ("file", "sdp"):
        return f"{scheme}:{folder / rest.removeprefix('//')}"
    if scheme == "demo" and rest.startswith("clips/"):
        return f"demo:clips/{folder / rest.removeprefix('clips/')}"
    return uri
