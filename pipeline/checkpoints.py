"""The checkpoint to use: the configured one, a file or the name of a shipped one, else the default one."""

import hashlib
from pathlib import Path

import model
from pipeline.errors import ConfigError

WEIGHTS = Path(model.__path__[0]) / "weights"
SHIPPED = WEIGHTS / "dasnet.safetensors"  # by default


def checkpoint_file(configured: Path | None) -> Path:
    """Return the path of the configured checkpoint, which may be the name of a shipped one, or of the default one."""
    path = configured or SHIPPED
    shipped = WEIGHTS / f"{path.name}.safetensors"
    return shipped if not path.is_file() and shipped.is_file() else path


def checkpoint_path(configured: Path | None) -> Path:
    """Return the same.  Raise ConfigError where the file does not exist."""
    path = checkpoint_file(configured)
    if not path.is_file():
        names = " or ".join(sorted(each.stem for each in WEIGHTS.glob("*.safetensors")))
        raise ConfigError(f"checkpoint {path}: no such file; expected a .safetensors or .pth file, or {names}")
    return path


def checkpoint_sha256(path: Path) -> str:
    """Return the digest of a checkpoint's file, as its metadata has it when it is loaded."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
