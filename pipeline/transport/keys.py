"""CURVE keys of a site, with which the inference host and the edge hosts authenticate each other.

    FOLDER/server.key, server.key_secret            of the inference host
    FOLDER/hosts/NAME.key, hosts/NAME.key_secret    of each edge host

The files are ZeroMQ certificates.  A `.key` is public; a `.key_secret` belongs on its own host alone.  Removing
hosts/NAME.key on the inference host revokes that host's access at once.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import zmq.auth

from pipeline.errors import ConfigError

SERVER = "server"
HOSTS = "hosts"
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class KeyPair:
    """The keys of one host, Z85."""

    public: bytes
    secret: bytes


@dataclass(frozen=True)
class ClientKeys:
    """What an edge host needs."""

    own: KeyPair
    server: bytes  # public


@dataclass(frozen=True)
class ServerKeys:
    """What the inference host needs."""

    own: KeyPair
    hosts: dict[bytes, str]  # public key -> name


def make_keys(folder: Path, hosts: list[str]) -> list[Path]:
    """Make the keys that are missing; return the secret files that were made.  Raise ConfigError."""
    for host in hosts:
        if not HOST_NAME.fullmatch(host):
            raise ConfigError(f"host {host[:70]!r}: must match {HOST_NAME.pattern}")
    wanted = [folder / SERVER, *(folder / HOSTS / host for host in hosts)]
    try:
        return [_make(place) for place in wanted if not _secret_file(place).exists()]
    except OSError as error:
        raise ConfigError(f"{folder}: keys cannot be written ({error.strerror})") from error


def _make(place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    before = os.umask(0o077)  # never readable by another user
    try:
        public, secret = zmq.auth.create_certificates(place.parent, place.name)
    finally:
        os.umask(before)
    Path(public).chmod(0o644)
    return Path(secret)


def client_keys(folder: Path, host: str) -> ClientKeys:
    """Return the keys of the edge host of this name.  Raise ConfigError."""
    return ClientKeys(_key_pair(folder / HOSTS / host), _public(folder / SERVER))


def server_keys(folder: Path) -> ServerKeys:
    """Return the keys of the inference host.  Raise ConfigError."""
    hosts = {_public(path.with_suffix("")): path.stem for path in sorted((folder / HOSTS).glob("*.key"))}
    return ServerKeys(_key_pair(folder / SERVER), hosts)


def readable_hosts(folder: Path) -> dict[bytes, str]:
    """Return name by public key, without unreadable files: while running, those count as removed."""
    hosts: dict[bytes, str] = {}
    for path in sorted((folder / HOSTS).glob("*.key")):
        with suppress(ConfigError):
            hosts[_public(path.with_suffix(""))] = path.stem
    return hosts


def _secret_file(place: Path) -> Path:
    return place.with_name(f"{place.name}.key_secret")


def _key_pair(place: Path) -> KeyPair:
    public, secret = _read(_secret_file(place))
    if secret is None:
        raise ConfigError(f"link.keys: {_secret_file(place)} holds no secret key; create one with `dasnet keys`")
    return KeyPair(public, secret)


def _public(place: Path) -> bytes:
    return _read(place.with_name(f"{place.name}.key"))[0]


def _read(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"link.keys: {path} is missing or not a key; create it with `dasnet keys`") from error
