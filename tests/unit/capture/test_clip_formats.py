"""Clips of every format: the packets as they are, or compressed without loss."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from support.clips import FPS, SIZE_PX, clip_packets, decoded, images, nal_units, until_clip, video
from support.recorder import Site, recorder

from pipeline.capture.open import open_recording
from pipeline.capture.packet_ring import PacketRing
from pipeline.capture.source import CodedPacket, CodedStream

__all__ = ["recorder"]  # a fixture


def recorded(site: Site, path: Path, fps: float | None = None) -> list[CodedPacket]:
    """A recording's packets, in the ring with the times of its frames."""
    packets: list[CodedPacket] = []
    source = open_recording(path, fps)

    def take(coded: CodedPacket) -> None:
        packets.append(coded)
        site.ring.append(coded)

    source.on_packet = take
    for frame in source.frames():
        site.ring.locate(frame.stamp_s, frame.pts_s)
    source.close()
    return packets


def clip_of(site: Site, alert: str, first_pts_s: float) -> None:
    site.request(alert, round(first_pts_s * FPS))
    site.request(alert, round(first_pts_s * FPS), round(first_pts_s * FPS) + 2)
    until_clip(site.folder, alert)


@pytest.mark.parametrize(("codec", "name"), [("libx264", "a.mp4"), ("libx264", "a.mkv"), ("libx265", "a.mp4")])
def test_reordered_frames_keep_their_times_and_bytes(codec: str, name: str, site: Site, tmp_path: Path) -> None:
    packets = recorded(site, video(tmp_path / name, codec, 60, 20, b_frames=2))
    clip_of(site, "A", 1.8)
    record, clip = until_clip(site.folder, "A"), clip_packets(site.folder, "A")
    assert record.covers_first_detection and record.first_pts_s == pytest.approx(0.8, abs=1e-6)
    start = next(place for place in range(len(packets)) if packets[place].data == bytes(clip[0]))
    shown = [each.data for each in packets[start:] if (each.stamp_s or 0) >= (packets[start].stamp_s or 0)]
    assert [bytes(each) for each in clip] == shown[: len(clip)], "but what a keyframe's followers show before it"
    times_s = sorted(record.zero_pts_s + float(each.pts * each.time_base) for each in clip)
    assert times_s == pytest.approx([0.8 + number / FPS for number in range(len(clip))], abs=1e-4)
    assert len(decoded(site.folder, "A")) == len(clip)


def test_parameter_sets_that_are_only_in_the_packets(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "a.h264"
    with av.open(str(video(tmp_path / "a.mp4", frames=60))) as source, av.open(str(path), "w", format="h264") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for each in source.demux(video=0):
            if each.size:
                each.stream = stream
                out.mux_one(each)
    packets = recorded(site, path, FPS)
    bare = CodedStream("h264", SIZE_PX)
    site.ring = PacketRing(60, 10**7)
    site.stop()
    site.start()
    for number, each in enumerate(packets):
        site.ring.append(CodedPacket(bare, each.data, number / FPS, number / FPS, each.is_keyframe))
        site.ring.locate(number / FPS, number / FPS)
    clip_of(site, "A", 2.0)
    clip = clip_packets(site.folder, "A")
    units = [nal_units(bytes(each), True) for each in clip]
    assert units == [nal_units(each.data, False) for each in packets[20 : 20 + len(clip)]]
    assert len(decoded(site.folder, "A")) == len(clip)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_image_files_are_packets_as_they_are(suffix: str, site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(images(60)):
        cv2.imwrite(str(folder / f"{number:03}{suffix}"), image)
    recorded(site, folder)
    clip_of(site, "A", 2.0)
    clip = clip_packets(site.folder, "A")
    assert [bytes(each) for each in clip] == [
        path.read_bytes() for path in sorted(folder.iterdir())[25 : 25 + len(clip)]
    ]
    assert len(decoded(site.folder, "A")) == len(clip)


@pytest.mark.parametrize(("pixel_format", "stored"), [("gray16le", "gray16le"), ("yuyv422", "yuv422p")])
def test_raw_video_is_compressed_without_loss(pixel_format: str, stored: str, site: Site) -> None:
    raw = CodedStream("rawvideo", SIZE_PX, pixel_format)
    frames = np.random.default_rng(0).integers(0, 2**16, (60, SIZE_PX[1], SIZE_PX[0]), np.uint16)
    for number, each in enumerate(frames):
        site.ring.append(CodedPacket(raw, each.tobytes(), number / FPS, number / FPS, True))
        site.ring.locate(number / FPS, number / FPS)
    clip_of(site, "A", 2.0)
    shown = decoded(site.folder, "A")
    assert shown[0].format.name == stored and until_clip(site.folder, "A").covers_first_detection
    for before, after in zip(frames[25:], shown, strict=False):
        got = after.to_ndarray() if stored == "gray16le" else after.reformat(format=pixel_format).to_ndarray()
        assert got.tobytes() == before.tobytes()


def test_raw_video_without_a_lossless_form_is_not_recorded(site: Site) -> None:
    site.feed(60, CodedStream("rawvideo", SIZE_PX, "bayer_rggb8"))
    site.request("A", 50)
    site.wait_for_loss("codec")
