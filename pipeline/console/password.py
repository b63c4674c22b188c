"""The console's password: its file, which holds an argon2id hash, and the login."""

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
    """Prompt for a password twice on a terminal; otherwise read the first line of standard input.

    Raises:
        ConfigError: The two passwords differ.
    """
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    given = getpass.getpass("Console password: ")
    if getpass.getpass("Repeat: ") != given:
        raise ConfigError("the two passwords differ; must be equal (nothing was written)")
    return given


def write_password_file(path: Path, password: str) -> None:
    """Write a password file atomically, readable by its owner only.

    Raises:
        ConfigError: The length of the password is invalid, or the file cannot be written.
    """
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise ConfigError(f"password of {len(password)} characters; must have {MIN_LENGTH} to {MAX_LENGTH}")
    try:
        write_private(path, PasswordHasher().hash(password).encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error


def load_password(config: Config) -> "Password | None":
    """Return the configured password, or None where the console has none.

    Raises:
        ConfigError: The file is not a password file.
    """
    path = config.console.password_file
    return None if path is None else Password(path, config.run_dir)


class Password:
    """The password of a file, with the sessions that it opened."""

    def __init__(self, path: Path, run_dir: Path) -> None:
        """Read the file.

        Raises:
            ConfigError: It is not a password file.
        """
        try:
            self._hash = path.read_text(encoding="ascii").strip()
            extract_parameters(self._hash)
        except (OSError, ValueError, InvalidHashError) as error:
            raise ConfigError(
                f"console.password_file: {path} must be a readable password file, written by `dasnet password {path}`"
            ) from error
        self.sessions = Sessions(run_dir / "console.sessions", self._hash)
        self._attempts = Attempts()
        self._lock = asyncio.Lock()  # a check takes 64 MiB

    async def check(self, password: str, address: str) -> str | None:
        """Check a password given by the client at `address`.

        Returns:
            The token of a new session, or None where the password is wrong.

        Raises:
            TooManyAttemptsError: The client must wait.
        """
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
