"""Support of the endurance tests: real RTSP cameras, the site that captures them, and its processes' resources."""

import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import yaml
from support.program import CLIPS, DASNET, Running
from support.rtsp import RtspCameras

from pipeline.errors import StoreError
from pipeline.store import ledger

__all__ = ["CLIPS", "DASNET", "RtspCameras", "Running"]

Settings = dict[str, str | int]
CLIP_FRAMES = 150


def cameras(count: int, fps: int, rng: random.Random, folder: Path) -> dict[str, Settings]:
    """Return settings of cameras `cam00`, `cam01`, ..., with clips of 320x256 drawn by `rng`, encoded to `folder`."""
    clips = [encoded(clip, folder / clip.name, fps) for clip in sorted(CLIPS.glob("*.mp4"))]
    return {f"cam{number:02}": {"file": str(rng.choice(clips)), "fps": fps} for number in range(count)}


def encoded(clip: Path, path: Path, fps: int, size_px: tuple[int, int] | None = None) -> Path:
    """Encode a clip's first frames like a camera: with a keyframe every second, and without B-frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(clip)) as whole, av.open(str(path), "w") as cut:
        source = whole.streams.video[0]
        stream = cut.add_stream("libx264", rate=fps, options={"bf": "0", "g": str(fps), "preset": "veryfast"})
        stream.width, stream.height = size_px or (source.width, source.height)
        stream.pix_fmt = "yuv420p"
        for number, frame in zip(range(CLIP_FRAMES), whole.decode(video=0), strict=False):
            image = frame.reformat(width=stream.width, height=stream.height, format="yuv420p")
            image.pts, image.time_base = number, Fraction(1, fps)
            cut.mux(stream.encode(image))
        cut.mux(stream.encode(None))
    return path


def write_site(folder: Path, watched: Sequence[Mapping[str, object]], **sections: object) -> Path:
    """Write a site's configuration with run folder `folder/run`, and free ports unless `sections` has others."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "site.yaml"
    content = {
        "cameras": [{"band": "infrared", **camera} for camera in watched],
        "run_dir": str(folder / "run"),
        "metrics": {"port": 0},
        "console": {"port": 0},
        **sections,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def accounts(run_dir: Path) -> dict[str, ledger.Account]:
    """Return ledger accounts by camera; ledgers that are just being created are omitted."""
    found = {}
    for path in sorted((run_dir / "ledgers").glob("*.ledger")):
        with suppress(StoreError):
            found[path.stem] = ledger.read(path)
    return found


def processes(program: Running) -> dict[str, list[int]]:
    """Return process ids by worker, `supervisor` included; two ids of a name are a leftover process."""
    found: dict[str, list[int]] = {}
    for pid, command in program.children().items():
        words = command.split()
        name = words[words.index("worker") + 1] if "worker" in words else "supervisor"
        if "--camera" in words:
            name += "-" + words[words.index("--camera") + 1]
        found.setdefault(name, []).append(pid)
    return found


def descriptors(pid: int) -> int:
    """Return the number of open descriptors; 0 for an ended process."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


def resident_bytes(pid: int) -> int:
    """Return the resident memory; 0 for an ended process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value not below `share` (0..1) of all; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def free_ports(count: int) -> tuple[int, ...]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = tuple(each.getsockname()[1] for each in sockets)
    for each in sockets:
        each.close()
    return ports
