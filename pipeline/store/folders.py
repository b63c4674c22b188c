"""Files and folders that a power cut must not lose."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Sync a folder: otherwise a power cut could lose a new file's name, and its content.  Raise OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """Write or replace a file, at once or not at all, whatever is killed or loses its power.  Raise OSError."""
    new = path.with_name(f"{path.name}.new")  # no reader of *.json or *.jpg takes it for a whole one
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_folder(path.parent)
    except OSError:
        new.unlink(missing_ok=True)
        raise
