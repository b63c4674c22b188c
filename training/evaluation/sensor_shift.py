"""Simulated sensor shift: labelled thermal clips with the tones of another camera, to test generalisation.

    python3 scripts/other_camera.py faint hard out/faint --data FOLDER
    dasnet evaluate-clips hard --data out/faint --out out/evaluation-faint
    python3 scripts/decision_curve.py hard faint.png --data out/faint --evaluation out/evaluation-faint

FOLDER is in the format of `tests/data` (labels.json.gz and clips/).  `faint`: less than half the contrast, a little
blurred, with added noise; `inverted`: dark is hot.
"""

import gzip
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from training.command_line import exit_code, program
from training.datasets import SPLITS, DataError
from training.datasets.dronedet import LABELS_FILE, read
from training.evaluation.arguments import parse_with_data

CONTRAST, BLUR_PX, NOISE_LEVELS = 0.45, 0.7, 2.0
QUALITY = {"crf": "18", "preset": "veryfast"}

Grey = NDArray[np.float32]
Change = Callable[[Grey, np.random.Generator], Grey]


def faint(image: Grey, random: np.random.Generator) -> Grey:
    """Return the image with less contrast, blur and noise."""
    flat = (image - image.mean()) * np.float32(CONTRAST) + np.float32(128)
    noise = random.normal(0, NOISE_LEVELS, image.shape)
    return np.asarray(cv2.GaussianBlur(flat, (0, 0), BLUR_PX) + noise, np.float32)


def inverted(image: Grey, random: np.random.Generator) -> Grey:  # noqa: ARG001
    """Return the image with inverted polarity."""
    return np.float32(255) - image


KINDS: dict[str, Change] = {"faint": faint, "inverted": inverted}


def main() -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("split", choices=SPLITS)
    parser.add_argument("folder", type=Path, help="output folder; must not hold labels yet")
    options = parse_with_data(parser)
    return exit_code(lambda: shift_clips(options.kind, options.split, options.folder, options.data))


def shift_clips(kind: str, split: str, folder: Path, data: Path) -> None:
    """Write the changed thermal clips of a split and their labels to a folder; raise DataError."""
    clips = [clip for clip in read(data) or () if (clip.split, clip.sensor) == (split, "infrared")]
    if not clips:
        raise DataError(f"{data}: holds no thermal clip of {split}; expected a folder with {LABELS_FILE} and clips/")
    if (folder / LABELS_FILE).exists():
        raise DataError(f"{folder}: holds labels already; expected a new folder")
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for clip in clips:
        random = np.random.default_rng(zlib.crc32(clip.name.encode()))
        write_changed(clip.path, folder / "clips" / clip.path.name, KINDS[kind], random)
    with gzip.open(data / LABELS_FILE, "rt", encoding="utf-8") as file:
        labels = json.load(file)
    with gzip.open(folder / LABELS_FILE, "wt", encoding="utf-8") as file:
        json.dump({clip.name: labels[clip.name] for clip in clips}, file)
    print(f"{len(clips)} clips in {folder}")


def write_changed(source: Path, path: Path, change: Change, random: np.random.Generator) -> None:
    """Write the video with each image changed, as H.264."""
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
