"""Folders whose new files a power cut must not lose."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Sync a folder: otherwise a power cut could lose a new file's name, and its content.  Raise OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
