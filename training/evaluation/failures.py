"""Contact sheet of an evaluation's failures: a tile per missed drone clip and per clip with a false track.

    dasnet evaluate-clips hard --data FOLDER
    python3 scripts/failures_picture.py hard --data FOLDER model/weights/failures.jpg

A missed drone is shown in its middle labelled frame, the label in blue; a false track in the frame where it is largest,
its box in red.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.checkpoint import load
from pipeline.capture.recordings import open_recording
from pipeline.checkpoints import checkpoint_path
from pipeline.errors import DasnetError
from training.command_line import exit_code, program
from training.datasets import SPLITS, Clip
from training.evaluation.arguments import parse_with_replays
from training.evaluation.clip_metrics import DRONE, evaluate_clip, read_track_rows
from training.evaluation.clip_sets import labelled_clips

TILE_PX, COLUMNS = 144, 6
LEAST_SIDE_PX, SIDES = 48, 3.0  # side of a tile's section of the frame: least, and in lengths of the box
BLUE, RED = (255, 140, 30), (40, 40, 230)  # BGR
Box = tuple[float, float, float, float]


def main() -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("set", choices=SPLITS)
    parser.add_argument("image", type=Path)
    options = parse_with_replays(parser)
    return exit_code(lambda: run(options.set, options.image, options.checkpoint, options.data, options.evaluation))


def run(split: str, image: Path, checkpoint: Path | None, data: list[Path], evaluation: Path) -> None:
    """Write the sheet of tiles; raise DasnetError where there is no failure to show."""
    sha256 = load(checkpoint_path(checkpoint)).metadata.sha256
    replays = {path.parent.name: path for path in (evaluation / sha256[:12]).glob("*/*/tracks.txt")}
    clips = [clip for _, clip in labelled_clips(data, [split])]
    tiles = [tile for clip in clips if clip.name in replays for tile in failures(clip, replays[clip.name])]
    if not tiles:
        raise DasnetError(f"{evaluation}: holds no replay of {split}, or no failure in them")
    cv2.imwrite(str(image), sheet(tiles), [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(f"{len(tiles)} failures: {image}")


def failures(clip: Clip, tracks: Path) -> list[NDArray[np.uint8]]:
    """Return the clip's tile, none without a failure."""
    rows = read_track_rows(tracks.read_text().splitlines())
    metrics = evaluate_clip(clip, rows, len(clip.frames))
    if metrics.missed:
        labelled = [
            (number, item.xyxy)
            for number, items in enumerate(clip.frames)
            for item in items
            if item.object_class == DRONE
        ]
        return [tile(clip, *labelled[len(labelled) // 2], BLUE)] if labelled else []
    if metrics.alarmed:
        largest = max(rows, key=lambda row: (row.xyxy[2] - row.xyxy[0]) * (row.xyxy[3] - row.xyxy[1]))
        return [tile(clip, largest.frame, largest.xyxy, RED)]
    return []


def tile(clip: Clip, number: int, xyxy: Box, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the section of a frame around a box, with the box and the clip's name."""
    source = open_recording(clip.path)
    try:
        pixels = next(frame.pixels for frame in source.frames() if frame.number == number)
    finally:
        source.close()
    frame = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if pixels.ndim == 2 else cv2.COLOR_RGB2BGR)
    x0, y0, x1, y1 = xyxy
    side = max(LEAST_SIDE_PX, SIDES * max(x1 - x0, y1 - y0))
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    scale = TILE_PX / side
    place = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    section = cv2.warpAffine(frame, place, (TILE_PX, TILE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    corners = [(round((x - left) * scale), round((y - top) * scale)) for x, y in ((x0, y0), (x1, y1))]
    cv2.rectangle(section, corners[0], corners[1], colour, 1)
    cv2.putText(section, clip.name, (3, TILE_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(section, np.uint8)


def sheet(tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return the tiles in rows of COLUMNS."""
    empty = np.zeros_like(tiles[0])
    tiles = [*tiles, *[empty] * (-len(tiles) % COLUMNS)]
    return np.vstack([np.hstack(tiles[row : row + COLUMNS]) for row in range(0, len(tiles), COLUMNS)])


if __name__ == "__main__":
    sys.exit(main())
