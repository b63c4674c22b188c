"""What one frame costs on this machine: the network, the rest of the segmentation worker, and a nano detector beside.

All candidates take turns in every round, so that other load on the machine meets all of them; what is counted is the
time of the processor.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from endurance.nano_network import write
from endurance.nano_runtime import RUNTIMES, Nano
from model import load
from model.engine.engine import Engine
from model.preprocess import prepare
from pipeline.capture.recordings import open_recording
from pipeline.checkpoints import checkpoint_path
from pipeline.segmentation.merging import REDUCTION
from pipeline.segmentation.scan import TILE_PX
from pipeline.segmentation.segmenter import Segmenter
from pipeline.types import Band, Frame, FrameRef
from training.evaluation.separate_environment import SeparateEnvironment

NANO = SeparateEnvironment(Path("out/nano_environment"), ("onnxruntime==1.32.0", "openvino==2026.4.1"))
SHARE = 0.2  # of pixels, at which the segmentation worker's own work is measured
WARM_UP_FRAMES = 15  # of a camera: motion needs half a second of history
MOST_FRAMES = 60

Image = NDArray[np.uint8]
Candidates = dict[str, Callable[[], float]]  # seconds of one frame


@contextmanager
def nano_detectors() -> Iterator[Candidates]:
    """Yield the nano detector in each runtime and precision, on one core."""
    with TemporaryDirectory(prefix="nano-") as folder, ExitStack() as stack:
        python = NANO.python()
        candidates: Candidates = {}
        for precision, path in write(Path(folder)).items():
            for runtime in RUNTIMES:
                nano = stack.enter_context(Nano(python, runtime, path))
                candidates[f"nano {runtime} {precision}"] = nano.infer_s
        yield candidates


def frames_of(clip: Path, band: Band, fps: int) -> list[Frame]:
    """Return a clip's first frames."""
    source = open_recording(clip)
    try:
        pixels = [decoded.pixels for _, decoded in zip(range(MOST_FRAMES), source.frames(), strict=False)]
    finally:
        source.close()
    return [Frame(FrameRef("cam", "bench", n, n / fps, 0, 0), band, image) for n, image in enumerate(pixels)]


def network_times(frames: Sequence[Frame], rounds: int, others: Candidates) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the network's fields of `ServiceTimes`, and the median seconds of the other candidates."""
    loaded, threads = load(checkpoint_path(None)), len(os.sched_getaffinity(0))
    frame, preprocessing = frames[-1], loaded.metadata.preprocessing
    whole, _ = prepare(frame.pixels, frame.band, preprocessing)
    reduced, _ = prepare(frame.pixels, frame.band, preprocessing, preprocessing.scale[frame.band] / REDUCTION)
    with Engine(loaded, threads=1) as one, Engine(loaded, threads=threads) as every:

        def timed(
            engine: Engine, image: Image, clock_s: Callable[[], float] = time.process_time
        ) -> Callable[[], float]:
            def run() -> float:
                started_s = clock_s()
                engine.submit(image[None]).result()
                return clock_s() - started_s

            run()
            return run

        own = {
            "whole_s": timed(one, whole),
            "tile_s": timed(one, whole[:TILE_PX, :TILE_PX]),
            "reduced_s": timed(one, reduced),
            "one thread": timed(one, whole, time.perf_counter),
            "all threads": timed(every, whole, time.perf_counter),
        }
        seconds: dict[str, list[float]] = {name: [] for name in (*own, *others)}
        for _ in range(rounds):
            for name, run in {**own, **others}.items():
                seconds[name].append(run())
        prepare_s, judge_s = _worker_times(Segmenter(one), frames)
    medians = {name: median(values) for name, values in seconds.items()}
    fields: dict[str, Any] = {name: medians[name] for name in ("whole_s", "tile_s", "reduced_s")}
    share = min(1.0, medians["one thread"] / medians["all threads"] / threads)
    height, width = whole.shape[:2]
    fields |= {"size_px": (width, height), "threads": threads, "parallel_share": share}
    fields |= {"prepare_s": prepare_s, "judge_s": judge_s}
    return fields, {name: medians[name] for name in others}


def _worker_times(segmenter: Segmenter, frames: Sequence[Frame]) -> tuple[list[float], list[float]]:
    """Return what the segmentation worker itself computes before and after inference, in core seconds."""
    segmenter.share = SHARE
    before, after = [], []
    for frame in frames:
        started_s = time.thread_time()
        batch = segmenter.submit([frame])
        before.append(time.thread_time() - started_s)
        batch.done.result()
        started_s = time.process_time()
        segmenter.finish(batch)
        after.append(time.process_time() - started_s)
    return before[WARM_UP_FRAMES:], after[WARM_UP_FRAMES:]
