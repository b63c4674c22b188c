"""What runs here: versions, engine, checkpoint, configuration.

In: the configuration, and what the host's metrics say of the engine.  Out: the same without anything secret: a text
with `${...}` in it is shown as written, addresses without user, password and query, and nothing under a key that names
a secret.
"""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import msgspec

from model.description import read_description
from model.errors import CheckpointError
from pipeline import __version__
from pipeline.checkpoints import SHIPPED
from pipeline.config.models import Config
from pipeline.config.uri import public_uri
from pipeline.config.yaml_file import dotted

PACKAGES = ("torch", "opencv-python-headless", "av", "numpy", "pyzmq", "scipy", "starlette", "uvicorn", "msgspec")
SECRET_WORDS = ("password", "passphrase", "secret", "token", "key", "credential", "auth", "header")
HIDDEN = "•••"


class Checkpoint(msgspec.Struct, frozen=True):
    file: str
    bytes: int
    described: dict[str, Any]  # the header of the file; empty for one of the original
    card: str | None  # the text that comes with the shipped one
    error: str | None


class Status(msgspec.Struct, frozen=True):
    version: str
    python: str
    system: str
    packages: dict[str, str]
    build: dict[str, str]  # what the workers say that they run: version, model, engine; empty: not known
    checkpoint: Checkpoint
    config: dict[str, Any]


def status(config: Config, build: dict[str, str]) -> Status:
    """Reads files."""
    return Status(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages={name: version for name in PACKAGES if (version := _version(name))},
        build=build,
        checkpoint=_checkpoint(config.model.checkpoint or SHIPPED),
        config=public(config.model_dump(mode="json"), config.references),
    )


def public(value: Any, references: dict[str, str], key: tuple[str | int, ...] = ()) -> Any:
    """A configuration as anybody may see it.  `references` holds, by dotted key, the texts as they are written."""
    if value is not None and key and _is_secret(str(key[-1])) and not str(key[-1]).endswith("_file"):
        return HIDDEN
    if isinstance(value, dict):
        return {name: public(item, references, (*key, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [public(item, references, (*key, number)) for number, item in enumerate(value)]
    value = references.get(dotted(key), value)
    if isinstance(value, str) and ("://" in value or key[-1:] == ("uri",)):
        return public_uri(value)
    return value


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_WORDS)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _checkpoint(path: Path) -> Checkpoint:
    described: dict[str, Any] = {}
    error = card = None
    try:
        described = read_description(path)
        size = path.stat().st_size
        if path == SHIPPED:
            card = path.with_name("README.md").read_text(encoding="utf-8")
    except (OSError, CheckpointError) as fault:
        error, size = str(fault), 0
    return Checkpoint(path.name, size, described, card, error)
