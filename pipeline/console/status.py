"""Versions, engine, checkpoint and configuration of the running program, without secrets.

Strings with `${...}` are shown as written, addresses without user, password and query, and values of keys that name a
secret not at all.
"""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import msgspec

from model.description import read_description
from model.errors import CheckpointError
from pipeline import __version__
from pipeline.checkpoints import WEIGHTS, checkpoint_file
from pipeline.config.models import Config
from pipeline.config.uri import public_uri, public_url
from pipeline.config.yaml_file import dotted
from pipeline.console.model_card import card_html
from pipeline.redaction import is_secret_key

PACKAGES = ("torch", "opencv-python-headless", "av", "numpy", "pyzmq", "scipy", "starlette", "uvicorn", "msgspec")
HIDDEN = "•••"


class Checkpoint(msgspec.Struct, frozen=True):
    """The checkpoint in use."""

    file: str
    bytes: int
    described: dict[str, Any]  # its metadata; empty for a checkpoint of the original DAS-Net
    card: str | None  # model card as Markdown; shipped checkpoint only
    card_html: str | None
    error: str | None


class Status(msgspec.Struct, frozen=True):
    """Versions, engine, checkpoint and configuration."""

    version: str
    python: str
    system: str
    packages: dict[str, str]
    build: dict[str, str]  # version, model and engine reported by the workers; empty if unknown
    checkpoint: Checkpoint
    config: dict[str, Any]


def status(config: Config, build: dict[str, str]) -> Status:
    """Return the status; reads files."""
    return Status(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages={name: version for name in PACKAGES if (version := _version(name))},
        build=build,
        checkpoint=_checkpoint(checkpoint_file(config.model.checkpoint)),
        config=public(config.model_dump(mode="json", by_alias=True), config.references),
    )


def public(value: Any, references: dict[str, str], key: tuple[str | int, ...] = ()) -> Any:
    """Return a configuration without secrets; `references` holds strings with `${...}` as written, by dotted key."""
    if value is not None and key and is_secret_key(str(key[-1])) and not str(key[-1]).endswith("_file"):
        return HIDDEN
    if isinstance(value, dict):
        return {name: public(item, references, (*key, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [public(item, references, (*key, number)) for number, item in enumerate(value)]
    value = references.get(dotted(key), value)
    if isinstance(value, str) and key[-1:] == ("url",):
        return public_url(value)
    if isinstance(value, str) and ("://" in value or key[-1:] == ("uri",)):
        return public_uri(value)
    return value


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
        if path.parent == WEIGHTS:
            card = path.with_name("README.md").read_text(encoding="utf-8")
    except (OSError, CheckpointError) as fault:
        error, size = str(fault), 0
    return Checkpoint(path.name, size, described, card, card and card_html(card), error)
