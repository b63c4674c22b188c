"""What was decoded with data missing is discarded up to the next keyframe: the real capture worker, a real camera that
loses packets, a real damaged file, and a stand-in for segmentation that compares every pixel with the whole video."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import yaml
import zmq
from av.video.stream import VideoStream
from support.program import Running
from support.rtsp import RtspCameras

from pipeline.capture.decoding import Decoder, LossLog
from pipeline.capture.open import open_recording
from pipeline.capture.source import Receipt
from pipeline.store import ledger
from pipeline.transport.payloads import frame_of
from pipeline.transport.sockets import bound
from pipeline.transport.wire import Credit, CreditRequest, EndOfStream, FrameHeader, decode, encode
from pipeline.types import Cause

FPS = 30
KEYFRAME_EVERY = 15
FRAMES = 60


CODECS = {
    "h264": (
        "libx264",
        "yuv420p",
        {"g": str(KEYFRAME_EVERY), "bf": "0", "sc_threshold": "0", "slices": "4", "crf": "30"},
    ),
    "h265": (
        "libx265",
        "yuv420p",
        {"x265-params": f"keyint={KEYFRAME_EVERY}:scenecut=0:bframes=0:slices=2:log-level=0"},
    ),
    "mjpeg": ("mjpeg", "yuvj420p", {"q": "8"}),
}


def encode_noise(path: Path, codec: str = "h264") -> Path:
    """Noise that moves, several slices a frame, so that whatever is missing shows."""
    encoder, layout, options = CODECS[codec]
    noise = np.random.default_rng(0).integers(0, 256, (128, 160, 3), np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(encoder, rate=FPS, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 128, layout
        for index in range(FRAMES):
            image = np.roll(noise, (3 * index, 5 * index), axis=(0, 1))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
    return path


def segmented(run_dir: Path) -> Iterator[tuple[int, bytes]]:
    """Sequence number and pixels of all that the capture worker sends to segmentation, until its recording ends."""
    with bound(zmq.ROUTER, f"ipc://{run_dir}/segmentation.sock", high_water=16) as socket:
        while True:
            assert socket.poll(20_000), "the capture worker sends nothing"
            sender, *parts = socket.recv_multipart()
            message, buffers = decode(parts)
            if isinstance(message, EndOfStream):
                return
            assert isinstance(message, CreditRequest | FrameHeader)
            done = [message.ref.seq] if isinstance(message, FrameHeader) else []
            session = message.ref.session if isinstance(message, FrameHeader) else message.session
            if isinstance(message, FrameHeader):
                yield message.ref.seq, frame_of(message, buffers).pixels.tobytes()
            socket.send_multipart([sender, *encode(Credit("here", session, segmented=done, granted=True))])


def site(tmp_path: Path, uri: str, transport: str = "udp") -> tuple[Path, Path]:
    config, run_dir = tmp_path / "site.yaml", tmp_path / "run"
    run_dir.mkdir()
    camera = {"id": "cam", "uri": uri, "band": "infrared", "transport": transport}
    config.write_text(yaml.safe_dump({"cameras": [camera], "run_dir": str(run_dir)}))
    return config, run_dir


def whole_frames(clip: Path) -> dict[bytes, int]:
    frames = {frame.pixels.tobytes(): index for index, frame in enumerate(open_recording(clip).frames())}
    assert len(frames) == FRAMES
    return frames


@pytest.mark.parametrize(
    ("codec", "transport", "keyframe_every"),
    [
        pytest.param("h264", "udp", KEYFRAME_EVERY, marks=pytest.mark.slow),
        ("h264", "tcp", KEYFRAME_EVERY),  # as when the camera itself leaves packets out
        ("h265", "udp", KEYFRAME_EVERY),
        ("mjpeg", "udp", 1),
    ],
)
def test_lost_packets_cost_the_frames_up_to_the_next_keyframe_and_show_nothing_wrong(
    tmp_path: Path, codec: str, transport: str, keyframe_every: int
) -> None:
    clip = encode_noise(tmp_path / "clip.mkv", codec)
    whole = whole_frames(clip)
    losses, numbers = 0, []
    with RtspCameras({"cam": {"file": str(clip), "fps": FPS, "transport": transport}}) as cameras:
        config, run_dir = site(tmp_path, cameras.uri("cam"), transport)
        with Running("worker", "capture", config, "--camera", "cam"):
            for seq, pixels in segmented(run_dir):
                assert pixels in whole, f"frame {seq} is none of the video's, after {losses} losses"
                numbers.append((seq, whole[pixels]))
                if len(numbers) % 15 == 0 and losses < 6:
                    cameras.command("lose cam 3")  # the first may only say that a frame begins
                    losses += 1
                if len(numbers) == 110:
                    break
    gaps = [(before, after) for before, after in pairwise(numbers) if (after[1] - before[1]) % FRAMES != 1]
    assert len(gaps) >= losses / 2
    account = ledger.read(run_dir / "ledgers" / "cam.ledger")
    replaced = account.dropped[Cause.OVERLOAD]  # a newer frame took its place while this busy machine took none
    elsewhere = [after for _, after in gaps if after[1] % keyframe_every]
    assert len(elsewhere) <= replaced, elsewhere  # every other gap ends with a keyframe
    assert account.dropped[Cause.CORRUPT] >= len(gaps) - replaced and account.balanced


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_without_a_keyframe_that_was_lost_no_frame_is_intact_and_each_is_counted(tmp_path: Path, codec: str) -> None:
    clip = encode_noise(tmp_path / "clip.mkv", codec)
    losses, frames = LossLog(), []
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        decoder = Decoder(stream, FPS, losses=losses)
        packets = [packet for packet in container.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            if number != KEYFRAME_EVERY:  # lost on its way, which the packet after it shows
                complete = number != KEYFRAME_EVERY + 1
                frames += decoder.frames(packet, Receipt.now(complete=complete))
        frames += decoder.frames(None, None)
    losses.close()
    whole = whole_frames(clip)
    shown = [whole.get(frame.pixels.tobytes()) for frame in frames if frame.intact]
    assert shown == [*range(KEYFRAME_EVERY), *range(2 * KEYFRAME_EVERY, FRAMES)]
    assert len(frames) + decoder.lost == FRAMES - 1


def test_a_frame_that_cannot_be_decoded_keeps_its_number_and_is_counted(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number, frame in enumerate(open_recording(encode_noise(tmp_path / "clip.mp4")).frames()):
        if number < 6 or number > 50:
            cv2.imwrite(str(images / f"f_{number:04}.png"), frame.pixels)
    for number in (2, FRAMES - 1):
        (images / f"f_{number:04}.png").write_text("broken")
    config, run_dir = site(tmp_path, f"file:{images}")
    with Running("worker", "capture", config, "--camera", "cam"):
        numbers = [number for number, _ in segmented(run_dir)]
    assert numbers == [0, 1, 3, 4, 5, *range(51, FRAMES - 1)]
    deadline_s = time.monotonic() + 5
    while not (account := ledger.read(run_dir / "ledgers" / "cam.ledger")).balanced and time.monotonic() < deadline_s:
        time.sleep(0.05)  # a file can only be read again
    assert account.balanced and account.captured == len(numbers) + 2 and account.dropped[Cause.CORRUPT] == 2


def test_a_damaged_recording_is_segmented_only_where_it_is_whole(tmp_path: Path) -> None:
    clip = encode_noise(tmp_path / "clip.mp4")
    whole = whole_frames(clip)
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    place, size = packets[20].pos, packets[20].size
    assert place is not None
    damaged = bytearray(clip.read_bytes())
    damaged[place + size // 4 : place + size // 2] = bytes(size // 2 - size // 4)
    broken = tmp_path / "damaged.mp4"
    broken.write_bytes(damaged)
    config, run_dir = site(tmp_path, f"file:{broken}")
    with Running("worker", "capture", config, "--camera", "cam"):
        frames = [whole.get(pixels) for _, pixels in segmented(run_dir)]
    assert frames == [*range(20), *range(30, FRAMES)]
    deadline_s = time.monotonic() + 5
    while not (account := ledger.read(run_dir / "ledgers" / "cam.ledger")).balanced and time.monotonic() < deadline_s:
        time.sleep(0.05)  # a file can only be read again
    assert account.balanced and 1 <= account.dropped[Cause.CORRUPT] <= 10
