"""Benchmark of recording: CPU and memory of a camera's newest packets, and of writing a clip.

    python3 scripts/bench_recording.py --json recording.json

Real H.264 at 1920x1080, as a camera sends it.  `memory`: what the capture worker does with each packet at all times.
`clip`: what it does in addition while an alert is active, with the end of the clip (checksum, waiting for the disk)
included.  CPU time only, as percent of one core.  Exit code 1 where both together exceed the limit.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.capture.clip_file import ClipFile
from pipeline.capture.clip_recorder import DETECTION_DELAY_S, MB
from pipeline.capture.packet_ring import PacketRing
from pipeline.capture.packet_tap import PacketTap
from pipeline.config.storage import RecordingConfig
from pipeline.store.clips import ClipRecord

SIZE_PX = (1920, 1080)
LIMIT_PERCENT = 2.0
CODED_FRAMES = 100  # then repeated


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--mbit-s", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of video")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from pipeline.bench.results import machine  # imports torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "camera.mp4"
        write_video(path, options.fps, options.mbit_s)
        count = round(options.seconds * options.fps)
        rounds = [measure(path, Path(folder), count, options.fps) for _ in range(options.rounds)]
    best = {name: min(each[name] for each in rounds) for name in rounds[0]}
    result = {
        "machine": machine(),
        "codec": "h264",
        "size_px": SIZE_PX,
        "fps": options.fps,
        "mbit_s": round(best.pop("mbit_s"), 2),
        "seconds": options.seconds,
        "rounds": options.rounds,
        **{name: round(value, 3) for name, value in best.items()},
        "limit_percent": LIMIT_PERCENT,
    }
    print_table(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return int(result["memory_percent"] + result["clip_percent"] > LIMIT_PERCENT)


def write_video(path: Path, fps: int, mbit_s: float) -> None:
    """Write noise at that bit rate, with a keyframe every two seconds and no reordered frames."""
    rng = np.random.default_rng(0)
    width, height = SIZE_PX
    noise = rng.integers(0, 256, (height // 4, width // 4 + CODED_FRAMES, 3), np.uint8).repeat(4, 0)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=fps, options={"g": str(2 * fps), "bf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", round(mbit_s * 1e6)
        for number in range(CODED_FRAMES):
            image = np.ascontiguousarray(noise[:, number : number + width // 4].repeat(4, 1))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))


def measure(path: Path, folder: Path, count: int, fps: int) -> dict[str, float]:
    """Return CPU time as percent of a core at that frame rate, and the memory of the packets."""
    settings = RecordingConfig()
    ring = PacketRing(settings.pre_s + DETECTION_DELAY_S, round(settings.ring_mb * MB))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        tap, stamps_s = PacketTap(stream), [float((packet.pts or 0) * packet.time_base) for packet in packets]
        memory_s = written_s = most_bytes = 0.0
        place, clip = 0, None
        for number in range(count):
            packet, stamp_s = packets[number % len(packets)], stamps_s[number % len(packets)]
            started_s = time.thread_time()
            coded = tap.coded(packet)
            assert coded is not None
            ring.append(coded)
            ring.locate(stamp_s, number / fps)
            memory_s += time.thread_time() - started_s
            most_bytes = max(most_bytes, ring.size_bytes)
            if number % (fps // 2) == 0:
                started_s = time.thread_time()
                reading = ring.since(place)
                place = reading.place
                for timed in reading.packets:
                    clip = clip or ClipFile(
                        folder / "clips", ClipRecord("A", "cam", "s", 0.0, "h264", SIZE_PX, 0.0), coded.stream
                    )
                    clip.write(timed)
                written_s += time.thread_time() - started_s
    assert clip is not None
    started_s = time.thread_time()
    record = clip.finish("post_s")
    written_s += time.thread_time() - started_s
    length_s = count / fps
    return {
        "mbit_s": 8e-6 * record.size_bytes / ((record.last_pts_s or 0) + 1 / fps),
        "memory_percent": 100 * memory_s / length_s,
        "clip_percent": 100 * written_s / length_s,
        "memory_mb": most_bytes / MB,
        "ring_mb": settings.ring_mb,
    }


def print_table(result: dict[str, Any]) -> None:
    width, height = result["size_px"]
    print(f"H.264, {width}x{height}, {result['fps']} frames/s, {result['mbit_s']:g} Mbit/s")
    print(f"  packets in memory     {result['memory_percent']:6.3f} % of a core, {result['memory_mb']:.1f} MB")
    print(f"  clip being written    {result['clip_percent']:6.3f} % of a core")
    print(f"  limit of both         {LIMIT_PERCENT:6.3f} % of a core, {result['ring_mb']:g} MB")


if __name__ == "__main__":
    sys.exit(main())
