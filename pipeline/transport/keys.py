"""CURVE keys of a site: who may send frames to the host that searches, and whom the others may send them to.

    FOLDER/server.key, server.key_secret            of the host that searches
    FOLDER/hosts/NAME.key, hosts/NAME.key_secret    of each other one

The files are ZeroMQ certificates.  A `.key` is public; a `.key_secret` belongs on its own host alone.  Removing
hosts/NAME.key on the host that searches revokes that host's access at once.
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
class Pair:
    """Of one host, Z85."""

    public: bytes
    secret: bytes


@dataclass(frozen=True)
class ClientKeys:
    own: Pair
    server: bytes  # public


@dataclass(frozen=True)
class ServerKeys:
    own: Pair
    hosts: dict[bytes, str]  # public key -> name


def make_keys(folder: Path, hosts: list[str]) -> list[Path]:
    """Those that are not there yet; returns the secret files that were made.  Raises ConfigError."""
    for host in hosts:
        if not HOST_NAME.fullmatch(host):
            raise ConfigError(f"host {host[:70]!r}; allowed: {HOST_NAME.pattern}")
    wanted = [folder / SERVER, *(folder / HOSTS / host for host in hosts)]
    try:
        return [_make(place) for place in wanted if not _secret_file(place).exists()]
    except OSError as error:
        raise ConfigError(f"{folder}: keys cannot be written ({error.strerror})") from error


def _make(place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    before = os.umask(0o077)  # readable by nobody else, at no moment
    try:
        public, secret = zmq.auth.create_certificates(place.parent, place.name)
    finally:
        os.umask(before)
    Path(public).chmod(0o644)
    return Path(secret)


def client_keys(folder: Path, host: str) -> ClientKeys:
    """On the host of that name.  Raises ConfigError."""
    return ClientKeys(_pair(folder / HOSTS / host), _public(folder / SERVER))


def server_keys(folder: Path) -> ServerKeys:
    """On the host that searches.  Raises ConfigError."""
    hosts = {_public(path.with_suffix("")): path.stem for path in sorted((folder / HOSTS).glob("*.key"))}
    return ServerKeys(_pair(folder / SERVER), hosts)


def readable_hosts(folder: Path) -> dict[bytes, str]:
    """The same hosts later, while it runs: a file that is no key any more is one that was taken away."""
    hosts: dict[bytes, str] = {}
    for path in sorted((folder / HOSTS).glob("*.key")):
        with suppress(ConfigError):
            hosts[_public(path.with_suffix(""))] = path.stem
    return hosts


def _secret_file(place: Path) -> Path:
    return place.with_name(f"{place.name}.key_secret")


def _pair(place: Path) -> Pair:
    public, secret = _read(_secret_file(place))
    if secret is None:
        raise ConfigError(f"link.keys: {_secret_file(place)} holds no secret key; make one with `dasnet keys`")
    return Pair(public, secret)


def _public(place: Path) -> bytes:
    return _read(place.with_name(f"{place.name}.key"))[0]


def _read(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"link.keys: {path} is missing or no key; make it with `dasnet keys`") from error
