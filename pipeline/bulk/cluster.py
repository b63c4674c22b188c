"""The Ray cluster of a bulk replay or a training: found or started, and its nodes."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from pipeline.errors import ConfigError, DasnetError

CONNECT_TIMEOUT_S = 15.0
LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 100_000_000  # of a cluster started here: results go through files


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Connect to the cluster for as long as the context lasts, and return the module `ray`.

    Args:
        address: HOST:PORT of the cluster's head, or `auto`: that of the variable RAY_ADDRESS, else a cluster of this
            host alone, which ends with the context.

    Raises:
        ConfigError: ray is not installed, or the address has another form.
        DasnetError: no cluster at that address, or one that this host cannot join.
    """
    wanted = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    host = LOOPBACK if wanted == "auto" else _reached(wanted)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports nothing to Ray's makers
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if host in (LOOPBACK, "localhost"):  # otherwise Ray takes the host's outer address for it
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        options |= {"_node_ip_address": LOOPBACK}
    if wanted == "auto":
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    else:
        options |= {"address": wanted}
    try:
        import ray  # reads the environment
    except ImportError as error:
        raise ConfigError('--ray needs ray, not installed here: pip install "dasnet[ray]"') from error
    try:
        _join(ray, address, options)
        yield ray
    finally:
        ray.shutdown()


def _join(ray: ModuleType, address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises whatever its parts do
        raise DasnetError(f"--ray {address}: cannot start or join the cluster: {_first_line(error)}") from error


def _reached(address: str) -> str:
    """Return the host of an address that can be connected to: `ray.init` waits for minutes where none can."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--ray {address}: must be auto, or HOST:PORT of a Ray cluster's head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise DasnetError(f"--ray {address}: no Ray cluster there: {error.strerror or error}") from error
    return host


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def node_names(ray: ModuleType) -> dict[str, str]:
    """Return the names of all nodes, also of those that are gone, by Ray's id."""
    return {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in ray.nodes()}


def nodes_with(ray: ModuleType, resource: str) -> set[str]:
    """Return the ids of the nodes that are there and have at least one `CPU` or `GPU`."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource, 0) >= 1}
