"""Change the users file: `dasnet users`."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.users import NAME, User, read_users
from pipeline.errors import ConfigError
from pipeline.store.folders import write_private

HEADER = "# Users of the console, written by `dasnet users`, which keeps no comments.\n"


def check_new(path: Path, name: str) -> None:
    """Raise ConfigError where a user of that name cannot be added."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"user {name!r}; must be 1 to 64 letters, digits and _ . @ + -, the first a letter or digit")
    if path.exists() and name in read_users(path):
        raise ConfigError(f"{path}: has a user {name!r} already; must be a new name")


def add_user(path: Path, user: User) -> None:
    """Add a user; the file is made where it is missing.  Raise ConfigError."""
    check_new(path, user.name)
    users = read_users(path) if path.exists() else {}
    _write(path, [*users.values(), user])


def remove_user(path: Path, name: str) -> None:
    """Remove a user.  Raise ConfigError."""
    users = read_users(path)
    del users[_known(path, users, name)]
    _write(path, users.values())


def set_password(path: Path, name: str, password_hash: str) -> None:
    """Give a user another password.  Raise ConfigError."""
    users = read_users(path)
    users[_known(path, users, name)] = replace(users[name], password_hash=password_hash)
    _write(path, users.values())


def table(users: Collection[User]) -> list[str]:
    """Return a line for each user, with a head."""
    rows: list[Sequence[str]] = [("name", "role", "cameras", "password")]
    for user in users:
        cameras = "all" if user.cameras is None else ", ".join(sorted(user.cameras))
        rows.append((user.name, user.role, cameras, "yes" if user.password_hash else "none: through a proxy only"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _known(path: Path, users: dict[str, User], name: str) -> str:
    if name not in users:
        raise ConfigError(
            f"{path}: no user {name!r}; must be one of {', '.join(users) or 'none: the file has no users'}"
        )
    return name


def _write(path: Path, users: Collection[User]) -> None:
    """Write the file atomically, readable by its owner only."""
    text = yaml.safe_dump({"users": {user.name: _entry(user) for user in users}}, sort_keys=False, width=200)
    try:
        write_private(path, (HEADER + text).encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error


def _entry(user: User) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": user.role.value}
    if user.password_hash is not None:
        entry["password_hash"] = user.password_hash
    if user.cameras is not None:
        entry["cameras"] = sorted(user.cameras)
    return entry
