"""Real frames for `dasnet bench`: select frames of recordings, and store them preprocessed as network input."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.metadata import Metadata
from model.preprocess import prepare
from pipeline.capture.recordings import find_recordings, frame_count, open_recording
from pipeline.imaging.band import band_of

CLIPS = Path("tests/data/clips")  # default recordings: the repository's
MAX_FRAMES = 18
MAX_FRAMES_PER_RECORDING = 3
MAX_DECODED_FRAMES = 2000  # per recording: a long one is not decoded to its end for three frames


def frame_file(folder: Path, number: int) -> Path:
    """Return the file of a stored frame."""
    return folder / f"frame{number}.npy"


def save_frames(path: Path, metadata: Metadata, folder: Path) -> dict[str, float]:
    """Store a few frames, preprocessed as network input.

    Returns:
        The mask threshold of each frame, by its name.
    """
    recordings = find_recordings(path)
    recordings = recordings[:: -(-len(recordings) // MAX_FRAMES)]
    each = max(1, min(MAX_FRAMES_PER_RECORDING, MAX_FRAMES // len(recordings)))
    saved: dict[str, float] = {}
    for recording in recordings:
        for number, pixels in _spread_frames(recording, each):
            band = band_of(pixels)
            image, _ = prepare(pixels, band, metadata.preprocessing)
            np.save(frame_file(folder, len(saved)), image)
            saved[f"{recording.name} frame {number}"] = metadata.thresholds[band].threshold
    return saved


def _spread_frames(path: Path, wanted: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    count = min(frame_count(path) or 1, MAX_DECODED_FRAMES)
    numbers = {count * (index + 1) // (wanted + 1) for index in range(wanted)}
    source = open_recording(path)
    try:
        for number, decoded in enumerate(source.frames()):
            if number in numbers:
                yield number, decoded.pixels
            if number >= max(numbers):
                return
    finally:
        source.close()
