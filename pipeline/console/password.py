"""Passwords: asked for, hashed with argon2id, compared; and the file of a console with a single password."""

import getpass
import sys
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from pipeline.config.users import is_usable_hash
from pipeline.errors import ConfigError
from pipeline.store.folders import write_private

MIN_LENGTH, MAX_LENGTH = 8, 200


def ask(prompt: str = "Console password") -> str:
    """Prompt for a password twice on a terminal; otherwise read the first line of standard input.

    Raises:
        ConfigError: The two passwords differ.
    """
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    given = getpass.getpass(f"{prompt}: ")
    if getpass.getpass("Repeat: ") != given:
        raise ConfigError("the two passwords differ; must be equal (nothing was written)")
    return given


def hashed(password: str) -> str:
    """Return the hash of a password.  Raise ConfigError where its length is invalid."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise ConfigError(f"password of {len(password)} characters; must have {MIN_LENGTH} to {MAX_LENGTH}")
    return PasswordHasher().hash(password)


def matches(password_hash: str, password: str) -> bool:
    """Return whether a password has this hash; takes 64 MiB and a tenth of a second, on purpose."""
    try:
        return len(password) <= MAX_LENGTH and PasswordHasher().verify(password_hash, password)
    except (Argon2Error, InvalidHashError, UnicodeError):
        return False


def write_password_file(path: Path, password: str) -> None:
    """Write a password file atomically, readable by its owner only.

    Raises:
        ConfigError: The length of the password is invalid, or the file cannot be written.
    """
    content = hashed(password).encode() + b"\n"
    try:
        write_private(path, content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error


def read_password_file(path: Path) -> str:
    """Return the hash in a password file.  Raise ConfigError."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        text = ""
    if not is_usable_hash(text):
        raise ConfigError(
            f"console.password_file: {path} must be a readable password file, written by `dasnet password {path}`"
        )
    return text
