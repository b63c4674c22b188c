"""Open sessions of the console: a random token each, of which only the hash is kept.

They outlive a restart in a file of the run folder, and end by log-out, by age, and all of them with the password.
Where the file cannot be written they live until the console ends: then people log in again.
"""

import hashlib
import os
import secrets
import time
from pathlib import Path

import msgspec
import structlog

SESSION_S = 7 * 24 * 3600
MAX_SESSIONS = 1000  # the oldest one ends


class _Stored(msgspec.Struct):
    password: str  # the hash of its hash: of another password, all have ended
    sessions: dict[str, int]  # hash of a token -> when it expires, s since 1970; the oldest first


class Sessions:
    def __init__(self, path: Path, password_hash: str) -> None:
        self._path = path
        self._password = _digest(password_hash)
        self._expiry_s: dict[str, int] = self._read()

    def begin(self) -> str:
        """Return the token of a new session."""
        token = secrets.token_urlsafe(32)
        self._expiry_s[_digest(token)] = int(time.time()) + SESSION_S
        self._write()
        return token

    def is_open(self, token: str) -> bool:
        return self._expiry_s.get(_digest(token), 0) > time.time()

    def end(self, token: str) -> None:
        if self._expiry_s.pop(_digest(token), None) is not None:
            self._write()

    def _read(self) -> dict[str, int]:
        try:
            stored = msgspec.json.decode(self._path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            structlog.get_logger().warning("sessions cannot be read, all have ended", reason=str(error))
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
    """Write a file that its owner alone may read: whole or not at all.  Raise OSError."""
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
