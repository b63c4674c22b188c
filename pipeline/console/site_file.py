"""The site's YAML file, as the console reads and writes it.

In: the file's path and its new text.  Out: the file, replaced at once or not at all, and its text before in
`<name>.bak`.  Who saves what was read before the file was changed is refused.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, DasnetError
from pipeline.store.folders import sync_folder


class ChangedError(DasnetError):
    """The file was changed since it was read."""


@dataclass(frozen=True)
class SiteFile:
    """The file as it was read: its place, its text, and a digest of its bytes."""

    path: Path
    text: str
    version: str

    @classmethod
    def read(cls, path: Path | None) -> "SiteFile":
        """Read the file.  Raise ConfigError where there is none that could be replaced."""
        if path is None:
            raise ConfigError("the site was not read from a file; zones must be changed where it comes from")
        try:
            if not path.is_file():
                raise ConfigError(f"{path}: must be a file, to be changed by the console")
            data = path.read_bytes()
            return cls(path, data.decode("utf-8"), hashlib.sha256(data).hexdigest())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError:
            raise ConfigError(f"{path}: cannot be read (must be UTF-8 text)") from None

    @property
    def fault(self) -> str:
        """Why it cannot be written; empty: it can."""
        real = self.path.resolve()
        if not os.access(real, os.W_OK):
            return f"{self.path}: cannot be written by the console (read-only)"
        if not os.access(real.parent, os.W_OK):
            return f"{real.parent}: cannot be written by the console (read-only folder)"
        return ""

    def write(self, text: str) -> "SiteFile":
        """Replace the file's text; return what it is then.

        Raises:
            ChangedError: The file is not as it was read.
            ConfigError: It cannot be written; nothing has changed.
        """
        if SiteFile.read(self.path).version != self.version:
            raise ChangedError(f"{self.path}: was changed meanwhile; load this page again")
        real, old, new = self.path.resolve(), self.text.encode(), text.encode()
        try:
            _replace(real.with_name(f"{real.name}.bak"), old, real)
            _replace(real, new, real)
            sync_folder(real.parent)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror})") from None
        return SiteFile(self.path, text, hashlib.sha256(new).hexdigest())


def _replace(path: Path, data: bytes, like: Path) -> None:
    """Write or replace a file with the owner and the permissions of another: it may hold secrets."""
    status, partial = like.stat(), path.with_name(f"{path.name}.new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with suppress(PermissionError):  # of another user: this one's then
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o777)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
