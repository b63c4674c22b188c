"""The Ray cluster of a bulk replay: found or started, and its nodes."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from pipeline.errors import ConfigError, DasnetError

CONNECT_TIMEOUT_S = 10.0
OBJECT_STORE_BYTES = 100_000_000  # of a cluster started here: results go through files


def require(package: str, option: str) -> None:
    """Raise ConfigError where a package of the extra `ray` is not installed."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise ConfigError(f'{option} needs {package}, not installed here: pip install "dasnet[ray]"')


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Connect to the cluster for as long as the context lasts, and return the module `ray`.

    Args:
        address: HOST:PORT of the cluster's head, or `auto`: that of RAY_ADDRESS or of this host; where there is none, a
            cluster of this host alone, which ends with the context.

    Raises:
        ConfigError: ray is not installed, or the address has another form.
        DasnetError: no cluster at that address, or one that refuses this host.
    """
    require("ray", "--ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports nothing to Ray's makers
    import ray

    try:
        _connect(ray, address)
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: ModuleType, address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    wanted = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if wanted != "auto":
        _reach(wanted)
    try:
        ray.init(address=wanted, **options)
    except Exception as error:
        if wanted != "auto" or not isinstance(error, ConnectionError):
            raise DasnetError(f"--ray {address}: cannot join the cluster: {_first_line(error)}") from error
        _start(ray, options)


def _reach(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--ray {address}: must be auto, or HOST:PORT of a Ray cluster's head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise DasnetError(f"--ray {address}: no Ray cluster there: {error.strerror or error}") from error


def _start(ray: ModuleType, options: dict[str, Any]) -> None:
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **options,
        )
    except Exception as error:
        raise DasnetError(f"--ray auto: cannot start Ray on this host: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def node_names(ray: ModuleType) -> dict[str, str]:
    """Return the names of all nodes, also of those that are gone, by Ray's id."""
    return {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in ray.nodes()}


def usable_nodes(ray: ModuleType) -> set[str]:
    """Return the ids of the nodes that are there."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
