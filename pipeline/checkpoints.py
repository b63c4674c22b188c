"""Which checkpoint is used where none is named."""

from pathlib import Path

import model
from pipeline.errors import ConfigError

SHIPPED = Path(model.__path__[0]) / "weights" / "dasnet.safetensors"


def checkpoint_path(named: Path | None) -> Path:
    """Raises ConfigError where the file is not there."""
    path = named or SHIPPED
    if not path.is_file():
        raise ConfigError(f"checkpoint {path}: no such file; allowed: a .safetensors file of dasnet, or a .pth file")
    return path
