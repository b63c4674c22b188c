"""Labelled clips of several data sets, and what `dasnet evaluate-clips` stored of their replays."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pipeline.replay.outputs import read_detections
from pipeline.types import Detections
from training.datasets import Clip, DataError, open_dataset

REPLAYS = Path("out/evaluation")


def labelled_clips(folders: Sequence[Path], splits: Collection[str]) -> list[tuple[str, Clip]]:
    """Return the clips of these splits with their set: name of the data set's folder, and split.

    Raise DataError for unreadable data, and for a data set without a video.
    """
    found: list[tuple[str, Clip]] = []
    for folder in folders:
        clips = [recording for recording in open_dataset(folder, splits) if isinstance(recording, Clip)]
        if not clips:
            raise DataError(f"data {folder}: holds no labelled video; expected the dronedet or Anti-UAV format")
        found += [(f"{folder.resolve().name} {clip.split}", clip) for clip in clips]
    return found


def stored_replays(
    folders: Sequence[Path], splits: Collection[str], replays: Path
) -> Iterator[tuple[str, Clip, list[Detections]]]:
    """Yield set, clip and stored detections of each clip; raise DataError where one was not replayed."""
    for name, clip in labelled_clips(folders, splits):
        files = list(replays.glob(f"*/{clip.name}/detections.jsonl"))
        if not files:
            raise DataError(f"{replays}: holds no {clip.name}; expected `dasnet evaluate-clips {clip.split}` before")
        yield name, clip, list(read_detections(files[0])[1])
