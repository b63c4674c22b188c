"""Make the README's image: real footage of `tests/data` through `dasnet replay`, four moments side by side.

scripts/readme_picture.py .github/annotated.png
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from pipeline.capture.recordings import open_recording
from pipeline.replay.options import ReplayOptions
from pipeline.replay.run import run_replay

CLIPS = Path(__file__).parents[1] / "tests" / "data" / "clips"
MOMENTS = (("IR_DRONE_015", 100), ("IR_DRONE_019", 100), ("IR_DRONE_054", 100), ("IR_HELICOPTER_010", 100))


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        last = max(frame for _, frame in MOMENTS) + 1
        run_replay([CLIPS / f"{name}.mp4" for name, _ in MOMENTS], out, ReplayOptions(end=last))
        tiles = [_frame(out / name / "annotated.mp4", frame) for name, frame in MOMENTS]
    rows = [np.hstack(tiles[index : index + 2]) for index in range(0, len(tiles), 2)]
    target.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(target), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def _frame(video: Path, number: int) -> np.ndarray:
    source = open_recording(video)
    try:
        return next(picture.pixels for index, picture in enumerate(source.frames()) if index == number)
    finally:
        source.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
