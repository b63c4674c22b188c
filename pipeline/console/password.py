"""The console's password: its file, and the sessions of those who gave it.

In: a password; a session's cookie.  Out: whether each is right.  The file holds an argon2id hash.  A session is its
time of expiry, signed with a key that derives from that hash and from a random key in the run folder: so sessions
outlive a restart of the console, and a new password ends all of them.
"""

import asyncio
import getpass
import hashlib
import hmac
import os
import secrets
import sys
import time
from collections import deque
from pathlib import Path

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError

from pipeline.config import Config
from pipeline.errors import ConfigError

MIN_LENGTH, MAX_LENGTH = 8, 200
SESSION_S = 7 * 24 * 3600
KEY_BYTES = 32
WRONG_S, WRONG_OF_ONE, WRONG_OF_ALL = 60.0, 5, 30  # so many wrong ones in so long a time, then a wait


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
        _write_private(path, PasswordHasher().hash(password).encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error


def _write_private(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    partial.replace(path)


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
        self._key = hmac.digest(_random_key(run_dir / "console.key"), self._hash.encode(), "sha256")
        self._wrong: deque[tuple[float, str]] = deque()  # when, from where
        self._turn = asyncio.Lock()  # a check takes 64 MiB

    async def check(self, password: str, peer: str) -> str | None:
        """A new session where the password is right.  Raises TooManyTries."""
        async with self._turn:
            now_s = time.monotonic()
            while self._wrong and self._wrong[0][0] < now_s - WRONG_S:
                self._wrong.popleft()
            of_one = sum(address == peer for _, address in self._wrong)
            if of_one >= WRONG_OF_ONE or len(self._wrong) >= WRONG_OF_ALL:
                raise TooManyTries
            if await asyncio.to_thread(self._matches, password):
                expiry = str(int(time.time()) + SESSION_S)
                return f"{expiry}.{self._signature(expiry)}"
            self._wrong.append((now_s, peer))
            return None

    def _matches(self, password: str) -> bool:
        try:
            return len(password) <= MAX_LENGTH and PasswordHasher().verify(self._hash, password)
        except Argon2Error:
            return False

    def is_session(self, cookie: str) -> bool:
        expiry, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(expiry).encode()):
            return False
        return int(expiry) > time.time()

    def _signature(self, expiry: str) -> str:
        return hmac.new(self._key, expiry.encode(), hashlib.sha256).hexdigest()


class TooManyTries(Exception):
    """Too many wrong passwords within a minute."""


def _random_key(path: Path) -> bytes:
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_private(path, secrets.token_bytes(KEY_BYTES))
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read or written ({error.strerror})") from error
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path}: is no key of {KEY_BYTES} bytes; remove it, and a new one is made")
    return key
