"""Benchmark of a live camera: real RTSP, the real program, every frame accounted for.

    python3 scripts/bench_live.py --fps 25 --seconds 60 --json live.json

The camera sends the clip named by `--clip`, at 320x256 times `--scale`, in a loop.  The last line is one JSON
object; exit code 1 where a frame was dropped.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from endurance.fleet import CLIPS, RtspCameras, Running, accounts, encoded, write_site
from endurance.soak import quantile_s
from pipeline.bench.results import machine

CAMERA = "live"
WARM_UP_FRAMES = 50  # not counted: connection, engine autotuning
TRACK = "dasnet_capture_to_track_seconds_bucket"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clip", default="IR_DRONE_015")
    parser.add_argument("--scale", type=float, default=1.0, help="of the clip's 320x256")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory(prefix="live-") as name:
        folder = Path(name)
        size_px = round(320 * options.scale), round(256 * options.scale)
        clip = encoded(CLIPS / f"{options.clip}.mp4", folder / "clip.mp4", options.fps, size_px)
        with RtspCameras({CAMERA: {"file": str(clip), "fps": options.fps}}) as servers:
            config = write_site(folder / "site", [{"id": CAMERA, "uri": servers.uri(CAMERA)}])
            with Running("run", config) as program:
                frames = f'dasnet_frames_segmented_total{{camera="{CAMERA}"}}'
                program.wait_for_metric(frames, WARM_UP_FRAMES, timeout_s=120)
                result = watched(program, folder / "site" / "run", [CAMERA], options.seconds)
                info = next(key for key in program.metrics() if key.startswith("dasnet_build_info"))
    result |= {"engine": info.partition('engine="')[2].partition('"')[0]}
    result |= {"fps": options.fps, "clip": options.clip, "scale": options.scale, "machine": about}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "machine"}))
    return int(result["dropped"] != {})


def watched(program: Running, run_dir: Path, cameras: Sequence[str], seconds: float) -> dict[str, Any]:
    """Return what becomes of the frames of running cameras."""
    before, began = accounts(run_dir), program.metrics()
    time.sleep(seconds)
    after, ended = accounts(run_dir), program.metrics()
    latency = {name: value - began.get(name, 0.0) for name, value in ended.items() if name.startswith(TRACK)}
    lost = {
        cause.value: sum(after[one].dropped[cause] - before[one].dropped[cause] for one in cameras)
        for cause in after[cameras[0]].dropped
    }
    return {
        "seconds": seconds,
        "captured": sum(after[one].captured - before[one].captured for one in cameras),
        "segmented": sum(after[one].segmented - before[one].segmented for one in cameras),
        "dropped": {cause: count for cause, count in lost.items() if count},
        **{f"capture_to_track_p{p}_ms": round(1e3 * quantile_s(latency, p / 100), 1) for p in (50, 95, 99)},
    }


if __name__ == "__main__":
    sys.exit(main())
