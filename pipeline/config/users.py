"""The users file: who may use the console, in which role, and with which cameras.

`dasnet users` writes it, and people may edit it.  A user without a password hash can only come through a trusted proxy.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from pipeline.config.faults import explain, place
from pipeline.config.section import Names, Section
from pipeline.config.yaml_file import Document, Key, dotted, read_yaml
from pipeline.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}")
MAX_MEMORY_KIB, MAX_ROUNDS = 1 << 20, 100  # of a hash: one of more would stop the console for long

UserName = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]


class UserRole(StrEnum):
    """What a user may do; each role may do what those before it may."""

    VIEWER = "viewer"  # look
    OPERATOR = "operator"  # acknowledge, review and pin alerts, arm and disarm
    ADMIN = "admin"  # change the configuration, see the audit log

    def may(self, needed: "UserRole") -> bool:
        """Return whether this role includes another one."""
        order = list(UserRole)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class User:
    """A user; `cameras` are those that the user sees and acts on, None: all."""

    name: str
    role: UserRole
    cameras: frozenset[str] | None = None
    password_hash: str | None = None

    def sees(self, camera: str) -> bool:
        """Return whether the user may see a camera."""
        return self.cameras is None or camera in self.cameras

    @cached_property
    def digest(self) -> str:
        """A digest of all that is known of the user; sessions of another one have ended."""
        known = (self.name, self.role.value, sorted(self.cameras or ()), self.cameras is None, self.password_hash)
        return hashlib.sha256(repr(known).encode()).hexdigest()


class UserEntry(Section):
    """An entry of the users file."""

    role: UserRole
    password_hash: str | None = None
    cameras: Names | None = None

    @field_validator("password_hash")
    @classmethod
    def _is_hash(cls, text: str | None) -> str | None:
        if text is not None and not is_usable_hash(text):
            raise ValueError("must be an argon2id hash, written by `dasnet users passwd`")
        return text


class UsersFile(Section):
    """The content of a users file."""

    users: dict[UserName, UserEntry]

    @field_validator("users", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return {} if value is None else value  # the last entry was removed by hand


def is_usable_hash(text: str) -> bool:
    """Return whether a text is an argon2id hash of bounded cost."""
    from argon2 import Type, extract_parameters  # not in the memory of capture workers
    from argon2.exceptions import InvalidHashError

    try:
        cost = extract_parameters(text)
    except (InvalidHashError, ValueError):
        return False
    return cost.type is Type.ID and cost.memory_cost <= MAX_MEMORY_KIB and cost.time_cost <= MAX_ROUNDS


def read_users(path: Path, cameras: Collection[str] | None = None) -> dict[str, User]:
    """Return the users of a file by name.

    Args:
        path: the file.
        cameras: ids that an entry may name; None: any.

    Raises:
        ConfigError: With one line for each fault: file, line, key, value and what is expected.
    """
    document, entries = _read(path)
    faults = [f"{place(path, document, key)}{dotted(key)}: {said}" for key, said in _unknown(entries, cameras)]
    if faults:
        raise ConfigError("\n".join(faults))
    return {
        name: User(name, entry.role, None if entry.cameras is None else frozenset(entry.cameras), entry.password_hash)
        for name, entry in entries.items()
    }


def _read(path: Path) -> tuple[Document, dict[str, UserEntry]]:
    document = read_yaml(path)
    if not isinstance(document.value, dict):
        raise ConfigError(f"{path}: must be a mapping with the key 'users'")
    try:
        return document, UsersFile.model_validate(document.value).users
    except ValidationError as error:
        raise ConfigError("\n".join(explain(path, document, fault, UsersFile) for fault in error.errors())) from None


def _unknown(entries: dict[str, UserEntry], cameras: Collection[str] | None) -> Iterator[tuple[Key, str]]:
    if cameras is None:
        return
    for name, entry in entries.items():
        for at, camera in enumerate(entry.cameras or ()):
            if camera not in cameras:
                yield ("users", name, "cameras", at), f"no camera {camera!r}; must be one of {', '.join(cameras)}"
