"""Snapshots are a bonus: one that cannot be written stops nothing, and is counted."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.disks import fill, needs_mount, remount, small_disk
from support.scenes import SURE_UAV, frame
from test_sinks import until

from pipeline.alerting.snapshots import MAX_WAITING, Snapshot, SnapshotWriter
from pipeline.telemetry.metrics import TrackingMetrics

JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (256, 320, 3), np.uint8))[1].tobytes()
DETECTIONS = frame(3, [(50, 60, 8, SURE_UAV)])


@dataclass
class Site:
    folder: Path
    writer: SnapshotWriter
    metrics: TrackingMetrics
    forgotten: list[str]

    def write(self, name: str, jpeg: bytes = JPEG) -> None:
        self.writer.write(Snapshot(name, jpeg, DETECTIONS, []))

    def lost(self, cause: str) -> int:
        return int(self.metrics.store.snapshots_lost.labels(cause)._value.get())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    metrics, forgotten = TrackingMetrics(["north"], 0.5), list[str]()
    folder = tmp_path / "run" / "snapshots"
    writer = SnapshotWriter(folder, metrics.store, forgotten.append)
    yield Site(folder, writer, metrics, forgotten)
    writer.stop(5)


def written(site: Site, name: str) -> bool:
    return (site.folder / name).exists() and cv2.imread(str(site.folder / name)).shape[:2] == DETECTIONS.size_px[::-1]


def test_a_folder_that_was_removed_is_made_again(site: Site) -> None:
    site.write("a.jpg")
    until(lambda: written(site, "a.jpg"))
    shutil.rmtree(site.folder.parent)
    site.write("b.jpg")
    until(lambda: written(site, "b.jpg"))
    assert site.forgotten == []


def test_a_folder_that_cannot_be_made_costs_the_snapshots_alone(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.folder.parent.mkdir(parents=True)
    site.folder.touch()
    for name in ("a.jpg", "b.jpg"):
        site.write(name)
    until(lambda: site.lost("disk") == 2)
    site.folder.unlink()
    site.write("c.jpg")
    until(lambda: written(site, "c.jpg"))
    assert site.forgotten == ["a.jpg", "b.jpg"]


def test_what_is_no_jpeg_and_what_is_too_much_are_counted_apart(site: Site) -> None:
    site.write("a.jpg", b"\xff\xd8 no image")
    until(lambda: site.lost("malformed") == 1)
    for number in range(20 * MAX_WAITING):
        site.write(f"{number}.jpg")
    assert site.lost("overload") > 0
    site.writer.stop(20)
    assert len(list(site.folder.iterdir())) + site.lost("overload") == 20 * MAX_WAITING


@needs_mount
def test_a_full_and_a_read_only_disk_cost_the_snapshots_alone(site: Site) -> None:
    with small_disk(site.folder):
        filler = fill(site.folder)
        site.write("full.jpg")
        until(lambda: site.lost("disk") == 1)
        assert sorted(path.name for path in site.folder.iterdir()) == ["filler"], "no half of one is left"
        filler.unlink()
        remount(site.folder, "ro")
        site.write("ro.jpg")
        until(lambda: site.lost("disk") == 2)
        remount(site.folder, "rw")
        site.write("good.jpg")
        until(lambda: written(site, "good.jpg"))
        assert site.forgotten == ["full.jpg", "ro.jpg"]
