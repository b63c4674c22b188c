"""Files that are written at once or not at all, and folders that a power cut must not lose."""

import os
import secrets
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


def write_private(path: Path, content: bytes, *, is_durable: bool = True) -> None:
    """Write or replace a file as `write_whole` does, readable by its owner only.  Raise OSError.

    If it is not durable, a power cut may damage it, and no disk is waited for.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
        if is_durable:
            sync_folder(path.parent)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
