"""Read a site's YAML file into a Config.

`${NAME}` in a string is replaced by an environment variable and `${file:PATH}` by the content of a secret file; in the
user and password of an address the value may hold any character.  Relative paths are relative to the configuration
file, the run folder to the current folder.  Errors name file, line, key, value and what is expected, never a secret.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config.console import LOOPBACK
from pipeline.config.faults import explain, place
from pipeline.config.models import Config
from pipeline.config.sinks import JsonlSinkConfig
from pipeline.config.uri import REFERENCE, expanded, network_address
from pipeline.config.yaml_file import Document, Key, dotted, read_yaml
from pipeline.errors import ConfigError
from pipeline.redaction import Redactor, remember

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def load(path: Path) -> Config:
    """Read, expand and validate a configuration file.

    Raises:
        ConfigError: With one line for each fault.
    """
    document = read_yaml(path)
    if not isinstance(document.value, dict):
        raise ConfigError(f"{path}: must be a mapping with at least the key 'cameras'")
    secrets: set[str] = set()
    try:
        config = _validated(path, document, secrets)
    except ConfigError as error:
        raise ConfigError(Redactor(secrets)(str(error))) from None
    except Exception:
        remember(secrets)  # the error's text may hold them
        raise
    config._secrets = frozenset(secret for secret in secrets if not any(secret in host for host in _hosts(config)))
    config._references.update(_references(document.value, ()))
    config._path = path.absolute()
    remember(config.secrets)
    return config


def _validated(path: Path, document: Document, secrets: set[str]) -> Config:
    try:
        expanded_value = _expand(document.value, path, (), secrets)
        config = Config.model_validate(expanded_value, context={"folder": path.resolve().parent})
    except ValidationError as error:
        raise ConfigError("\n".join(explain(path, document, fault, Config) for fault in error.errors())) from None
    faults = [f"{place(path, document, key)}{dotted(key)}: {fault}" for key, fault in _conflicts(config)]
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def _conflicts(config: Config) -> Iterator[tuple[Key, str]]:
    """Yield each port and file that two parts of a configuration would use, by the later key."""
    listeners: list[tuple[Key, str, int]] = [
        (("metrics", "port"), config.metrics.host, config.metrics.port),
        (("console", "port"), config.console.host, config.console.port),
    ]
    if config.link and config.link.host is not None:
        listeners.append((("link", "port"), config.link.host, config.link.port))
        listeners.append((("link", "port"), config.link.host, config.link.results_port))
        listeners.append((("link", "port"), config.link.host, config.link.clips_port))
    for number, (key, host, port) in enumerate(listeners):
        for other, other_host, other_port in listeners[:number]:
            if port and port == other_port and _overlap(host, other_host):
                yield key, f"{port} is also the port of {dotted(other)}; must be another port, or 0 for any free one"
    written: dict[str, Key] = {}
    for key, path in [(("store", "path"), config.store_path), (("log", "file"), config.log_path), *_files(config)]:
        before = written.setdefault(os.path.normpath(path), key)
        if before != key:
            yield key, f"{path} is also written by {dotted(before)}; must be another file"
    yield from _sink_conflicts(config)
    yield from rule_conflicts(config)


def _files(config: Config) -> Iterator[tuple[Key, Path]]:
    for number, sink in enumerate(config.sinks):
        if isinstance(sink, JsonlSinkConfig):
            yield ("sinks", number, "path"), config.sink_path(sink)


def _sink_conflicts(config: Config) -> Iterator[tuple[Key, str]]:
    """Yield each name that two sinks have, and each camera of a filter that the site does not have."""
    known = [camera.id for camera in config.cameras]
    names: dict[str, Key] = {}
    for number, sink in enumerate(config.sinks):
        key: Key = ("sinks", number)
        before = names.setdefault(sink.name or sink.type, key)
        if before != key and (sink.name or not isinstance(sink, JsonlSinkConfig)):  # a file tells unnamed ones apart
            name = sink.name or sink.type
            yield (*key, "name"), f"{name!r} is also the name of {dotted(before)}; must be unique among the sinks"
        for at, camera in enumerate(sink.cameras or ()):
            if camera not in known:
                yield (*key, "cameras", at), f"no camera {camera!r}; must be one of {', '.join(known)}"


def rule_conflicts(config: Config) -> Iterator[tuple[Key, str]]:
    """Yield each name that two rules have, and each camera and zone of a rule that the site does not have."""
    known = [camera.id for camera in config.cameras]
    names: dict[str, Key] = {}
    for number, rule in enumerate(config.rules):
        key: Key = ("rules", number)
        before = names.setdefault(rule.name, key)
        if before != key:
            yield (*key, "name"), f"{rule.name!r} is also the name of {dotted(before)}; must be unique among the rules"
        for at, camera in enumerate(rule.cameras or ()):
            if camera not in known:
                yield (*key, "cameras", at), f"no camera {camera!r}; must be one of {', '.join(known)}"
        own = [camera for camera in config.cameras if rule.cameras is None or camera.id in rule.cameras]
        lines = {name for camera in own for name, points in camera.zones.items() if len(points) == 2}
        zones = {name for camera in own for name in (*camera.zones, *camera.sectors)}
        fitting = sorted(lines if rule.when == "cross" else zones - lines)
        expected = f"must be one of {', '.join(fitting)}" if fitting else "its cameras have none"
        for at, zone in enumerate(rule.zones or ()):
            if zone not in fitting:
                kind = "line" if rule.when == "cross" else "polygon or sector"
                yield (*key, "zones", at), f"no {kind} {zone!r}; {expected}"


def _overlap(host: str, other: str) -> bool:
    """Return whether one port cannot be bound on both addresses."""
    names = {LOOPBACK[0] if name == "localhost" else name for name in (host, other)}
    return len(names) == 1 or bool(names & {"", "*", "0.0.0.0", "::"})  # noqa: S104 - all interfaces


def _hosts(config: Config) -> list[str]:
    addresses = [network_address(camera.uri) for camera in config.cameras if camera.is_networked]
    cameras = [address.netloc for address in addresses if address is not None]
    return cameras + [sink.host for sink in config.sinks if sink.host is not None]


def _references(value: Any, key: Key) -> Iterator[tuple[str, str]]:
    """Yield every string with `${...}` by its dotted key."""
    if isinstance(value, dict | list):
        for part, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _references(item, (*key, part))
    elif isinstance(value, str) and REFERENCE.search(value):
        yield dotted(key), value


def _expand(value: Any, path: Path, key: Key, secrets: set[str]) -> Any:
    """Return the value with every reference replaced; the values are added to `secrets`."""
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
        raise ConfigError(f"{where}: ${{...}} must be ${{NAME}} or ${{file:PATH}}; write a literal ${{ as %24{{")
    if name not in os.environ:
        raise ConfigError(f"{where}: environment variable {name} is not set")
    return os.environ[name]
