"""Open sessions of the console: random tokens, of which only the hashes are stored.

A file in the run folder preserves them across restarts; where it cannot be written they end with the console.  They end
on logout, after their time, and when anything about their user changes.
"""

import hashlib
import secrets
import time
from pathlib import Path

import msgspec
import structlog

from pipeline.config.users import User
from pipeline.store.folders import write_private

MAX_SESSIONS = 1000  # more: the oldest ends


class _Session(msgspec.Struct, frozen=True):
    user: str
    digest: str  # of the user: with any other one the session has ended
    expiry_s: float  # since 1970


class Sessions:
    """The open sessions, each of which lasts `session_s`."""

    def __init__(self, path: Path, session_s: float) -> None:
        self.session_s = session_s
        self._path = path
        self._open: dict[str, _Session] = self._read()  # by digest of the token, oldest first

    def begin(self, user: User) -> str:
        """Open a session, and return its token."""
        token = secrets.token_urlsafe(32)
        self._open[_digest(token)] = _Session(user.name, user.digest, time.time() + self.session_s)
        self._write()
        return token

    def user(self, token: str, users: dict[str, User]) -> User | None:
        """Return the user of an open session, or None."""
        session = self._open.get(_digest(token)) if token else None
        if session is None or session.expiry_s <= time.time():
            return None
        user = users.get(session.user)
        return user if user is not None and user.digest == session.digest else None

    def end(self, token: str) -> None:
        """Close a session."""
        if self._open.pop(_digest(token), None) is not None:
            self._write()

    def _read(self) -> dict[str, _Session]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, _Session])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            structlog.get_logger().warning("sessions cannot be read; all are closed", reason=str(error))
            return {}

    def _write(self) -> None:
        now_s = time.time()
        living = [(digest, session) for digest, session in self._open.items() if session.expiry_s > now_s]
        self._open = dict(living[-MAX_SESSIONS:])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # In the console's loop: what a power cut damages closes all sessions, and no more.
            write_private(self._path, msgspec.json.encode(self._open), is_durable=False)
        except OSError as error:
            structlog.get_logger().warning("sessions cannot be stored", reason=error.strerror)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
