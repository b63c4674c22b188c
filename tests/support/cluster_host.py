"""An inference host without workers: a thread does what its track worker would, and raises events all the time.

`python -m support.cluster_host CONFIG NAME` runs one until SIGTERM, and prints what happens as lines of JSON:
`{"granted": CAMERA, "token": N, "at_s": ...}`, `{"withdrawn": CAMERA, ...}`, in the end `{"raised": [ids]}`.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from pipeline.cluster.member import Granted, Member, Withdrawn
from pipeline.cluster.metrics import ClusterMetrics
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ClusterError
from pipeline.types import Event, EventKind
from support.events import event


class Host:
    """A host without workers: a thread does what its track worker would, and shares an event with every step."""

    def __init__(self, config: Config, name: str, said: Callable[[dict], None] = lambda _: None) -> None:
        self._said = said
        self.name = name
        self.registry = CollectorRegistry()
        self.member = Member(config.for_host(name), ClusterMetrics(name, self.registry))
        self.tokens: dict[str, int] = {}
        self.left: dict[str, bytes] = {}
        self.raised: list[Event] = []
        self.stored: list[Event] = []
        self.unshared: list[Event] = []
        self.handed_over: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> "Host":
        self.member.start(self._receive)
        self._thread.start()
        return self

    def _receive(self, events: Sequence[Event], kept: Callable[[], None]) -> None:
        self.stored += events
        kept()

    def _work(self) -> None:
        while not self._stop.wait(0.02):
            for change in self.member.changes():
                if isinstance(change, Granted):
                    self.tokens[change.camera], self.left[change.camera] = change.token, change.tracks
                    self._said({"granted": change.camera, "token": change.token, "at_s": time.monotonic()})
                else:
                    self._withdraw(change)
            self._raise_events()
            self._share()

    def _withdraw(self, change: Withdrawn) -> None:
        self.tokens.pop(change.camera, None)
        self._said({"withdrawn": change.camera, "handed_over": change.handed_over, "at_s": time.monotonic()})
        if change.handed_over:
            self.handed_over.append(change.camera)
            self._share()
            self.member.let_go(change.camera)

    def _raise_events(self) -> None:
        for camera, token in self.tokens.items():
            made = event(EventKind.CAMERA_UP, camera=camera, host=self.name, token=token)
            self.raised.append(made)
            self.unshared.append(made)
            self.member.raised(camera, 1)
            self.member.save(camera, f"{self.name} {len(self.raised)}".encode())

    def _share(self) -> None:
        try:
            self.member.share(self.unshared)
            self.unshared.clear()
        except ClusterError:
            return  # the outbox tries again

    def sample(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        self._stop.set()
        self._thread.join(15)
        self.member.close(5)


def main(path: str, name: str) -> None:
    # Other threads log: on standard output a line of theirs could end up within one of these.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    def said(what: dict) -> None:
        print(json.dumps(what), flush=True)

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    host = Host(load(Path(path)), name, said).start()
    said({"started": name, "pid": os.getpid()})
    ended.wait()
    host.close()
    shared = {item.id for item in host.raised} - {item.id for item in host.unshared}
    said({"raised": sorted(shared), "stored": sorted({item.id for item in host.stored})})


if __name__ == "__main__":
    main(*sys.argv[1:])
