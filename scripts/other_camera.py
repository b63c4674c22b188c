"""Labelled thermal clips as another camera might show them, to see what the shipped decision is worth there.

    python3 scripts/other_camera.py faint hard out/faint --data FOLDER
    python3 scripts/evaluate_clips.py hard --data out/faint --out out/evaluation-faint
    python3 scripts/decision_curve.py hard faint.png --data out/faint --evaluation out/evaluation-faint

FOLDER is in the format of `tests/data` (labels.json.gz and clips/).  `faint`: less than half the contrast, a little
blurred, with noise of its own; `inverted`: dark is hot.
"""

import argparse
import gzip
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
from evaluate_clips import parsed_with_data
from numpy.typing import NDArray

from pipeline.errors import DasnetError
from training.datasets import SPLITS, DataError
from training.datasets.dronedet import LABELS_FILE, read

CONTRAST, BLUR_PX, NOISE_LEVELS = 0.45, 0.7, 2.0
QUALITY = {"crf": "18", "preset": "veryfast"}

Grey = NDArray[np.float32]
Change = Callable[[Grey, np.random.Generator], Grey]


def faint(picture: Grey, random: np.random.Generator) -> Grey:
    even = (picture - picture.mean()) * np.float32(CONTRAST) + np.float32(128)
    noise = random.normal(0, NOISE_LEVELS, picture.shape)
    return np.asarray(cv2.GaussianBlur(even, (0, 0), BLUR_PX) + noise, np.float32)


def inverted(picture: Grey, random: np.random.Generator) -> Grey:  # noqa: ARG001
    return np.float32(255) - picture


KINDS: dict[str, Change] = {"faint": faint, "inverted": inverted}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("split", choices=SPLITS)
    parser.add_argument("folder", type=Path, help="where to; must not hold labels yet")
    options = parsed_with_data(parser)
    try:
        print(f"{make(options.kind, options.split, options.folder, options.data)} clips in {options.folder}")
    except DasnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make(kind: str, split: str, folder: Path, data: Path) -> int:
    """The thermal clips of a split and their labels, into `folder`.  Returns how many.  Raises DataError."""
    clips = [clip for clip in read(data) or () if (clip.split, clip.sensor) == (split, "infrared")]
    if not clips:
        raise DataError(f"{data}: holds no thermal clip of {split}; allowed: a folder with {LABELS_FILE} and clips/")
    if (folder / LABELS_FILE).exists():
        raise DataError(f"{folder}: holds labels already; allowed: a new folder")
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for clip in clips:
        random = np.random.default_rng(zlib.crc32(clip.name.encode()))
        changed(clip.path, folder / "clips" / clip.path.name, KINDS[kind], random)
    with gzip.open(data / LABELS_FILE, "rt", encoding="utf-8") as file:
        labels = json.load(file)
    with gzip.open(folder / LABELS_FILE, "wt", encoding="utf-8") as file:
        json.dump({clip.name: labels[clip.name] for clip in clips}, file)
    return len(clips)


def changed(source: Path, path: Path, change: Change, random: np.random.Generator) -> None:
    """The same video with other pixels, as H.264."""
    with av.open(str(source)) as video, av.open(str(path), "w") as written:
        shown = video.streams.video[0]
        stream = written.add_stream("libx264", rate=shown.average_rate, options=QUALITY)
        stream.width, stream.height, stream.pix_fmt = shown.width, shown.height, "yuv420p"
        for frame in video.decode(shown):
            grey = np.clip(change(frame.to_ndarray(format="gray").astype(np.float32), random), 0, 255).astype(np.uint8)
            other = av.VideoFrame.from_ndarray(np.repeat(grey[..., None], 3, axis=2), format="rgb24")
            written.mux(stream.encode(other))
        written.mux(stream.encode(None))


if __name__ == "__main__":
    sys.exit(main())
