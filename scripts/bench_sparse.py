"""Compare the native engine's sparse last stage with all of it: masks, and time in one thread.

    python3 scripts/bench_sparse.py --data FOLDER --frames 2 --json sparse.json

Both take turns on each frame; times are of the processor, and the ratio is that of the frames' medians.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.checkpoint import Loaded, load
from model.dasnet import DASNet
from model.engine.native import NativeBackend
from model.preprocess import prepare
from pipeline.bench.results import machine
from pipeline.checkpoints import checkpoint_path
from training.datasets import open_dataset

ROUNDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="hard")
    parser.add_argument("--frames", type=int, default=1, help="of each clip")
    parser.add_argument("--below", type=float, nargs="*", default=[0.05], help="probabilities of the coarse head")
    parser.add_argument("--scale", type=float, default=1.0, help="frames enlarged by this: a larger sensor")
    parser.add_argument("--tile", type=int, help="side of a tile around the frame's middle, as in a scan")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    loaded = load(checkpoint_path(None))
    assert isinstance(loaded.network, DASNet)
    dense = NativeBackend(loaded.network, options.precision, loaded.network.multiple, 1)
    rows = []
    for below in options.below:
        sparse = NativeBackend(loaded.network, options.precision, loaded.network.multiple, 1, below)
        for name, band, image, has_target in frames(loaded, options):
            threshold = loaded.metadata.thresholds[band].threshold
            row = compared(dense, sparse, image, threshold)
            rows.append({"below": below, "clip": name, "target": has_target, "size": list(image.shape[:2])} | row)
        print(summary(below, [row for row in rows if row["below"] == below]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


def frames(loaded: Loaded, options: argparse.Namespace) -> Iterator[tuple[str, str, NDArray[np.uint8], bool]]:
    """Yield clip, band, the network's input, and whether an object is labelled."""
    for clip in open_dataset(options.data, [options.split]):
        numbers = {round(len(clip) * (n + 0.5) / options.frames) for n in range(options.frames)}
        for frame in clip.read(numbers):
            image, _ = prepare(frame.image, clip.sensor, loaded.metadata.preprocessing)
            if options.scale != 1:
                image = np.asarray(cv2.resize(image, None, fx=options.scale, fy=options.scale), np.uint8)
            if options.tile:
                top, left = ((side - options.tile) // 2 for side in image.shape[:2])
                image = np.ascontiguousarray(image[top : top + options.tile, left : left + options.tile])
            yield clip.name, clip.sensor, image, bool(frame.objects)


def compared(dense: NativeBackend, sparse: NativeBackend, image: NDArray[np.uint8], threshold: float) -> dict[str, Any]:
    """Return the two masks' IoU, their pixels, and the processor time of each in ms."""
    maps = [engine.submit(image[None]).result()[0].max(axis=0) > threshold for engine in (dense, sparse)]
    times_ms: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for engine, times in zip((dense, sparse), times_ms, strict=True):
            started_s = time.process_time()
            engine.submit(image[None]).result()
            times.append((time.process_time() - started_s) * 1e3)
    union = int(np.count_nonzero(maps[0] | maps[1]))
    return {
        "pixels": int(np.count_nonzero(maps[0])),
        "iou": np.count_nonzero(maps[0] & maps[1]) / union if union else 1.0,
        "dense_ms": round(median(times_ms[0]), 2),
        "sparse_ms": round(median(times_ms[1]), 2),
    }


def summary(below: float, rows: list[dict[str, Any]]) -> str:
    seen = [row for row in rows if row["target"] and row["pixels"]]
    ious = [row["iou"] for row in seen]
    ratio = sum(row["dense_ms"] for row in rows) / sum(row["sparse_ms"] for row in rows)
    return (
        f"below {below}: {len(rows)} frames, {len(seen)} with masks on targets: mean IoU {mean(ious):.4f},"
        f" worst {min(ious):.3f}, {sum(one < 0.99 for one in ious)} below 0.99;"
        f" {sum(row['dense_ms'] for row in rows) / len(rows):.1f} ms dense, {ratio:.2f} times as fast sparse"
    )


if __name__ == "__main__":
    sys.exit(main())
