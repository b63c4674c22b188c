"""Training and validation samples, as batches.

In: the configuration.  Out: cached frames, and from them batches of images (N, 3, S, S) float32 in 0..1 and labels
(N, S, S) uint8.  A sample depends only on the seed, its step and its index in the step, so that a resumed run gets the
same samples, and several processes together the same as a single one.
"""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.metadata import Preprocessing
from model.preprocess import prepare
from pipeline.errors import ConfigError
from training.augment import COVERAGE, CropSampler
from training.cache import CachedFrame, CachedFrames, cache_frames, every_nth
from training.config import CropSampling, TrainingConfig, WholeFrames
from training.datasets import describe, open_dataset
from training.masks import Image
from training.optimisation import decay_start
from training.quick_eval import quick_eval_frames

CHECK_DRONE_FRAMES, CHECK_OTHER_FRAMES = {"hard": 3, "val": 1}, {"hard": 2, "val": 1}  # frames per clip, with crops
TrainingSample = tuple[Image, Image]


@dataclass(frozen=True)
class TrainingData:
    """Cached frames to train on and to validate with."""

    frames: CachedFrames
    checks: dict[str, CachedFrames]  # by split
    summary: dict[str, Any]  # for the checkpoint
    description: str  # for the log


def read_data(config: TrainingConfig) -> TrainingData:
    """Return the frames, decoded or from the cache; raise DataError, or ConfigError where no frame is left."""
    opened = open_dataset(config.data, config.splits, config.clips)
    clips = [recording for recording in opened if recording.sensor in config.sensors]
    numbers = every_nth(clips, config.every_drone_frame, config.every_other_frame)
    frames = cache_frames(config.cache, clips, drawn(numbers, config.max_samples, config.seed))
    if not len(frames):
        wanted = f"{', '.join(config.splits)} of {', '.join(config.sensors)} cameras"
        raise ConfigError(f"data = {config.data!r}: no frames in {wanted}; expected one or more")
    checks = {split: _check_set(config, split) for split in config.check_splits}
    summary = {
        "folder": Path(config.data).name,
        "splits": config.splits,
        "sensors": config.sensors,
        "clips": len(clips),
        "frames": len(frames),
    }
    return TrainingData(frames, checks, summary, describe(clips))


def _check_set(config: TrainingConfig, split: str) -> CachedFrames:
    clips = open_dataset(config.data, [split], config.check_clips)
    if isinstance(config.sampling, CropSampling):
        numbers = quick_eval_frames(clips, CHECK_DRONE_FRAMES.get(split, 1), CHECK_OTHER_FRAMES.get(split, 1))
    else:
        numbers = every_nth(clips, config.every_drone_frame, config.every_other_frame)
    frames = cache_frames(config.cache, clips, drawn(numbers, config.max_check_samples, config.seed))
    if isinstance(config.sampling, WholeFrames) and not len(frames):
        raise ConfigError(f"data = {config.data!r}: no frames in {split}; expected one or more to validate with")
    return frames


def drawn(numbers: dict[str, list[int]], count: int, seed: int) -> dict[str, list[int]]:
    """Return `count` of all frame numbers, drawn by the seed; all where `count` is 0 or not smaller."""
    every = [(name, number) for name, chosen in numbers.items() for number in chosen]
    if not 0 < count < len(every):
        return numbers
    keep = np.sort(np.random.default_rng(seed).choice(len(every), count, replace=False))
    subset: dict[str, list[int]] = {name: [] for name in numbers}
    for index in keep:
        name, number = every[index]
        subset[name].append(number)
    return subset


class Samples(Protocol):
    """Source of samples, addressed by step and index."""

    def count(self, step: int) -> int:
        """Return the number of samples of a step, of all processes together."""

    def sample(self, step: int, index: int) -> TrainingSample:
        """Return sample `index` of a step."""


class WholeSamples:
    """Whole frames: each epoch has every frame once, reshuffled; its last batch is filled from its beginning."""

    def __init__(self, frames: CachedFrames, size_px: int, batch: int, seed: int) -> None:
        self.frames, self.size_px, self.batch, self.seed = frames, size_px, batch, seed
        self._all = all_frames(frames)

    def count(self, step: int) -> int:  # noqa: ARG002
        """Return the number of samples of a step, of all processes together."""
        return self.batch

    def sample(self, step: int, index: int) -> TrainingSample:
        """Return sample `index` of a step."""
        epoch, place = divmod(step, steps_per_epoch(len(self._all), self.batch))
        order = _order(self.seed, epoch, len(self._all))
        return stretched(*self.frames.read(self._all[order[(place * self.batch + index) % len(order)]]), self.size_px)


