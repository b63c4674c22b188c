"""Real frames for `dasnet bench`: recordings in; a few pictures of them, as the network gets them, in files out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.metadata import Metadata
from model.preprocess import prepare
from pipeline.capture.recordings import find_recordings, frame_count, open_recording
from pipeline.replay.predict import band_of

CLIPS = Path("tests/data/clips")  # the repository's: where frames come from if no recordings are named
MAX_FRAMES = 18
MAX_FRAMES_PER_RECORDING = 3
SEARCHED_FRAMES = 2000  # of a recording: an hour is not decoded to its end for three frames


def frame_file(folder: Path, number: int) -> Path:
    return folder / f"frame{number}.npy"


def save_frames(path: Path, metadata: Metadata, folder: Path) -> dict[str, float]:
    """A few real frames, which are saved as the network gets them: by name, the threshold of their masks."""
    recordings = find_recordings(path)
    recordings = recordings[:: -(-len(recordings) // MAX_FRAMES)]
    each = max(1, min(MAX_FRAMES_PER_RECORDING, MAX_FRAMES // len(recordings)))
    saved: dict[str, float] = {}
    for recording in recordings:
        for number, pixels in _spread_frames(recording, each):
            band = band_of(pixels)
            picture, _ = prepare(pixels, band, metadata.preprocessing)
            np.save(frame_file(folder, len(saved)), picture)
            saved[f"{recording.name} frame {number}"] = metadata.thresholds[band].threshold
    return saved


def _spread_frames(path: Path, wanted: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    count = min(frame_count(path) or 1, SEARCHED_FRAMES)
    numbers = {count * (index + 1) // (wanted + 1) for index in range(wanted)}
    source = open_recording(path)
    try:
        for number, picture in enumerate(source.frames()):
            if number in numbers:
                yield number, picture.pixels
            if number >= max(numbers):
                return
    finally:
        source.close()
