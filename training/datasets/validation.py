"""Validation of a data set before training starts."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from training.datasets.recording import BrokenDataError, DataCheck, LabelledRecording

MAX_REPORTED = 10


def validate(recordings: Sequence[LabelledRecording]) -> None:
    """Decode every image and mask once, and the first frame of every video.

    Raise BrokenDataError with the first ten faults and their total number: broken images, wrong masks, boxes outside
    the frame, empty folders, or no labelled frame at all.
    """
    checks = [check for recording in recordings for check in recording.checks()]
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # decoding releases the interpreter
        faults = [fault for fault in threads.map(_run, checks) if fault]
    if not faults and not any(map(len, recordings)):
        skipped = sum(recording.skipped for recording in recordings)
        faults = [f"no labelled frame in {len(recordings)} recordings, images without a mask: {skipped}"]
    if faults:
        more = [f"and {len(faults) - MAX_REPORTED} more"] if len(faults) > MAX_REPORTED else []
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise BrokenDataError("\n  ".join([f"data: {count}", *faults[:MAX_REPORTED], *more]))


def _run(check: DataCheck) -> str:
    return check()


def describe(recordings: Sequence[LabelledRecording]) -> str:
    """Return one line with the numbers of recordings and frames, and of skipped images and annotations."""
    skipped = sum(recording.skipped for recording in recordings)
    frames = sum(map(len, recordings))
    crowds = sum(recording.crowds for recording in recordings)
    left_out = f", images without a mask skipped: {skipped}" if skipped else ""
    left_out += f", crowd annotations skipped: {crowds}" if crowds else ""
    return f"{len(recordings)} recordings, {frames} labelled frames{left_out}"
