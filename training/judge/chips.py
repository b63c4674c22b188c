"""Chips of labelled videos: `python3 -m training.judge.chips --data FOLDER [--data FOLDER] --pack FILE`.

In: labelled clips.  Out: a `ChipSet`: targets, cut at labels as inexactly as detections are, and where motion finds
them, often at an edge; and clutter beside the labels: what motion makes a candidate of, and what stands out and stands
still.  Some clips are taken at lower frame rates.  Each clip's chips are cached in a file of their own, named by a
digest of everything that determines them.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.segmentation.camera_motion import CameraMotion
from pipeline.segmentation.chips import CHIP_PX, LAGS_S, cut_chips
from pipeline.segmentation.frame_history import SMOOTH_STEPS, FrameHistory
from pipeline.segmentation.motion import Candidate, MotionCandidates
from pipeline.segmentation.segmenter import MAX_CANDIDATES
from training.command_line import exit_code, program
from training.datasets import LABEL_OF, DataError, LabelledObject, LabelledRecording, open_dataset
from training.datasets.clip import Clip, as_rgb
from training.judge.chip_set import MOTION, STATIC, ChipSet, RecordingChips, pack
from training.masks import Image, box_mask

VERSION = 2  # increment when the chips change
SIDE_PX = 64  # of a cached chip: a judged one and its margin
FIRST_LOOK_S = 0.1  # the history is short then
STRIDES, STRIDE_SHARES = (1, 2, 6), (0.65, 0.2, 0.15)  # of frames, in clips of MIN_STRIDE_FPS or more
MIN_STRIDE_FPS = 20.0
MAX_TARGETS, MAX_MOVING_TARGETS = 4, 2  # of a look
MAX_MOTION, MAX_STATIC = 3, 2  # of clutter in a look: the strongest, and others at random
MAX_LOOK = MAX_TARGETS + MAX_MOVING_TARGETS + MAX_MOTION + MAX_STATIC
POSITION_ERROR, POSITION_ERROR_PX = 0.12, 1.0  # of a target's centre: share of its length, and pixels
LENGTH_ERROR = 0.25  # standard deviation of the logarithm
MIN_LENGTH_PX = 2.5
UNKNOWN_LENGTH_SHARE = 0.6  # of clutter: points of motion have no length
CLUTTER_LENGTH_PX = (6.0, 60.0)
BESIDE_PX = 6.0  # clutter is at least so far from any label
CONTRAST_PX, MIN_CONTRAST, PEAK_PX, MAX_PEAKS = 13, 2.0, 15, 20  # of what stands still, smoothed image; grey levels
PACK_BYTES = 50 << 20
CACHE = Path(".cache/training")
Point = tuple[float, float]
Random = np.random.Generator


@dataclass(frozen=True)
class ChipSettings:
    """How many chips are collected.

    Attributes:
        every_s: mean time between two samples of a clip.
        max_chips: of all clips together: the samples of clips that would exceed their share are spread wider.
    """

    every_s: float = 0.5
    max_chips: int = 60_000


@dataclass(frozen=True)
class _Place:
    """Where a chip is cut, and what it shows."""

    point: Point
    cut_length_px: float  # 0: unknown
    kind: int
    length_px: float = 0.0


def collect_chips(recordings: Sequence[LabelledRecording], how: ChipSettings, cache: Path) -> ChipSet:
    """Return the chips of the videos among the recordings, from the cache where an earlier call left them.

    Raise BrokenDataError for videos that cannot be decoded, DataError where no recording is a labelled video.
    """
    clips = videos(recordings)
    most = max(MAX_LOOK, how.max_chips // len(clips))
    parts = []
    for number, clip in enumerate(clips):
        parts.append(_cached(clip, how.every_s, most, cache / "chips"))
        if number % 40 == 39:
            print(f"chips: {number + 1} of {len(clips)} clips, {sum(map(len, parts))} chips", flush=True)
    return ChipSet(parts, LAGS_S, CHIP_PX)


def videos(recordings: Sequence[LabelledRecording]) -> list[Clip]:
    """Return the labelled videos; raise DataError where there is none."""
    clips = [recording for recording in recordings if isinstance(recording, Clip)]
    if not clips:
        splits = ", ".join(sorted({recording.split for recording in recordings})) or "no split"
        raise DataError(f"data: {len(recordings)} recordings of {splits}, none a labelled video; expected one or more")
    return clips


def _cached(clip: Clip, every_s: float, most: int, folder: Path) -> RecordingChips:
    """Return a clip's chips, mapped from their file."""
    interval_s = max(every_s, _length_s(clip) * MAX_LOOK / most)
    settings = [VERSION, SIDE_PX, LAGS_S, interval_s, most, clip.settings()]
    name = hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:16]
    path, about = folder / f"{name}.npy", folder / f"{name}.npz"
    if not about.exists():
        folder.mkdir(parents=True, exist_ok=True)
        chips, places = _collected(clip, interval_s, most)
        partial = folder / f"{name}.{os.getpid()}.npy"
        np.save(partial, chips)
        partial.replace(path)
        partial = folder / f"{name}.{os.getpid()}.npz"
        lengths = np.array([place.length_px for place in places], np.float32)
        np.savez(partial, kinds=np.array([place.kind for place in places], np.int8), lengths_px=lengths)
        partial.replace(about)
    with np.load(about) as kept:
        kinds, lengths = kept["kinds"], kept["lengths_px"]
    return RecordingChips(clip.name, clip.sensor, np.load(path, mmap_mode="r" if len(kinds) else None), kinds, lengths)


