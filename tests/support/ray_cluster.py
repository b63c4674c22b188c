"""A Ray cluster of several nodes on this machine, for tests."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.program import DASNET, die_with_parent

os.environ |= {  # before ray is imported
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_worker_register_timeout_seconds": "600",  # on a busy machine
    "RAY_worker_niceness": "0",  # 15 by default: beside other work the tests would take for ever
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """The head alone, which runs no tasks: every node that does is added."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=node(num_cpus=0, include_dashboard=False))
    try:
        yield cluster
    finally:
        cluster.shutdown()


def node(**options: Any) -> dict[str, Any]:
    return {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 100_000_000} | options


def started(*arguments: object) -> subprocess.Popen[str]:
    """`dasnet replay` in a process of its own, whose output is read when it ends.

    Ray adds its working directory to the import path of all nodes: there must be no package in it.
    """
    command = [*DASNET, "replay", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", preexec_fn=die_with_parent
    )
