"""Show what went wrong in an evaluation: one tile a missed drone clip and one a clip with a false track.

    python3 scripts/evaluate_clips.py hard --data FOLDER
    python3 scripts/failures_picture.py hard --data FOLDER model/weights/failures.jpg

Of a missed drone its middle labelled frame, the label in blue; of a false track the frame where it is largest, its box
in red.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from evaluate_clips import parsed_of_evaluation
from numpy.typing import NDArray

from model.checkpoint import load
from pipeline.capture.recordings import open_recording
from pipeline.checkpoints import checkpoint_path
from pipeline.errors import DasnetError
from training.datasets import SPLITS, Clip, open_dataset
from training.evaluation.clip_metrics import DRONE, evaluate_clip, read_track_rows

TILE_PX, COLUMNS = 144, 6
LEAST_SIDE_PX, SIDES = 48, 3.0  # what a tile shows: so many times the box, at least so much of the frame
BLUE, RED = (255, 140, 30), (40, 40, 230)  # BGR
Box = tuple[float, float, float, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SPLITS)
    parser.add_argument("picture", type=Path)
    options = parsed_of_evaluation(parser)
    try:
        sha256 = load(checkpoint_path(options.checkpoint)).metadata.sha256
        replays = {path.parent.name: path for path in (options.evaluation / sha256[:12]).glob("*/*/tracks.txt")}
        clips = [clip for clip in open_dataset(options.data, [options.set]) if isinstance(clip, Clip)]
        tiles = [tile for clip in clips if clip.name in replays for tile in failures(clip, replays[clip.name])]
    except DasnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not tiles:
        print(f"nothing to show: no replay of {options.set} under {options.evaluation}, or no failure in them")
        return 1
    cv2.imwrite(str(options.picture), sheet(tiles), [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(f"{len(tiles)} failures: {options.picture}")
    return 0


def failures(clip: Clip, tracks: Path) -> list[NDArray[np.uint8]]:
    """None, or one tile."""
    rows = read_track_rows(tracks.read_text().splitlines())
    figures = evaluate_clip(clip, rows, len(clip.frames))
    if figures.missed:
        labelled = [
            (number, item.xyxy)
            for number, items in enumerate(clip.frames)
            for item in items
            if item.object_class == DRONE
        ]
        return [tile(clip, *labelled[len(labelled) // 2], BLUE)] if labelled else []
    if figures.alarmed:
        largest = max(rows, key=lambda row: (row.xyxy[2] - row.xyxy[0]) * (row.xyxy[3] - row.xyxy[1]))
        return [tile(clip, largest.frame, largest.xyxy, RED)]
    return []


def tile(clip: Clip, number: int, xyxy: Box, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    source = open_recording(clip.path)
    try:
        pixels = next(picture.pixels for index, picture in enumerate(source.pictures()) if index == number)
    finally:
        source.close()
    picture = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if pixels.ndim == 2 else cv2.COLOR_RGB2BGR)
    x0, y0, x1, y1 = xyxy
    side = max(LEAST_SIDE_PX, SIDES * max(x1 - x0, y1 - y0))
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    scale = TILE_PX / side
    place = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    shown = cv2.warpAffine(picture, place, (TILE_PX, TILE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    corners = [(round((x - left) * scale), round((y - top) * scale)) for x, y in ((x0, y0), (x1, y1))]
    cv2.rectangle(shown, corners[0], corners[1], colour, 1)
    cv2.putText(shown, clip.name, (3, TILE_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(shown, np.uint8)


def sheet(tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    empty = np.zeros_like(tiles[0])
    tiles = [*tiles, *[empty] * (-len(tiles) % COLUMNS)]
    return np.vstack([np.hstack(tiles[row : row + COLUMNS]) for row in range(0, len(tiles), COLUMNS)])


if __name__ == "__main__":
    sys.exit(main())
