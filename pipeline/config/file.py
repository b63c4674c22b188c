"""A site's YAML file in, its Config out.

`${NAME}` stands for an environment variable and `${file:PATH}` for the content of a secret file, in any text; in the
user and password of an address it may hold any character.  Relative paths are relative to the configuration file, the
run folder to the current one.  Errors name file, line, key, value and what is expected; a secret is never shown.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.config.models import (
    LOOPBACK,
    Address,
    Camera,
    Config,
    ConsoleAddress,
    JsonlSink,
    Link,
    Log,
    Model,
    Objective,
    Retention,
    Store,
)
from pipeline.config.uri import REFERENCE, expanded, network_address, public_uri
from pipeline.config.yaml_file import Document, Key, dotted, read_yaml
from pipeline.errors import ConfigError
from pipeline.redaction import Redactor, remember

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def load(path: Path) -> Config:
    """Read, expand and validate.  Raises ConfigError with one line for each fault."""
    document = read_yaml(path)
    if not isinstance(document.value, dict):
        raise ConfigError(f"{path}: holds no configuration; must be a mapping with at least 'cameras'")
    secrets: set[str] = set()
    try:
        config = _validated(path, document, secrets)
    except ConfigError as error:
        raise ConfigError(Redactor(secrets)(str(error))) from None
    except Exception:
        remember(secrets)  # whatever this is, its text may hold them
        raise
    config._secrets = frozenset(secret for secret in secrets if not any(secret in host for host in _hosts(config)))
    config._references.update(_written(document.value, ()))
    remember(config.secrets)
    return config


def _validated(path: Path, document: Document, secrets: set[str]) -> Config:
    try:
        config = Config.model_validate(_expand(document.value, path, (), secrets))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, document, fault) for fault in error.errors())) from None
    config = _resolve(config, path.resolve().parent)
    faults = [f"{_place(path, document, key)}{dotted(key)}: {fault}" for key, fault in _clashes(config)]
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def _clashes(config: Config) -> Iterator[tuple[Key, str]]:
    """What two parts of a configuration would both use."""
    listeners: list[tuple[Key, str, int]] = [
        (("metrics", "port"), config.metrics.host, config.metrics.port),
        (("console", "port"), config.console.host, config.console.port),
    ]
    if config.link:
        listeners.append((("link", "port"), config.link.host, config.link.port))
        listeners.append((("link", "port"), config.link.host, config.link.results_port))
    for number, (key, host, port) in enumerate(listeners):
        for other, other_host, other_port in listeners[:number]:
            if port and port == other_port and _overlap(host, other_host):
                yield key, f"{port} is the port of {dotted(other)} too; must be another one, or 0 for any free one"
    sinks = [(("sinks", number, "path"), config.sink_path(sink)) for number, sink in enumerate(config.sinks)]
    written: dict[str, Key] = {}
    for key, path in [(("store", "path"), config.store_path), (("log", "file"), config.log_path), *sinks]:
        before = written.setdefault(os.path.normpath(path), key)
        if before != key:
            yield key, f"{path} is written by {dotted(before)} too; must be another file"


def _overlap(host: str, other: str) -> bool:
    """Whether one port cannot be listened at on both."""
    names = {LOOPBACK[0] if name == "localhost" else name for name in (host, other)}
    return len(names) == 1 or bool(names & {"", "*", "0.0.0.0", "::"})  # noqa: S104 - all addresses of a host


def _hosts(config: Config) -> list[str]:
    addresses = [network_address(camera.uri) for camera in config.cameras if camera.is_networked]
    return [address.netloc for address in addresses if address is not None]


def _written(value: Any, key: Key) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list):
        for part, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _written(item, (*key, part))
    elif isinstance(value, str) and REFERENCE.search(value):
        yield dotted(key), value


def _expand(value: Any, path: Path, key: Key, secrets: set[str]) -> Any:
    """With every reference replaced; what replaced them is added to `secrets`."""
    if isinstance(value, dict):
        return {name: _expand(item, path, (*key, name), secrets) for name, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, path, (*key, index), secrets) for index, item in enumerate(value)]
    if isinstance(value, str):
        values = {name: _referenced(name, path, key) for name in REFERENCE.findall(value)}
        secrets.update(values.values())
        return expanded(value, values)
    return value


def _referenced(name: str, path: Path, key: Key) -> str:
    where = f"{path}: {dotted(key)}"
    if name.startswith("file:"):
        secret = path.resolve().parent / name.removeprefix("file:")
        try:
            return secret.read_text(encoding="utf-8-sig").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise ConfigError(f"{where}: secret file {secret} cannot be read ({type(error).__name__})") from None
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: ${{...}} holds no name; must be ${{NAME}} or ${{file:PATH}}, or written as %24{{")
    if name not in os.environ:
        raise ConfigError(f"{where}: environment variable {name} is not set")
    return os.environ[name]


def _explain(path: Path, document: Document, fault: Any) -> str:
    """One line: file, key, what is expected, and the value as it is written, so that an expanded secret never shows."""
    key = tuple(part for part in fault["loc"] if part != "jsonl")
    written = document.value
    for part in key:
        try:
            written = written[part]
        except (KeyError, IndexError, TypeError):
            written = None
            break
    place = _place(path, document, key)
    if fault["type"] == "extra_forbidden":
        # In braces, a comma in a password that is not in quotes ends it: what follows is no key.
        name = dotted(key) if written is not None else dotted((*key[:-1], "a key without a value"))
        return f"{place}{name}: unknown key; must be one of {', '.join(_known_keys(key[:-1]))}"
    if fault["type"] == "missing":
        return f"{place}{dotted(key)}: is required"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place}{dotted(key)}: {message}{_given(key, written)}"


def _given(key: Key, written: Any) -> str:
    if written is None or isinstance(written, dict | list):
        return ""
    is_address = key[-1:] == ("uri",) or (isinstance(written, str) and ":" in written)
    return f" (given: {public_uri(str(written)) if is_address else str(written)!r})"


def _place(path: Path, document: Document, key: Key) -> str:
    line = document.line(key)
    return f"{path}: " if line is None else f"{path}:{line}: "


def _known_keys(key: Key) -> list[str]:
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

    tls = config.console.tls
    if tls is not None:
        tls = tls.model_copy(update={"certificate": absolute(tls.certificate), "key": absolute(tls.key)})
    cameras = [camera.model_copy(update={"uri": _absolute_uri(camera.uri, folder)}) for camera in config.cameras]
    sinks = [sink.model_copy(update={"path": absolute(sink.path)}) for sink in config.sinks]
    return config.model_copy(
        update={
            "cameras": cameras,
            "sinks": sinks,
            "model": config.model.model_copy(update={"checkpoint": absolute(config.model.checkpoint)}),
            "log": config.log.model_copy(update={"file": absolute(config.log.file)}),
            "console": config.console.model_copy(
                update={"password_file": absolute(config.console.password_file), "tls": tls}
            ),
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
