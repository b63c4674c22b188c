"""The console's password: its file, and the sessions of those who gave it.

In: a password.  Out: a session where it is right.  The file holds an argon2id hash.
"""

import asyncio
import getpass
import math
import sys
from pathlib import Path

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError

from pipeline.config.models import Config
from pipeline.console.attempts import Attempts
from pipeline.console.sessions import Sessions, write_private
from pipeline.errors import ConfigError

MIN_LENGTH, MAX_LENGTH = 8, 200


def ask() -> str:
    """From a terminal, twice; else the first line of the standard input.  Raises ConfigError."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    given = getpass.getpass("Password for the console: ")
    if getpass.getpass("Once more: ") != given:
        raise ConfigError("the two passwords differ; nothing was written")
    return given


def write_password_file(path: Path, password: str) -> None:
    """Whole or not at all, for its owner's eyes alone.  Raises ConfigError."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise ConfigError(f"a password of {len(password)} characters; allowed: {MIN_LENGTH} to {MAX_LENGTH}")
    try:
        write_private(path, PasswordHasher().hash(password).encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error


def load_password(config: Config) -> "Password | None":
    """None: the console needs none.  Raises ConfigError where the file is no password file."""
    path = config.console.password_file
    return None if path is None else Password(path, config.run_dir)


class Password:
    """Raises ConfigError where the file is none."""

    def __init__(self, path: Path, run_dir: Path) -> None:
        try:
            self._hash = path.read_text(encoding="ascii").strip()
            extract_parameters(self._hash)
        except (OSError, ValueError, InvalidHashError) as error:
            raise ConfigError(
                f"console.password_file: {path} is no readable password file; make one with `dasnet password {path}`"
            ) from error
        self.sessions = Sessions(run_dir / "console.sessions", self._hash)
        self._attempts = Attempts()
        self._lock = asyncio.Lock()  # a check takes 64 MiB

    async def check(self, password: str, address: str) -> str | None:
        """Return a new session where the password is right; `address` is the client's.  Raise TooManyAttemptsError."""
        wait_s = self._attempts.take(address)
        if wait_s:
            raise TooManyAttemptsError(math.ceil(wait_s))
        async with self._lock:
            is_right = await asyncio.to_thread(self._matches, password)
        if not is_right:
            return None
        self._attempts.refund(address)
        return self.sessions.begin()

    def _matches(self, password: str) -> bool:
        try:
            return len(password) <= MAX_LENGTH and PasswordHasher().verify(self._hash, password)
        except Argon2Error:
            return False


class TooManyAttemptsError(Exception):
    """Too many wrong passwords from one address."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s
