"""Clips: from before the first detection to after the end, and what happens where disk, time or a worker is lost."""

import threading
from pathlib import Path

import numpy as np
import pytest
from support.clips import FPS, SIZE_PX, clip_packets, decoded, until_clip
from support.disks import fill, needs_mount, remount, small_disk
from support.recorder import JPEGS, Site, recorder, wait

from pipeline.capture.clip_recorder import MAX_CLIPS
from pipeline.capture.clip_recovery import complete_bytes, recover
from pipeline.capture.packet_ring import PacketRing
from pipeline.capture.source import CodedStream
from pipeline.config.storage import RecordingConfig
from pipeline.store.clips import partial, record_path, video_path

__all__ = ["recorder"]  # a fixture


def test_from_before_the_first_detection_to_after_the_end(site: Site) -> None:
    site.feed(60)
    site.request("A", 50)
    site.request("A", 50, 70)
    site.feed(40)
    record = until_clip(site.folder, "A")
    assert (record.first_pts_s, record.last_pts_s, record.packets) == (1.0, 75 / FPS, 51)
    assert record.is_complete and record.covers_first_detection and record.ended == "post_s"
    assert [bytes(each) for each in clip_packets(site.folder, "A")] == JPEGS[25:76]
    wait(lambda: site.value("written") == 1)  # counted once it is on the disk
    assert site.value("incomplete") == 0
    assert {path.name for path in site.folder.iterdir()} == {"A.mp4", "A.json"}


def test_an_alert_that_goes_on_is_cut_at_the_longest_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path / "clips", pre_s=0.4, max_s=1)
    site.start()
    site.feed(100)
    site.request("A", 50)
    record = until_clip(site.folder, "A")
    site.stop()
    assert record.ended == "max_s" and record.packets == FPS + 1 and record.covers_first_detection


def test_the_longest_clip_reaches_the_first_detection() -> None:
    with pytest.raises(ValueError, match=r"must be greater than recording.pre_s \(30\)"):
        RecordingConfig(pre_s=30, max_s=30)


def test_a_first_detection_that_is_too_old_is_told(site: Site) -> None:
    site.ring = PacketRing(1, 10**7)
    site.stop()
    site.start()
    site.feed(100)
    site.request("A", 10)
    site.request("A", 10, 80)
    record = until_clip(site.folder, "A")
    assert not record.covers_first_detection and not record.is_complete
    assert record.reason == "the first detection is older than the packets in memory"
    wait(lambda: site.value("incomplete") == 1)


def test_what_cannot_be_recorded_is_counted_by_cause(site: Site) -> None:
    site.request("A", 50)
    site.wait_for_loss("empty")
    site.feed(60)
    site.request("B", 50, session="earlier")
    site.wait_for_loss("session")
    for number in range(MAX_CLIPS + 2):
        site.request(f"C{number}", 50)
    site.wait_for_loss("overload", 2)
    site.request("../../etc", 50)
    wait(lambda: site.rejected._value.get() == 1)
    assert site.value("written") == 0


def test_a_codec_that_the_container_cannot_hold(site: Site) -> None:
    site.feed(60, CodedStream("vp8", SIZE_PX))
    site.request("A", 50)
    site.wait_for_loss("codec")
    assert [path.name for path in site.folder.iterdir()] == ["A.json"]
    record = until_clip(site.folder, "A")
    assert record.is_lost and "does not support 'vp8'" in record.reason
    site.request("A", 50)  # repeated
    site.request("B", 50)
    site.wait_for_loss("codec", 2)


def test_a_folder_that_cannot_be_written_costs_the_clip_alone(site: Site) -> None:
    site.folder.write_text("a file")
    site.feed(60)
    site.request("A", 50)
    site.wait_for_loss("disk")
    site.folder.unlink()
    site.request("B", 50)
    site.request("B", 50, 55)
    site.feed(10)
    assert until_clip(site.folder, "B").is_complete


@needs_mount
def test_a_full_and_a_read_only_disk_cost_the_clip_alone(site: Site) -> None:
    with small_disk(site.folder, 1):
        filler = fill(site.folder)
        site.feed(60)
        site.request("A", 50)
        site.wait_for_loss("disk")
        filler.unlink()
        site.request("B", 50)
        wait(lambda: partial(video_path(site.folder, "B")).exists())
        fill(site.folder)
        site.feed(100)
        site.wait_for_loss("disk", 2)
        assert {path.name for path in site.folder.iterdir()} <= {"filler", "A.json", "B.json"}  # why there is none
        (site.folder / "filler").unlink()
        remount(site.folder, "ro")
        site.request("C", 50)
        site.wait_for_loss("disk", 3)
        remount(site.folder, "rw")
        site.request("D", 150)
        site.request("D", 150, 152)
        site.feed(20)
        assert until_clip(site.folder, "D").is_complete


def test_a_slow_disk_misses_packets_and_says_so(site: Site) -> None:
    site.stop()
    site.ring = PacketRing(2, 10**7)
    site.feed(60)
    site.start()
    site.request("A", 50)
    wait(lambda: partial(video_path(site.folder, "A")).exists())
    site.feed(200)  # faster than it is written
    site.request("A", 50, 255)
    site.feed(10)
    record = until_clip(site.folder, "A")
    assert record.missed_packets > 0 and "disk was too slow" in record.reason and record.covers_first_detection
    wait(lambda: site.value("incomplete") == 1)


# What a killed worker left


def test_every_cut_of_a_clip_leaves_a_whole_one_or_none(site: Site, tmp_path: Path) -> None:
    site.feed(100)
    site.request("A", 50)
    site.request("A", 50, 90)
    record = until_clip(site.folder, "A")
    content = video_path(site.folder, "A").read_bytes()
    record.ended, cuts = "", np.linspace(0, len(content), 25, dtype=int)
    left = []
    for cut in cuts:
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        partial(video_path(folder, "A")).write_bytes(content[:cut])
        partial(record_path(folder, "A")).write_bytes(
            record_path(site.folder, "A").read_bytes().replace(b"post_s", b"")
        )
        recover(folder, "cam", site.metrics)
        assert not list(folder.glob("*partial*"))
        found = until_clip(folder, "A")
        left.append(found.packets)
        assert video_path(folder, "A").exists() is not found.is_lost
        if not found.is_lost:
            assert found.reason and len(decoded(folder, "A")) == found.packets
    assert left == sorted(left) and left[0] == 0 and left[-1] == record.packets and len(set(left)) > 3
    assert site.value("lost", "killed") == left.count(0)


def test_leftovers_of_other_cameras_and_broken_records(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "left"
    folder.mkdir()
    record_path(folder, "A").with_name("A.partial.json").write_text("{")
    partial(video_path(folder, "A")).write_bytes(b"x")
    recover(folder, "cam", site.metrics)
    assert list(folder.iterdir()) == [] and site.value("lost", "killed") == 1
    with (tmp_path / "empty").open("wb+") as file:
        assert complete_bytes(file) == 0


def test_the_thread_ends(site: Site) -> None:
    site.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "clips"]
