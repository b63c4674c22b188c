"""`dasnet evaluate`: mask metrics of a checkpoint, image by image.

In: a checkpoint that `model.load` reads, and the labelled frames of a split.  Out: for each image the counts of
true positive, false positive and false negative pixels, for class uav and, where a checkpoint has more classes, for any
object; precision-recall curves; inference time.  `training.evaluation.report` makes metrics of them.

Masks are compared at the frame's resolution: probabilities are resized to it, then thresholded at THRESHOLD, whatever
the checkpoint's own threshold is.  For checkpoints with stretched input the original's method is measured too: at the
network's input, where a pixel belongs to the target if the resized mask is above 0.
"""

import copy
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from model.checkpoint import Loaded, load
from model.engine.backend import Maps
from model.engine.engine import Engine
from model.metadata import CLASSES
from model.preprocess import prepare
from pipeline.errors import ConfigError
from training.cache import CachedClip, CachedFrame, CachedFrames, cache_frames, every_nth
from training.datasets import open_dataset
from training.evaluation.figures import can_plot, plot_precision_recall
from training.evaluation.mask_metrics import THRESHOLD, UAV_LABEL, Counts, count, diameter_px, threshold_histogram
from training.evaluation.qualitative import chosen_frames, crop, write_samples
from training.evaluation.report import OBJECT, UAV, Evaluation, ImageResult, Timing, as_json, table
from training.masks import Image, Mask

CACHE = Path(".cache/training")
EVALUATION_FILE, SAMPLES_FOLDER = "evaluation.json", "samples"
TIMED_SIDE_PX = 512
TIMED_RUNS = 5
IN_FLIGHT = 2


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `dasnet evaluate`."""

    checkpoint: Path
    data: str  # a folder
    split: str = "val"
    every: int = 1
    json: Path | None = None
    out: Path | None = None  # a folder: evaluation.json, samples/, precision_recall.png
    model: str | None = None  # expected network of the checkpoint
    seed: int | None = None  # of the training, where the checkpoint does not have it
    device: str = "auto"
    timing: bool = True


def run_evaluate(options: EvaluateOptions) -> None:
    """Print the table and write the requested files.

    Raise ConfigError for wrong usage, DasnetError and ModelError for unreadable data and checkpoints.
    """
    loaded = load(options.checkpoint)
    seed = _checked_seed(loaded, options)
    frames = evaluation_frames(options.data, options.split, options.every)
    evaluation = evaluate(loaded, frames, options.device, show_progress)
    timing = time_frame(loaded, options.device) if options.timing else None
    data = {"folder": Path(options.data).name, "split": options.split, "every": options.every}
    report = as_json(evaluation, loaded, seed, data, timing)
    print(table(report))
    if options.out:
        write_samples(options.out / SAMPLES_FOLDER, evaluation.samples)
        if can_plot():
            plot_precision_recall({loaded.metadata.network: [report]}, UAV, options.out / "precision_recall.png")
        else:
            print("precision_recall.png is skipped: it needs matplotlib (pip install dasnet[plot])")
    for path in (options.json, options.out and options.out / EVALUATION_FILE):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report) + "\n", encoding="utf-8")
            print(f"written: {path}")


def _checked_seed(loaded: Loaded, options: EvaluateOptions) -> int | None:
    metadata = loaded.metadata
    if options.model and options.model != metadata.network:
        raise ConfigError(f"--model {options.model}: {options.checkpoint} is of {metadata.network}; must be that one")
    own: int | None = metadata.training.get("seed")
    if None not in (own, options.seed) and own != options.seed:
        raise ConfigError(f"--seed {options.seed}: {options.checkpoint} was trained with seed {own}; must be that one")
    return options.seed if own is None else own


def evaluation_frames(folder: str, split: str, every: int, cache: Path = CACHE) -> CachedFrames:
    """Return every n-th labelled frame of a split; raise DataError."""
    recordings = open_dataset(folder, [split])
    return cache_frames(cache, recordings, every_nth(recordings, every, every))


def evaluate(
    loaded: Loaded, frames: CachedFrames, device: str = "auto", progress: Callable[[int, int], None] = lambda *_: None
) -> Evaluation:
    """Return the evaluation in float32, reproducible on every machine; `progress` is called with (done, total)."""
    result = Evaluation()
    chosen = chosen_frames(frames)
    with _engine(loaded, device) as engine:
        for done, (clip, frame, image, labels, maps) in enumerate(_inferred(engine, loaded, frames), 1):
            own = _at_frame_size(maps, labels.shape)
            truths = {UAV: (own[0], labels == UAV_LABEL)}
            if len(maps) > 1:
                truths[OBJECT] = (own.max(axis=0), (labels > 0) & (labels <= len(CLASSES)))
            name, truth = f"{clip.name}/{frame.number}", truths[UAV][1]
            for target, pair in truths.items():
                result.histograms[target] = result.histograms.get(target, 0) + threshold_histogram(*pair)
            counts = {target: count(likely > THRESHOLD, truth_mask) for target, (likely, truth_mask) in truths.items()}
            at_input = _count_at_input(loaded, maps[0], truth)
            result.images.append(ImageResult(name, clip.sensor, diameter_px(truth), counts, at_input))
            if (clip.name, frame.number) in chosen:
                result.samples.append(crop(name, image, truth, own[0] > THRESHOLD))
            progress(done, len(frames))
    return result


def _engine(loaded: Loaded, device: str) -> Engine:
    """Return the engine of the network alone: with its checkpoint, maps below the checkpoint's threshold are coarse."""
    return Engine(loaded.network, device=device, precision="fp32")


