"""Pack recorded drones as crops with alpha masks: the library that `dasnet assess` pastes into streams.

    python3 scripts/pack_drones.py pipeline/assess/drones.npz --data FOLDER

FOLDER is the Drone-detection-dataset (Svanström et al., DOI 10.5281/zenodo.5500576, CC0 1.0) in the dronedet format.
Clips of large drones are taken, none of them from its training split.  Of each the steadiest four seconds are cut out.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.assess.drones import CROP_PX, CROPS_PER_S, DIFFERENCE_UNIT, Drone, write_drones
from training.datasets import LabelledFrame, LabelledRecording, open_dataset
from training.masks import box_mask

CLIPS = ("IR_DRONE_025", "IR_DRONE_026", "IR_DRONE_035", "V_DRONE_023", "V_DRONE_025", "V_DRONE_060")
FRAME_STEP = 2  # of 30 frames per second
CROPS = 60  # of each clip
SIZE_PX = 20.0  # largest apparent size that is kept
FEATHER_PX = 0.7
RING_PX = 4
FULL_QUANTILE = 0.95  # of the contrast within the mask: 1 in the library's units

Floats = NDArray[np.float32]


def crop(frame: LabelledFrame) -> tuple[Floats, Floats, Floats] | None:
    """Return difference to the background and alpha of the frame's drone, and its mask's width and height."""
    if not frame.objects:
        return None
    mask, left, top = box_mask(frame.image, frame.objects[0].xyxy)
    height, width = frame.image.shape[:2]
    if not mask.any():
        return None
    full = np.zeros((height, width), np.float32)
    full[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    near = cv2.dilate(full, np.ones((2 * RING_PX + 1, 2 * RING_PX + 1), np.uint8))
    inner = cv2.dilate(full, np.ones((3, 3), np.uint8))
    background = float(np.median(grey[(near > 0) & (inner == 0)]))
    alpha = np.asarray(cv2.GaussianBlur(full, (0, 0), FEATHER_PX), np.float32)
    rows, columns = np.nonzero(full)
    size = np.array([np.ptp(columns) + 1, np.ptp(rows) + 1], np.float32)
    middle = (columns.mean(), rows.mean())
    scale = min(1.0, SIZE_PX / float(np.sqrt(size.prod())))
    alpha, difference = (centred(plane, middle, scale) for plane in (alpha, (grey - background) * alpha))
    return difference, alpha, size * scale


def centred(plane: Floats, middle: tuple[float, float], scale: float) -> Floats:
    """Return CROP_PX x CROP_PX around a point, reduced."""
    blurred = cv2.GaussianBlur(plane, (0, 0), 0.5 / scale) if scale < 1 else plane
    half = (CROP_PX - 1) / 2
    transform = np.array([[scale, 0, half - scale * middle[0]], [0, scale, half - scale * middle[1]]], np.float32)
    return np.asarray(cv2.warpAffine(blurred, transform, (CROP_PX, CROP_PX)), np.float32)


def drone(recording: LabelledRecording) -> Drone:
    """Return the steadiest crops of a recording: those whose mask changes least in area."""
    frames = recording.read(range(0, len(recording), FRAME_STEP))
    made = [one for one in map(crop, frames) if one is not None]
    areas = np.log([float(alpha.sum()) for _, alpha, _ in made])
    start = min(range(len(made) - CROPS + 1), key=lambda index: float(areas[index : index + CROPS].std()))
    kept = made[start : start + CROPS]
    differences, alphas = (np.stack([one[index] for one in kept]) for index in (0, 1))
    full = float(np.quantile(np.abs(differences[alphas > 0.5]), FULL_QUANTILE))
    return Drone(
        recording.name,
        recording.sensor,
        float(np.median([np.sqrt(size.prod()) for _, _, size in kept])),
        np.round(255 * np.clip(alphas, 0, 1)).astype(np.uint8),
        np.round(np.clip(DIFFERENCE_UNIT * differences / full, -127, 127)).astype(np.int8),
    )


def main() -> None:
    """Write the file, and print what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    drones = [drone(recording) for recording in open_dataset(arguments.data, names=CLIPS)]
    write_drones(arguments.file, drones)
    for one in drones:
        print(f"{one.name}: {one.band}, {one.size_px:.1f} px, {len(one.alphas)} crops, {CROPS_PER_S:g} per s")
    print(f"{arguments.file}: {arguments.file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