class CropSamples:
    """Augmented crops; some steps have many small ones, which show more objects per second, but not the last steps."""

    def __init__(
        self, frames: CachedFrames, crops: CropSampling, batch: int, processes: int, seed: int, decay_start: int
    ) -> None:
        self.crops, self.batch, self.processes, self.seed, self.decay_start = crops, batch, processes, seed, decay_start
        self._sampler = CropSampler(frames, crops.augmentation, seed)

    def shape(self, step: int) -> tuple[int, int]:
        """Return the number of crops in each process, and their size."""
        crops = self.crops
        small = step < self.decay_start and np.random.default_rng((self.seed, step)).random() < crops.small_share
        return (crops.small_batch, crops.small_crop_px) if small else (self.batch, crops.augmentation.crop_px)

    def count(self, step: int) -> int:
        """Return the number of samples of a step, of all processes together."""
        return self.shape(step)[0] * self.processes

    def sample(self, step: int, index: int) -> TrainingSample:
        """Return sample `index` of a step."""
        return self._sampler.sample(step, index, self.shape(step)[1])


def training_samples(frames: CachedFrames, config: TrainingConfig, processes: int, steps: int) -> Samples:
    """Return the configured samples; raise ConfigError where no frame suits cropping."""
    if isinstance(config.sampling, WholeFrames):
        return WholeSamples(frames, config.sampling.size_px, config.batch * processes, config.seed)
    try:
        start = decay_start(config.schedule, steps)
        return CropSamples(frames, config.sampling, config.batch, processes, config.seed, start)
    except ValueError as error:
        raise ConfigError(f"data = {config.data!r}: {error}") from error


def steps_per_epoch(frames: int, batch: int) -> int:
    """Return the steps of an epoch; `batch` is that of all processes together."""
    return -(-frames // batch)


class ProcessShares(Dataset[TrainingSample]):
    """One process's share of each step: images (N, S, S, 3) and labels (N, S, S) as arrays."""

    def __init__(self, samples: Samples, steps: range, rank: int, processes: int) -> None:
        self._samples, self._steps, self._rank, self._processes = samples, steps, rank, processes

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, number: int) -> TrainingSample:
        step = self._steps[number]
        share = self._samples.count(step) // self._processes
        return stacked([self._samples.sample(step, self._rank * share + index) for index in range(share)])


def batches(samples: Samples, steps: range, rank: int, processes: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's share of each step: images (N, S, S, 3) and labels (N, S, S) uint8, in order.

    `workers` processes prefetch them; with 0 they are made in this process.
    """
    loader = DataLoader(
        ProcessShares(samples, steps, rank, processes),
        batch_size=None,
        num_workers=workers,
        collate_fn=unchanged,  # arrays are pickled: tensors would need more shared memory than containers have
        multiprocessing_context="spawn" if workers else None,  # a fork of a process with threads may hang
        worker_init_fn=prepare_worker,
    )
    for images, labels in loader:
        yield torch.from_numpy(images), torch.from_numpy(labels)


def unchanged(made: Any) -> Any:
    """Return the argument; the loader's collate function."""
    return made


def prepare_worker(_: int) -> None:
    """Prepare a loader process: leave Ctrl-C to the training process, which saves its state, and exit with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Exit when the parent process ends; the loader would wait for ever to deliver its last batch."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def stacked(made: list[TrainingSample]) -> TrainingSample:
    """Return samples of one size as one batch."""
    images, labels = zip(*made, strict=True)
    return np.stack(images), np.stack(labels)


def network_input(images: Tensor) -> Tensor:
    """Return (N, S, S, 3) uint8 as (N, 3, S, S) float32 in 0..1, channels last in memory."""
    return images.permute(0, 3, 1, 2).float() / 255


def all_frames(frames: CachedFrames) -> list[CachedFrame]:
    """Return the frames of all clips."""
    return [frame for clip in frames.clips for frame in clip.frames]


def stretched(image: Image, labels: Image, size_px: int) -> TrainingSample:
    """Return both stretched to a square, the image as in inference; an object keeps its best covered pixel at least."""
    image, _ = prepare(image, "", Preprocessing("stretch", size_px))
    result = np.zeros((size_px, size_px), np.uint8)
    for label in np.unique(labels[labels > 0]):
        cover = _cover(labels == label, size_px)
        result[cover > min(COVERAGE, 0.7 * float(cover.max()))] = label
    return image, result


def _cover(mask: npt.NDArray[np.bool_], size_px: int) -> npt.NDArray[np.float32]:
    """Return the share of each pixel that the mask covers, axis by axis: one may shrink and the other grow."""
    cover = mask.astype(np.float32)
    for _ in range(2):
        method = cv2.INTER_AREA if size_px < cover.shape[0] else cv2.INTER_LINEAR
        cover = np.asarray(cv2.resize(cover, (cover.shape[1], size_px), interpolation=method), np.float32).T.copy()
    return cover


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)
