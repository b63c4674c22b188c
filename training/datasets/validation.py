"""Everything that is wrong with a data set, found before training begins."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from training.datasets.recording import BrokenDataError, DataCheck, LabelledRecording

NAMED = 10


def validate(recordings: Sequence[LabelledRecording]) -> None:
    """Decode every image and mask once, and the first frame of every video.

    Raises BrokenDataError that names the first ten faults and says how many there are: broken images, masks that are
    none or do not fit, boxes outside the frame, empty folders, or no labelled frame at all.
    """
    checks = [check for recording in recordings for check in recording.checks()]
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # decoding releases the interpreter
        faults = [fault for fault in threads.map(_run, checks) if fault]
    if not faults and not any(map(len, recordings)):
        skipped = sum(recording.skipped for recording in recordings)
        faults = [f"no labelled frame in {len(recordings)} recordings, images without a mask: {skipped}"]
    if faults:
        more = [f"and {len(faults) - NAMED} more"] if len(faults) > NAMED else []
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise BrokenDataError("\n  ".join([f"data: {count}", *faults[:NAMED], *more]))


def _run(check: DataCheck) -> str:
    return check()


def describe(recordings: Sequence[LabelledRecording]) -> str:
    """One line: how much there is, and what was left out."""
    skipped = sum(recording.skipped for recording in recordings)
    frames = sum(map(len, recordings))
    crowds = sum(recording.crowds for recording in recordings)
    left_out = f", images without a mask skipped: {skipped}" if skipped else ""
    left_out += f", crowd annotations left out: {crowds}" if crowds else ""
    return f"{len(recordings)} recordings, {frames} labelled frames{left_out}"
