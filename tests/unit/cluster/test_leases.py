"""Leases under any interleaving: hosts whose messages are lost, late or answered in vain, with clocks of their own.

The simulated server is a list of keys with compare-and-set.  Each step is one request of one host, applied now or later
(or never), and answered now, later or never.  At every moment at most one host may write for a camera.
"""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cluster.leases import (
    LEASE_S,
    RENEW_PERIOD_S,
    Acquire,
    CameraRecord,
    Expire,
    HandOver,
    HostRecord,
    Join,
    Leases,
    View,
)

CAMERAS = {"north": None, "south": None, "gate": "alpha"}
HOSTS = {"alpha": 1.0, "beta": 2.0, "gamma": 1.0}


@dataclass
class Server:
    """Keys with revisions that all share."""

    hosts: dict[str, HostRecord] = field(default_factory=dict)
    cameras: dict[str, CameraRecord] = field(default_factory=dict)
    sequence: int = 0

    def write_host(self, host: str, session: str, version: str, revision: int) -> int | None:
        before = self.hosts.get(host)
        if (before.revision if before else 0) != revision:
            return None
        self.sequence += 1
        self.hosts[host] = HostRecord(self.sequence, session, version)
        return self.sequence

    def write_camera(self, camera: str, host: str, session: str, revision: int) -> int | None:
        before = self.cameras.get(camera)
        if (before.revision if before else 0) != revision:
            return None
        self.sequence += 1
        self.cameras[camera] = CameraRecord(self.sequence, host, session)
        return self.sequence

    def view(self) -> View:
        return View(dict(self.hosts), dict(self.cameras))


class Host:
    """A host as the program drives it: renews, reads, acts; `now_s` is its own clock, `rate` times as fast."""

    def __init__(self, name: str, server: Server, offset_s: float, rate: float = 1.0, version: str = "1") -> None:
        self.name, self.server, self.offset_s, self.rate, self.version = name, server, offset_s, rate, version
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.leases = Leases(self.name, self.version, f"{self.name}{self.starts}", CAMERAS, HOSTS)

    def clock_s(self, true_s: float) -> float:
        return self.offset_s + self.rate * true_s

    def renew(self, sent_s: float) -> tuple | None:
        revision = self.leases.revision
        if revision is None:
            return None
        session = self.leases.session
        new = self.server.write_host(self.name, session, self.version, revision)
        return ("renewed", self.leases, session, new, self.clock_s(sent_s))

    def look(self, asked_s: float) -> tuple:
        return ("viewed", self.leases, self.server.view(), self.clock_s(asked_s))

    def apply(self, action: object, sent_s: float) -> tuple:
        leases, server = self.leases, self.server
        match action:
            case Join(session, revision):
                new = server.write_host(self.name, session, self.version, revision)
                return ("renewed", leases, session, new, self.clock_s(sent_s))
            case Expire(host, revision):
                return ("expired", leases, host, server.write_host(host, "", self.version, revision))
            case Acquire(session, camera, revision, _):
                return ("acquired", leases, session, camera, server.write_camera(camera, self.name, session, revision))
            case HandOver(camera, revision):
                if leases.held().get(camera) == revision:
                    leases.leave(camera)
                return ("freed", leases, camera, server.write_camera(camera, self.name, "", revision))
        raise AssertionError(action)

    def answered(self, answer: tuple | None, true_s: float) -> None:
        if answer is None or answer[1] is not self.leases:  # of an earlier start
            return
        kind, leases, *details = answer
        if kind == "viewed":
            view, asked_s = details
            if leases.viewed(view, asked_s, self.clock_s(true_s)):
                self.starts += 1
                leases.restart(f"{self.name}{self.starts}")
        elif None not in details:
            getattr(leases, kind)(*details)

    def tick(self, true_s: float) -> None:
        """One round without faults."""
        self.answered(self.renew(true_s), true_s)
        self.answered(self.look(true_s), true_s)
        for _ in range(3):
            for action in self.leases.actions(self.clock_s(true_s)):
                self.answered(self.apply(action, true_s), true_s)

    def may_write(self, true_s: float) -> set[str]:
        return set(self.leases.held()) if self.leases.is_valid(self.clock_s(true_s)) else set()


def one_writer(hosts: list[Host], true_s: float) -> None:
    writers = [camera for host in hosts for camera in host.may_write(true_s)]
    assert len(writers) == len(set(writers)), (true_s, {host.name: host.may_write(true_s) for host in hosts})


def run(hosts: list[Host], start_s: float, duration_s: float) -> float:
    """Let hosts go on without faults; return when they end."""
    true_s = start_s
    while true_s < start_s + duration_s:
        for host in hosts:
            host.tick(true_s)
            one_writer(hosts, true_s)
        true_s += RENEW_PERIOD_S
    return true_s


def owners(hosts: list[Host], true_s: float) -> dict[str, str]:
    return {camera: host.name for host in hosts for camera in host.may_write(true_s)}