def _inferred(
    engine: Engine, loaded: Loaded, frames: CachedFrames
) -> Iterator[tuple[CachedClip, CachedFrame, Image, Image, Maps]]:
    """Yield each frame with its probabilities (classes, h, w) at the network's input; inference is one frame ahead."""
    waiting: deque[tuple[CachedClip, CachedFrame, Image, Image, Future[Maps]]] = deque()
    for clip in frames.clips:
        for frame in clip.frames:
            image, labels = frames.read(frame)
            prepared, _ = prepare(image, clip.sensor, loaded.metadata.preprocessing)
            waiting.append((clip, frame, image, labels, engine.submit(prepared[None])))
            if len(waiting) == IN_FLIGHT:
                *inputs, future = waiting.popleft()
                yield *inputs, future.result()[0]
    for *inputs, future in waiting:
        yield *inputs, future.result()[0]


def _at_frame_size(maps: Maps, shape: tuple[int, ...]) -> Maps:
    if maps.shape[1:] == shape:
        return maps
    return np.stack([cv2.resize(each, shape[::-1], interpolation=cv2.INTER_LINEAR) for each in maps]).astype(np.float32)


def _count_at_input(loaded: Loaded, probabilities: Maps, truth: Mask) -> Counts | None:
    preprocessing = loaded.metadata.preprocessing
    if preprocessing.mode != "stretch":
        return None
    stretched, _ = prepare(truth.astype(np.uint8) * 255, "visible", preprocessing)
    return count(probabilities > THRESHOLD, stretched[..., 0] > 0)


def time_frame(loaded: Loaded, device: str = "auto") -> Timing:
    """Return median times of engine and module in turn on fresh noise, after one warm-up run."""
    with _engine(loaded, device) as engine:
        module = copy.deepcopy(loaded.network).to(engine.device).eval()
        times_s: dict[str, list[float]] = {"engine": [], "module": []}
        generator = np.random.default_rng(0)
        for _ in range(TIMED_RUNS + 1):
            frame = generator.integers(0, 256, (1, TIMED_SIDE_PX, TIMED_SIDE_PX, 3), np.uint8)
            started_s = time.perf_counter()
            engine.submit(frame).result()
            between_s = time.perf_counter()
            _plain(module, frame, engine.device)
            times_s["engine"].append(between_s - started_s)
            times_s["module"].append(time.perf_counter() - between_s)
        engine_ms, module_ms = (statistics.median(times[1:]) * 1e3 for times in times_s.values())
        return Timing(engine.name, engine_ms, module_ms)


@torch.inference_mode()
def _plain(module: nn.Module, frame: Image, device: torch.device) -> Maps:
    image = torch.from_numpy(frame).to(device).permute(0, 3, 1, 2).float() / 255
    maps: Maps = module(image).sigmoid().cpu().numpy()  # the copy waits for the device
    return maps


def show_progress(done: int, total: int) -> None:
    """Print progress: one updated line on a terminal, ten lines in a log."""
    if sys.stderr.isatty():
        print(f"\revaluate {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done * 10 // total > (done - 1) * 10 // total:
        print(f"evaluate {done}/{total}", file=sys.stderr, flush=True)