def _length_s(clip: Clip) -> float:
    return len(clip) / (clip.fps or 25.0)


def _collected(clip: Clip, interval_s: float, most: int) -> tuple[NDArray[np.uint8], list[_Place]]:
    """Return a clip's chips (N, T, SIDE_PX, SIDE_PX), at most `most`, and their places."""
    rng = np.random.default_rng(list(clip.name.encode()))
    stride = int(rng.choice(STRIDES, p=STRIDE_SHARES)) if clip.fps >= MIN_STRIDE_FPS else 1
    motion, history, candidates = CameraMotion(), FrameHistory(), MotionCandidates(MAX_CANDIDATES)
    chips, places = [np.zeros((0, len(LAGS_S), SIDE_PX, SIDE_PX), np.uint8)], list[_Place]()
    due_s = rng.uniform(FIRST_LOOK_S, FIRST_LOOK_S + min(interval_s, 0.5))
    for frame in clip.decoded():
        if frame.number % stride:
            continue
        history.add(frame.pixels, frame.pts_s, motion.update(frame.pixels))
        moving = candidates.update(history)
        if frame.pts_s < due_s:
            continue
        due_s = frame.pts_s + interval_s * rng.uniform(0.7, 1.3)
        objects, static = clip.frames[frame.number], static_peaks(history, frame.pixels.shape[1])
        found = [*_targets(rng, as_rgb(frame.pixels), objects, moving)]
        found += _clutter(rng, [(one.x_px, one.y_px) for one in moving], static, objects)
        found = found[: most - len(places)]
        points, lengths = [place.point for place in found], [place.cut_length_px for place in found]
        chips.append(cut_chips(history, points, lengths, SIDE_PX))
        places += found
        if len(places) >= most:
            break
    return np.concatenate(chips), places


def _targets(
    rng: Random, image: Image, objects: Sequence[LabelledObject], moving: Sequence[Candidate]
) -> Iterator[_Place]:
    """Yield places of some labelled objects: as far beside and as much too long or short as detections are.

    And where motion found them, of unknown length.
    """
    left = MAX_MOVING_TARGETS
    chosen = rng.permutation(len(objects))[:MAX_TARGETS].tolist()
    for item in (objects[index] for index in chosen):
        x0, y0, x1, y1 = item.xyxy
        length_px = _tight_length_px(image, item)
        error_px = POSITION_ERROR * length_px + POSITION_ERROR_PX
        x, y = (float(middle + rng.uniform(-error_px, error_px)) for middle in ((x0 + x1) / 2, (y0 + y1) / 2))
        cut_length_px = length_px * float(np.exp(rng.normal(0, LENGTH_ERROR)))
        kind = LABEL_OF[item.object_class] - 1
        yield _Place((x, y), cut_length_px, kind, length_px)
        for one in [one for one in moving if x0 <= one.x_px <= x1 and y0 <= one.y_px <= y1][:left]:
            yield _Place((one.x_px, one.y_px), one.length_px, kind, length_px)
            left -= 1