def test_cameras_are_shared_moved_when_a_host_dies_and_moved_back():
    server = Server()
    alpha, beta, gamma = (
        Host(name, server, offset) for name, offset in (("alpha", 0.0), ("beta", 9e5), ("gamma", -7.0))
    )
    now_s = run([alpha], 0.0, 2)
    assert owners([alpha], now_s - RENEW_PERIOD_S) == dict.fromkeys(CAMERAS, "alpha")
    now_s = run([alpha, beta, gamma], now_s, 5)
    before = owners([alpha, beta, gamma], now_s - RENEW_PERIOD_S)
    assert before.keys() == CAMERAS.keys() and before["gate"] == "alpha"
    tokens = {camera: beta.leases.token(camera) for camera in CAMERAS}
    died_s = now_s
    while set(owners([alpha, gamma], now_s)) != set(CAMERAS):
        now_s = run([alpha, gamma], now_s, RENEW_PERIOD_S)
        assert now_s - died_s < LEASE_S + 3 * RENEW_PERIOD_S
    for camera in CAMERAS:
        moved = alpha.leases.token(camera) > tokens[camera]
        assert moved == (before[camera] == "beta"), "only its cameras moved, each with a higher token"
    beta.start()
    now_s = run([alpha, beta, gamma], now_s, 6)
    assert owners([alpha, beta, gamma], now_s - RENEW_PERIOD_S) == before


def test_a_host_of_another_version_is_named_and_does_not_join():
    server = Server()
    alpha, beta = Host("alpha", server, 0.0), Host("beta", server, 0.0, version="2")
    now_s = run([alpha, beta], 0.0, 3)
    assert beta.leases.other_version() == ("alpha", "1") and beta.leases.revision is None
    assert owners([alpha, beta], now_s - RENEW_PERIOD_S) == dict.fromkeys(CAMERAS, "alpha")
    now_s = run([beta], now_s, LEASE_S + 2)
    assert owners([beta], now_s - RENEW_PERIOD_S) == {"north": "beta", "south": "beta"}, (
        "alpha has gone; its gate waits"
    )


def test_after_an_outage_of_the_server_every_host_keeps_its_cameras_and_tokens():
    server = Server()
    alpha, beta = Host("alpha", server, 0.0), Host("beta", server, 50.0)
    now_s = run([alpha, beta], 0.0, 5)
    before = owners([alpha, beta], now_s - RENEW_PERIOD_S)
    held = alpha.leases.held() | beta.leases.held()
    now_s += 60
    assert owners([alpha, beta], now_s) == {}, "nobody may write meanwhile"
    assert alpha.leases.held() | beta.leases.held() == held
    now_s = run([alpha, beta], now_s, 2)
    assert owners([alpha, beta], now_s - RENEW_PERIOD_S) == before
    assert alpha.leases.held() | beta.leases.held() == held


def test_keys_that_were_all_deleted_begin_anew():
    server = Server()
    alpha = Host("alpha", server, 0.0)
    now_s = run([alpha], 0.0, 2)
    alpha.server = Server()
    now_s = run([alpha], now_s, 3)
    assert owners([alpha], now_s - RENEW_PERIOD_S) == dict.fromkeys(CAMERAS, "alpha")


@pytest.mark.parametrize("seed", range(3))
def test_answers_that_are_lost_do_not_lose_a_camera(seed: int):
    """Every second answer is lost: what was written is found by reading."""
    rng, server = random.Random(seed), Server()
    alpha = Host("alpha", server, 0.0)
    true_s = 0.0
    while true_s < 20:
        for step in (alpha.renew, alpha.look):
            answer = step(true_s)
            if rng.random() < 0.5:
                alpha.answered(answer, true_s)
        for action in alpha.leases.actions(true_s):
            answer = alpha.apply(action, true_s)
            if rng.random() < 0.5:
                alpha.answered(answer, true_s)
        true_s += RENEW_PERIOD_S
    assert set(alpha.leases.held()) == set(CAMERAS)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_at_most_one_host_may_write_whatever_is_lost_or_late(data: st.DataObject):
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    loss, slow = data.draw(st.sampled_from([0.0, 0.1, 0.4])), data.draw(st.sampled_from([0.05, 0.5, 4.0]))
    server = Server()
    hosts = [Host(name, server, rng.uniform(-1e6, 1e6), rng.uniform(0.97, 1.03)) for name in HOSTS]
    cut_until_s = dict.fromkeys(HOSTS, 0.0)
    pending: list[tuple[float, int, str, Host, Leases, object, float]] = []  # when, order, what, whose, ..., sent
    true_s, order = 0.0, 0

    def later(what: str, host: Host, thing: object, sent_s: float) -> None:
        nonlocal order
        if rng.random() < loss or (true_s < cut_until_s[host.name] and rng.random() < 0.9):
            return
        order += 1
        pending.append((true_s + rng.expovariate(1 / slow), order, what, host, host.leases, thing, sent_s))

    while true_s < 40:
        true_s += rng.uniform(0.01, 0.2)
        pending.sort(key=lambda each: each[:2])
        while pending and pending[0][0] <= true_s:
            _, _, what, host, leases, thing, sent_s = pending.pop(0)
            if leases is not host.leases:
                continue
            if what == "answer":
                host.answered(thing, true_s)  # type: ignore[arg-type]
            else:
                answer = {"renew": host.renew, "look": host.look}.get(what, lambda s, h=host, t=thing: h.apply(t, s))(
                    sent_s
                )
                later("answer", host, answer, sent_s)
            one_writer(hosts, true_s)
        host = rng.choice(hosts)
        if rng.random() < 0.01:
            host.start()  # killed and restarted
        if rng.random() < 0.02:
            cut_until_s[host.name] = true_s + rng.uniform(1, 10)
        later("renew", host, None, true_s)
        later("look", host, None, true_s)
        for action in host.leases.actions(host.clock_s(true_s)):
            later("act", host, action, true_s)
        one_writer(hosts, true_s)
    tokens = [record.revision for record in server.cameras.values()]
    assert len(set(tokens)) == len(tokens)
