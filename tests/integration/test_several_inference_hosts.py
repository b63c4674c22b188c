"""Several inference hosts on a network of their own: killed, cut off, slowed down, with other clocks.

The hosts are processes in network namespaces: of the first tests without cameras and network, of the last whole ones.
What they were granted, what they wrote, and when, is checked afterwards: one owner of each camera at any time.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster_log import check_one_owner, messages_of
from support.events import until
from support.nats_server import NatsServer, needs_nats
from support.network import Network, needs_network
from support.program import REPOSITORY, die_with_parent

from pipeline.cluster.leases import LEASE_S
from pipeline.config.file import load
from pipeline.config.models import Config

pytestmark = [needs_nats, needs_network, pytest.mark.slow]
ADDRESSES = {"nats": "10.78.0.1", "alpha": "10.78.0.2", "beta": "10.78.0.3", "gamma": "10.78.0.4"}
CAMERAS = [f"camera{number}" for number in range(8)]
TAKE_OVER_S = 5.0
SKEW_S = {"alpha": 0, "beta": 400_000, "gamma": 77}  # of the hosts' monotonic clocks


class Host:
    """The process of a host, and what it printed."""

    def __init__(self, network: Network, config: Path, name: str) -> None:
        self.name = name
        clock = ["unshare", "--time", "--monotonic", str(SKEW_S[name])] if SKEW_S[name] else []
        command = [*network.command(name), *clock, sys.executable, "-m", "support.cluster_host", str(config), name]
        self._file = config.with_name(f"{name}-{time.monotonic_ns()}.jsonl")
        self.process = subprocess.Popen(
            command, stdout=self._file.open("w"), cwd=REPOSITORY, env=_environment(), preexec_fn=die_with_parent
        )

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines() if line.endswith("}")]

    def owned(self) -> set[str]:
        owned: set[str] = set()
        for line in self.lines():
            if "granted" in line:
                owned.add(line["granted"])
            elif "withdrawn" in line:
                owned.discard(line["withdrawn"])
        return owned

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> set[str]:
        """The ids of its events that it knows to be shared."""
        self.process.terminate()
        self.process.wait(60)
        return set(next(line["raised"] for line in self.lines() if "raised" in line))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}


class Site:
    """Hosts around a NATS server."""

    def __init__(self, network: Network, server: NatsServer, folder: Path) -> None:
        self.network, self.server = network, server
        self.path = folder / "site.yaml"
        hosts = {name: {"address": ADDRESSES[name]} for name in SKEW_S}
        cameras = [{"id": name, "uri": "demo:scene"} for name in CAMERAS]
        self.path.write_text(yaml.safe_dump({"cameras": cameras, "hosts": hosts, "nats": {"servers": [server.url]}}))
        self.config: Config = load(self.path)
        self.running: list[Host] = []

    def start(self, name: str) -> Host:
        host = Host(self.network, self.path, name)
        self.running.append(host)
        return host

    def is_shared(self, *hosts: Host) -> bool:
        owned = [camera for host in hosts for camera in host.owned()]
        return sorted(owned) == CAMERAS and all(host.owned() for host in hosts)

    def check(self, expected: set[str]) -> None:
        """Check the log of claims and events, as the server holds it."""
        done = subprocess.run(
            [*self.network.command("nats"), sys.executable, "-m", "support.cluster_log", str(self.path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY,
            env=_environment(),
        )
        check_one_owner(messages_of(done.stdout), expected)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Network(ADDRESSES) as network, ExitStack() as stack:
        server = NatsServer(tmp_path / "nats", ADDRESSES["nats"], tuple(network.command("nats")))
        stack.enter_context(server)
        made = Site(network, server, tmp_path)
        try:
            yield made
        finally:
            for host in made.running:
                if host.process.poll() is None:
                    host.kill()


def took_s(condition: Any, timeout_s: float = 60) -> float:
    started_s = time.monotonic()
    until(condition, timeout_s)
    return time.monotonic() - started_s


def test_a_host_that_is_killed_is_replaced_and_its_cameras_come_back(site: Site):
    alpha, beta, gamma = (site.start(name) for name in SKEW_S)
    until(lambda: site.is_shared(alpha, beta, gamma), 60)
    before = {host.name: host.owned() for host in (alpha, beta, gamma)}
    beta.kill()
    assert took_s(lambda: site.is_shared(alpha, gamma)) < TAKE_OVER_S
    assert before["alpha"] <= alpha.owned() and before["gamma"] <= gamma.owned(), "only its cameras moved"
    again = site.start("beta")
    until(lambda: site.is_shared(alpha, again, gamma), 60)
    assert {host.name: host.owned() for host in (alpha, again, gamma)} == before
    site.check(alpha.stop() | again.stop() | gamma.stop())


def test_a_slow_and_lossy_network_costs_no_camera_and_no_event(site: Site):
    site.network.delay_s, site.network.loss = 0.05, 0.02  # 100 ms there and back
    alpha, beta = site.start("alpha"), site.start("beta")
    until(lambda: site.is_shared(alpha, beta), 90)
    granted = sum("granted" in line for host in (alpha, beta) for line in host.lines())
    time.sleep(20)  # of a time in which nothing is to happen
    assert sum("granted" in line for host in (alpha, beta) for line in host.lines()) == granted
    beta.kill()
    assert took_s(lambda: site.is_shared(alpha)) < TAKE_OVER_S + 1
    site.check(alpha.stop())


def test_whoever_is_cut_off_keeps_its_cameras_to_itself_and_gives_them_back(site: Site):
    """Split brain: both sides work, one of them may write."""
    alpha, beta, gamma = (site.start(name) for name in SKEW_S)
    until(lambda: site.is_shared(alpha, beta, gamma), 60)
    cut_off = gamma.owned()
    for _ in range(3):
        site.network.cut("gamma")
        assert took_s(lambda: site.is_shared(alpha, beta)) < TAKE_OVER_S
        assert gamma.owned() == cut_off, "it goes on by itself"
        site.network.mend("gamma")
        until(lambda: site.is_shared(alpha, beta, gamma), 60)
    gamma.stop()  # what it raised while it was cut off stayed with it
    site.check(alpha.stop() | beta.stop())


def test_links_that_are_cut_for_less_than_a_lease_move_no_camera(site: Site):
    alpha, beta = site.start("alpha"), site.start("beta")
    until(lambda: site.is_shared(alpha, beta), 60)
    for _ in range(5):
        site.network.cut("alpha")
        time.sleep(LEASE_S * 0.3)  # how long the cable is out
        site.network.mend("alpha")
        time.sleep(LEASE_S)
    assert not [line for host in (alpha, beta) for line in host.lines() if line.get("handed_over") is False]
    site.check(alpha.stop() | beta.stop())


def test_the_server_is_killed_and_every_host_keeps_its_cameras(site: Site):
    alpha, beta = site.start("alpha"), site.start("beta")
    until(lambda: site.is_shared(alpha, beta), 60)
    before = [host.owned() for host in (alpha, beta)]
    moved = sum("withdrawn" in line for line in alpha.lines() + beta.lines())
    for away_s in (0.5, 2 * LEASE_S):
        site.server.kill()
        time.sleep(away_s)  # how long it is away
        site.server.start()
    time.sleep(2 * LEASE_S)
    assert [host.owned() for host in (alpha, beta)] == before
    assert sum("withdrawn" in line for line in alpha.lines() + beta.lines()) == moved
    site.check(alpha.stop() | beta.stop())
