"""Margins of labels: how far the labels of a camera's recordings are drawn outside of the objects.

    python3 scripts/label_margins.py --data FOLDER

The product's boxes are tight, so an evaluation widens them by the labels' margin before it compares them by IoU, and
takes the margin off a label to get the object's apparent size.  The program measures margins: half of what the sides of
a label are longer than those of the object's pseudo-mask (`training.masks`), the median over a clip's frames, and over
the clips of a camera.
"""

import sys
from pathlib import Path

import numpy as np

from training.command_line import exit_code, program
from training.datasets import SPLITS, Clip
from training.evaluation.arguments import parse_with_data
from training.evaluation.clip_metrics import DRONE
from training.evaluation.clip_sets import labelled_clips
from training.masks import box_mask
from training.quick_eval import quick_eval_frames

# By camera, in pixels of the recording.  Measured: 3.9 and 9.4 for the first two; 1.1, 0.5 and 0.0 for Anti-UAV's;
# 2.4 for `optris_pi`, most of it indoor recordings with looser labels, while the outdoor ones were labelled with 1.
LABEL_MARGIN_PX = {
    "dronedet_infrared": 4.0,
    "dronedet_visible": 9.0,
    "antiuav_edge": 1.0,
    "antiuav_static": 1.0,
    "antiuav_turret": 1.0,
    "optris_pi": 1.0,
}
FRAMES = 6  # of a clip


def label_margin_px(clip: Clip) -> float:
    """Return the margin of a clip's labels; 0 for a camera without a known one."""
    return LABEL_MARGIN_PX.get(clip.camera, 0.0)


def main() -> int:
    """Run the command line and return the exit code."""
    return exit_code(lambda: run(parse_with_data(program(__doc__)).data))


def run(data: Path) -> None:
    """Print the margin of each camera's drone labels; raise DataError for unreadable data."""
    margins: dict[str, list[float]] = {}
    for _, clip in labelled_clips([data], SPLITS):
        if clip.clip_class == DRONE and (measured := list(measured_margins_px(clip))):
            margins.setdefault(clip.camera or clip.sensor, []).append(float(np.median(measured)))
    print("| camera | clips | label margin px |\n| --- | --- | --- |")
    for camera, of_clips in sorted(margins.items()):
        print(f"| {camera} | {len(of_clips)} | {np.median(of_clips):.1f} |")


def measured_margins_px(clip: Clip) -> list[float]:
    """Return the margins of drone labels in some of a clip's frames, averaged over both axes."""
    margins: list[float] = []
    for frame in clip.read(quick_eval_frames([clip], FRAMES, FRAMES)[clip.name]):
        for item in frame.objects:
            mask, _, _ = box_mask(frame.image, item.xyxy)
            rows, columns = np.nonzero(mask)
            if item.object_class == DRONE and len(rows):
                x0, y0, x1, y1 = item.xyxy
                margins.append((x1 - x0 + y1 - y0 - np.ptp(columns) - np.ptp(rows) - 2) / 4)
    return margins


if __name__ == "__main__":
    sys.exit(main())
