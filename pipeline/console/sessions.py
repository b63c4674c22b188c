"""Open sessions of the console: random tokens, of which only the hashes are stored.

A file in the run folder preserves them across restarts; where it cannot be written they end with the console.  They end
on logout, after SESSION_S, and all of them when the password changes.
"""

import hashlib
import os
import secrets
import time
from pathlib import Path

import msgspec
import structlog

SESSION_S = 7 * 24 * 3600
MAX_SESSIONS = 1000  # more: the oldest ends


class _Stored(msgspec.Struct):
    password: str  # digest of the password's hash; with another password all sessions have ended
    sessions: dict[str, int]  # expiry in s since 1970 by digest of the token, oldest first


class Sessions:
    """The open sessions."""

    def __init__(self, path: Path, password_hash: str) -> None:
        self._path = path
        self._password = _digest(password_hash)
        self._expiry_s: dict[str, int] = self._read()

    def begin(self) -> str:
        """Open a session, and return its token."""
        token = secrets.token_urlsafe(32)
        self._expiry_s[_digest(token)] = int(time.time()) + SESSION_S
        self._write()
        return token

    def is_open(self, token: str) -> bool:
        """Return whether a token belongs to an open session."""
        return self._expiry_s.get(_digest(token), 0) > time.time()

    def end(self, token: str) -> None:
        """Close a session."""
        if self._expiry_s.pop(_digest(token), None) is not None:
            self._write()

    def _read(self) -> dict[str, int]:
        try:
            stored = msgspec.json.decode(self._path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            structlog.get_logger().warning("sessions cannot be read; all are closed", reason=str(error))
            return {}
        return stored.sessions if stored.password == self._password else {}

    def _write(self) -> None:
        now_s = time.time()
        living = [(digest, expiry_s) for digest, expiry_s in self._expiry_s.items() if expiry_s > now_s]
        self._expiry_s = dict(living[-MAX_SESSIONS:])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_private(self._path, msgspec.json.encode(_Stored(self._password, self._expiry_s)))
        except OSError as error:
            structlog.get_logger().warning("sessions cannot be stored", reason=error.strerror)


def write_private(path: Path, content: bytes) -> None:
    """Write a file atomically, readable by its owner only.

    Raises:
        OSError: It cannot be written.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
