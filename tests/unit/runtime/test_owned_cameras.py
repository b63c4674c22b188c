"""Which processes the supervisor runs where several inference hosts share the cameras."""

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.runtime.owned_cameras import LinkedCameras, OwnedCameras
from pipeline.runtime.process_table import WorkerProcess, processes
from pipeline.timeouts import WORKER_SILENCE_TIMEOUT_S


@pytest.fixture
def site(tmp_path: Path) -> Config:
    path = tmp_path / "site.yaml"
    described = {
        "cameras": [{"id": "north", "uri": "demo:scene"}, {"id": "hill", "uri": "demo:scene", "host": "edge"}],
        "hosts": {"alpha": {"address": "10.0.0.5"}, "beta": {"address": "10.0.0.6", "port": 5580}},
        "nats": {"servers": ["nats://127.0.0.1:4222"]},
        "link": {"encrypted": False},
    }
    path.write_text(yaml.safe_dump(described))
    return load(path)


@pytest.fixture
def child() -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def names(table: list[WorkerProcess]) -> list[str]:
    return [process.name for process in table]


def test_the_track_worker_waits_for_the_network_and_names_the_cameras_to_capture(site: Config):
    owned = OwnedCameras()
    table = processes(site.for_host("alpha"), None, owned)
    assert names(table) == ["segmentation", "tracking", "console"]
    assert names([process for process in table if owned.must_wait(process)]) == ["tracking"]
    assert not list(owned.due(table)) and math.isinf(table[1].restart_s)
    table[0].heartbeat_s = time.monotonic()
    assert names(list(owned.due(table))) == ["tracking"] and not list(owned.due(table))
    table[1].captures = frozenset({"north", "hill"})
    assert not owned.follow(table)
    assert names(processes(site.for_host("alpha"), None, owned)) == [*names(table), "capture-north"]
    assert [camera.id for camera in owned.watched(site.for_host("alpha")).cameras] == ["north", "hill"]
    table[1].ended()
    owned.follow(table)
    assert names(processes(site.for_host("alpha"), None, owned)) == names(table)


def test_a_host_that_infers_nothing_any_more_hands_its_cameras_over(site: Config, child: "subprocess.Popen[bytes]"):
    owned = OwnedCameras()
    table = processes(site.for_host("alpha"), None, owned)
    segmentation, tracking = table[0], table[1]
    segmentation.child = tracking.child = child
    segmentation.heartbeat_s = time.monotonic()
    assert not owned.follow(table)
    segmentation.heartbeat_s = time.monotonic() - WORKER_SILENCE_TIMEOUT_S - 1
    assert owned.follow(table) == [tracking]
    segmentation.heartbeat_s = time.monotonic()
    assert not owned.follow(table)
    segmentation.child, segmentation.heartbeat_s = None, 0.0
    assert not owned.follow(table), "it may be back in a moment"


def test_the_track_worker_waits_again_while_the_segmentation_worker_hangs(site: Config):
    owned = OwnedCameras()
    table = processes(site.for_host("alpha"), None, owned)
    assert owned.must_wait(table[1])
    table[0].heartbeat_s = time.monotonic() - WORKER_SILENCE_TIMEOUT_S - 1
    assert not list(owned.due(table)), "it would be ended at once"
    table[0].heartbeat_s = time.monotonic()
    assert names(list(owned.due(table))) == ["tracking"]


def test_a_capture_worker_of_an_edge_host_is_replaced_when_its_camera_moves(site: Config):
    owner: dict[str, str] = {}
    edge = site.for_host("edge")
    linked = LinkedCameras(["hill"], owner.get, lambda: None)
    assert not processes(edge, "edge", linked), "its owner is not known yet"
    owner["hill"] = "alpha"
    (capture,) = processes(edge, "edge", linked)
    link = linked.config_of(capture, edge).link
    assert link is not None and (link.host, link.port) == ("10.0.0.5", 5570)
    assert not linked.follow([capture])
    owner["hill"] = "beta"
    assert linked.follow([capture]) == [capture]
    link = linked.config_of(capture, edge).link
    assert link is not None and (link.host, link.port) == ("10.0.0.6", 5580)
    assert not linked.follow([capture])
