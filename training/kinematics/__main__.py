"""Fit and evaluate the class evidence from motion, `pipeline.tracking.kinematics`.

    python3 -m training.kinematics --data FOLDER [--other FOLDER]

In: clips in the dronedet format.  Out, printed: the constants, and tables of the area under the ROC curve (AUC).  The
constants are fitted on trajectories of `train`, as measured and with noise and missing frames added, at 30, 12.5 and 5
frames/s.  The other splits are only reported on.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.command_line import exit_code, program
from training.datasets import CLIP_CLASSES, SENSORS, SPLITS, Clip, DataError, open_dataset
from training.evaluation.arguments import parse_with_data
from training.evaluation.class_separation import area_under_roc
from training.kinematics.fit import CONDITIONS, DRONE, Sample, Scored, cross_validated, samples, scored
from training.kinematics.trajectories import read_trajectories

CACHE = Path(".cache/kinematics")
CLIPS = 18  # of each class and sensor to fit on, evenly spread
OTHERS = CLIP_CLASSES[1:]
AS_MEASURED = "30"  # no clip has more frames per second


def main() -> int:
    """Run the command line and return the exit code."""
    parser = program(__doc__)
    parser.add_argument("--other", type=Path, help="folder of drone clips of other cameras, reported on")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"of measured trajectories (default: {CACHE})")
    options = parse_with_data(parser)
    return exit_code(lambda: run(Path(options.data), options.other, options.cache))


def run(data: Path, other: Path | None, cache: Path) -> None:
    """Print constants and tables; raise DataError for unreadable data."""
    train = samples(read_trajectories(cache, evenly_spread(clips_of(data, "train"), CLIPS)))
    if missing := [name for name in CLIP_CLASSES if not any(one.object_class == name for one in train)]:
        raise DataError(f"data {data}: train shows no {', '.join(missing)}; expected all of {', '.join(CLIP_CLASSES)}")
    model, held_out = cross_validated(train)
    print(f"CONSTANT, WEIGHT = {model[0]:.2f}, {model[1]:.2f}\n")
    tested = {split: samples(read_trajectories(cache, clips_of(data, split))) for split in ("hard", "val")}
    print(areas({"train, cross-validated": held_out} | {name: scored(model, part) for name, part in tested.items()}))
    print("\nwithout the discount for noise:\n")
    print(areas({name: scored(model, noiseless(part)) for name, part in tested.items()}))
    if other:
        clips = clips_of(other, *SPLITS)
        for split in sorted({clip.split for clip in clips}):
            of_split = [clip for clip in clips if clip.split == split]
            print(drones(split, scored(model, samples(read_trajectories(cache, of_split)))))


def clips_of(folder: Path, *splits: str) -> list[Clip]:
    """Return the clips of these splits."""
    return [recording for recording in open_dataset(folder, splits) if isinstance(recording, Clip)]


def evenly_spread(clips: Iterable[Clip], count: int) -> list[Clip]:
    """Return up to `count` clips of each class and sensor, evenly spread over their sorted names."""
    groups: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[clip.sensor, clip.clip_class].append(clip)
    return [
        group[index]
        for group in groups.values()
        for index in np.unique(np.linspace(0, len(group) - 1, min(count, len(group))).round().astype(int))
    ]


def noiseless(part: Iterable[Sample]) -> list[Sample]:
    """Return the samples as if all variation of the velocity were the target's."""
    return [replace(one, moments=[moment._replace(noise=0.0) for moment in one.moments]) for one in part]


def areas(parts: dict[str, list[Scored]]) -> str:
    """Return a Markdown table: AUC of moments and of clips, by part, sensor and condition."""
    head = ("set", "sensor", *(f"moments, {name}" for name in CONDITIONS), "clips", *OTHERS, "drones below 0")
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for part, scores in parts.items():
        for sensor in SENSORS:
            of_sensor = [one for one in scores if one.sample.sensor == sensor]
            moments = [area([o for o in of_sensor if o.sample.condition == name], OTHERS) for name in CONDITIONS]
            clips = clip_means(of_sensor)
            of_clips = [area(clips, OTHERS), *(area(clips, (name,)) for name in OTHERS)]
            low = [float(one.log_odds.mean()) < 0 for one in clips if one.sample.object_class == DRONE]
            cells = [f"{value:.2f}" for value in (*moments, *of_clips)]
            lines.append("| " + " | ".join((part, sensor, *cells, f"{sum(low)} of {len(low)}")) + " |")
    return "\n".join(lines)


def area(scores: Iterable[Scored], others: Sequence[str]) -> float:
    """Return the AUC of drones against these classes over all moments; NaN where one of the two is missing."""
    values: dict[bool, list[float]] = defaultdict(list)
    for one in scores:
        if one.sample.object_class in (DRONE, *others):
            values[one.sample.object_class == DRONE] += one.log_odds.tolist()
    found = area_under_roc(values[True], values[False])
    return float("nan") if found is None else found


def clip_means(scores: Iterable[Scored]) -> list[Scored]:
    """Return one score for each clip and class: the mean at the camera's own frame rate."""
    groups: dict[tuple[str, str], list[Scored]] = defaultdict(list)
    for one in scores:
        if one.sample.condition == AS_MEASURED:
            groups[one.sample.clip, one.sample.object_class].append(one)
    return [
        replace(group[0], log_odds=np.array([np.concatenate([one.log_odds for one in group]).mean()]))
        for group in groups.values()
    ]


def drones(split: str, scores: list[Scored]) -> str:
    """Return a Markdown table of drone clips: mean log-odds, and how many are below 0."""
    means = sorted((float(one.log_odds[0]), one.sample.clip) for one in clip_means(scores))
    below = sum(mean < 0 for mean, _ in means)
    lines = [f"\nother cameras, {split}: {below} of {len(means)} below 0", "| clip | log-odds |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {clip} | {mean:+.2f} |" for mean, clip in means)])


if __name__ == "__main__":
    sys.exit(main())
