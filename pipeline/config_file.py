"""A site's YAML file in, its Config out.

`${NAME}` stands for an environment variable and `${file:PATH}` for the content of a secret file, in any text.  Relative
paths are relative to the configuration file, the run folder to the current one.  Errors name file, key, value and what
is allowed; a value that holds a secret is never shown.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config import Address, Camera, Config, ConsoleAddress, JsonlSink, Link, Log, Model, Objective, Store
from pipeline.errors import ConfigError
from pipeline.uri import public_uri

_REFERENCE = re.compile(r"\$\{([^}]*)\}")


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