def _tight_length_px(image: Image, item: LabelledObject) -> float:
    """Return the longer side of the pseudo-mask: many labels' boxes are loose."""
    mask, _, _ = box_mask(image, item.xyxy)
    rows, columns = np.nonzero(mask)
    return max(MIN_LENGTH_PX, float(np.ptp(rows)) + 1, float(np.ptp(columns)) + 1) if len(rows) else MIN_LENGTH_PX


def _clutter(
    rng: Random, moving: list[Point], static: list[Point], objects: Sequence[LabelledObject]
) -> Iterator[_Place]:
    """Yield places beside the labels: the strongest of motion and of static contrast, and some others."""
    for points, most, kind in ((moving, MAX_MOTION, MOTION), (static, MAX_STATIC, STATIC)):
        free = [point for point in points if not any(_is_near(point, item) for item in objects)]
        others = rng.permutation(np.arange(1, len(free)))[: most - 1].tolist() if free else []
        for x, y in [*free[:1], *(free[index] for index in others)]:
            shift_x, shift_y = rng.uniform(-1, 1, 2).tolist()
            length_px = 0.0 if rng.random() < UNKNOWN_LENGTH_SHARE else float(rng.uniform(*CLUTTER_LENGTH_PX))
            yield _Place((x + shift_x, y + shift_y), length_px, kind)


def static_peaks(history: FrameHistory, frame_width_px: int) -> list[Point]:
    """Return where the history's newest frame differs most from its surroundings, frame pixels, best first."""
    newest = history.newest
    if newest is None:
        return []
    image = newest.smooth / np.float32(SMOOTH_STEPS)
    contrast = np.asarray(cv2.absdiff(image, cv2.blur(image, (CONTRAST_PX, CONTRAST_PX))))
    highest = cv2.dilate(contrast, np.ones((PEAK_PX, PEAK_PX), np.uint8))
    rows, columns = np.nonzero((contrast == highest) & (contrast > MIN_CONTRAST))
    best = np.argsort(-contrast[rows, columns], kind="stable")[:MAX_PEAKS]
    factor = frame_width_px / image.shape[1]
    return [((float(columns[i]) + 0.5) * factor, (float(rows[i]) + 0.5) * factor) for i in best]


def _is_near(point: Point, item: LabelledObject) -> bool:
    x0, y0, x1, y1 = item.xyxy
    return x0 - BESIDE_PX < point[0] < x1 + BESIDE_PX and y0 - BESIDE_PX < point[1] < y1 + BESIDE_PX


def open_sets(folders: Sequence[str], train: Sequence[str], check: Sequence[str]) -> dict[str, list[LabelledRecording]]:
    """Return the recordings of the folders: "train" and "check", by their splits; raise DataError for wrong data."""
    opened = [one for folder in folders for one in open_dataset(folder, [*train, *check])]
    return {
        "train": [one for one in opened if one.split in train],
        "check": [one for one in opened if one.split in check and one.split not in train],
    }


def main() -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("--data", action="append", required=True, help="folder of labelled videos; may be repeated")
    parser.add_argument("--pack", type=Path, required=True, help=f"the .npz file, at most {PACK_BYTES >> 20} MiB")
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    return exit_code(lambda: run(options.data, options.pack, options.cache))


def run(folders: Sequence[str], path: Path, cache: Path) -> None:
    """Collect and pack the chips of these folders; raise what reading data raises."""
    cv2.setNumThreads(1)
    sets = open_sets(folders, ["train"], ["val"])
    pack(
        path, {name: collect_chips(recordings, ChipSettings(), cache) for name, recordings in sets.items()}, PACK_BYTES
    )
    print(f"written: {path}, {path.stat().st_size >> 20} MiB")


if __name__ == "__main__":
    sys.exit(main())
