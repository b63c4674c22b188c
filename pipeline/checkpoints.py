"""The checkpoint to use: the configured one, else the shipped one."""

import hashlib
from pathlib import Path

import model
from pipeline.errors import ConfigError

SHIPPED = Path(model.__path__[0]) / "weights" / "dasnet.safetensors"


def checkpoint_path(configured: Path | None) -> Path:
    """Return the configured checkpoint or the shipped one.  Raise ConfigError where the file does not exist."""
    path = configured or SHIPPED
    if not path.is_file():
        raise ConfigError(f"checkpoint {path}: no such file; expected a .safetensors or .pth checkpoint")
    return path


def checkpoint_sha256(path: Path) -> str:
    """Return the digest of a checkpoint's file, as its metadata has it when it is loaded."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
