"""Snapshots: drawn at the preview's scale; one that cannot be written is counted and stops nothing."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.disks import fill, needs_mount, remount, small_disk
from support.events import CONFIRMED, ESCALATED, LABELLED, LOST, event, raised, track, until
from support.scenes import SURE_UAV, frame

from pipeline.alerting.snapshots import (
    MAX_QUEUED,
    Snapshot,
    SnapshotWriter,
    snapshots_of,
    with_snapshot_names,
    write_snapshot,
)
from pipeline.telemetry.metrics import TrackingMetrics

PREVIEW_SIZE_PX = (320, 256)  # half the frame's
JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (256, 320, 3), np.uint8))[1].tobytes()
DETECTIONS = frame(3, [(500, 160, 40, SURE_UAV)])


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
    return (site.folder / name).exists() and cv2.imread(str(site.folder / name)).shape[1::-1] == PREVIEW_SIZE_PX


def test_the_overlay_is_drawn_at_the_scale_of_the_preview(tmp_path: Path) -> None:
    gray = np.full((*PREVIEW_SIZE_PX[::-1], 3), 128, np.uint8)
    path = tmp_path / "snapshots" / "a.jpg"
    own = track(1, xyxy=(480.0, 140.0, 520.0, 180.0))
    write_snapshot(path, cv2.imencode(".jpg", gray)[1].tobytes(), DETECTIONS, [own])
    drawn = cv2.imread(str(path))
    assert drawn.shape == gray.shape
    target = drawn[71:89, 241:259]  # its box is (240, 70, 260, 90) in the preview
    assert (np.abs(target.astype(int) - 128).max(axis=2) > 10).all(), "the mask is tinted"
    rows, columns = np.nonzero(np.abs(drawn.astype(int) - 128).max(axis=2) > 10)
    assert rows.min() > 20 and rows.max() < 130 and columns.min() > 140 and columns.max() < 320


def test_a_snapshot_marks_the_target_of_its_alert_alone_and_a_crop_shows_its_surroundings(tmp_path: Path) -> None:
    """Of two targets in the frame, at half the frame's size."""
    both = frame(3, [(500, 160, 40, SURE_UAV), (100, 400, 40, SURE_UAV)])
    own = track(33, xyxy=(480.0, 140.0, 520.0, 180.0))
    pixels = np.full((*PREVIEW_SIZE_PX[::-1], 3), 128, np.uint8)
    pixels[70:90, 240:260] = 200
    write_snapshot(tmp_path / "a.jpg", cv2.imencode(".jpg", pixels)[1].tobytes(), both, [own])
    drawn = cv2.imread(str(tmp_path / "a.jpg")).astype(int)
    marked = np.abs(drawn - pixels).max(axis=2) > 40
    assert marked[60:100, 230:270].any() and not marked[150:].any()
    crop = cv2.imread(str(tmp_path / "a.crop.jpg")).astype(int)
    assert crop.shape == (120, 160, 3)
    assert np.abs(crop - pixels[20:140, 160:320]).mean() < 3, "it is not drawn on"


def test_the_events_of_an_alert_name_its_images_and_share_those_of_one_frame() -> None:
    confirmed, opened = raised(track(1))
    joined = event(CONFIRMED, track(2, 9), alert=confirmed.id)
    escalated = event(ESCALATED, track(2, 9), alert=confirmed.id)
    lost = event(LOST, track(1, 9), alert=confirmed.id)
    labelled = event(LABELLED, track(3, label="bird"))
    named = with_snapshot_names([confirmed, opened, joined, escalated, lost, labelled], "north")
    first, later = confirmed.id, f"{confirmed.id}-9"
    assert [each.snapshot for each in named] == [
        *[f"{first}.jpg"] * 2, *[f"{later}.jpg"] * 2, None, None,
    ]  # fmt: skip
    assert [each.crop for each in named[:3]] == [f"{first}.crop.jpg", f"{first}.crop.jpg", f"{later}.crop.jpg"]
    made = snapshots_of(named, JPEG, DETECTIONS)
    assert [(each.name, [one.id for one in each.tracks]) for each in made] == [
        (f"{first}.jpg", [1]), (f"{later}.jpg", [2]),
    ]  # fmt: skip


def test_a_removed_folder_is_created_again(site: Site) -> None:
    site.write("a.jpg")
    until(lambda: written(site, "a.jpg"))
    shutil.rmtree(site.folder.parent)
    site.write("b.jpg")
    until(lambda: written(site, "b.jpg"))
    assert site.forgotten == []


def test_a_folder_that_cannot_be_created_loses_only_snapshots(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.folder.parent.mkdir(parents=True)
    site.folder.touch()
    for name in ("a.jpg", "b.jpg"):
        site.write(name)
    until(lambda: site.lost("disk") == 2)
    site.folder.unlink()
    site.write("c.jpg")
    until(lambda: written(site, "c.jpg"))
    assert site.forgotten == ["a.jpg", "a.crop.jpg", "b.jpg", "b.crop.jpg"]


def test_malformed_jpegs_and_overload_are_counted_by_cause(site: Site) -> None:
    site.write("a.jpg", b"\xff\xd8 no image")
    until(lambda: site.lost("malformed") == 1)
    for number in range(20 * MAX_QUEUED):
        site.write(f"{number}.jpg")
    assert site.lost("overload") > 0
    site.writer.stop(20)
    assert len(list(site.folder.iterdir())) + site.lost("overload") == 20 * MAX_QUEUED


@needs_mount
def test_a_full_or_read_only_disk_loses_only_snapshots(site: Site) -> None:
    with small_disk(site.folder):
        filler = fill(site.folder)
        site.write("full.jpg")
        until(lambda: site.lost("disk") == 1)
        assert sorted(path.name for path in site.folder.iterdir()) == ["filler"], "no partial file is left"
        filler.unlink()
        remount(site.folder, "ro")
        site.write("ro.jpg")
        until(lambda: site.lost("disk") == 2)
        remount(site.folder, "rw")
        site.write("good.jpg")
        until(lambda: written(site, "good.jpg"))
        assert site.forgotten == ["full.jpg", "full.crop.jpg", "ro.jpg", "ro.crop.jpg"]
