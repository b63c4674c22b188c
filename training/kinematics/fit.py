"""Fit the class evidence from motion: trajectories in, constant and weight of a logistic regression out.

Drones and others count alike, and so do the classes and the clips of each.  Clips of consecutive numbers share place
and flight, so cross-validation leaves out one such recording run at a time; its predictions give the slope that
calibrates the weights.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.tracking.kinematics import Features, Kinematics, log_odds
from training.kinematics.trajectories import Rows, Trajectory
from training.logistic import logistic_regression

DRONE = "drone"
PENALTY = 1.0  # of the squared weight of the standardised feature, where all moments together count as ...
EFFECTIVE = 120.0  # ... this many independent observations
FREE = 1e-6  # of the squared constant, and of the slope that calibrates
RUN_GAP = 2  # numbers: clips farther apart are of different runs
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Condition:
    """What is done to a measured trajectory."""

    fps: float
    noise: float = 0.0  # standard deviations, of those the tracker assumes of position, and as many of size
    missing: float = 0.0  # share of the frames


CONDITIONS = {
    "30": Condition(30),
    "12.5": Condition(12.5),
    "5": Condition(5),
    "30, noise": Condition(30, 0.7, 0.2),
    "5, noise": Condition(5, 0.5, 0.1),
}


@dataclass(frozen=True)
class Sample:
    """Features at N moments of one trajectory under one condition."""

    clip: str
    sensor: str
    object_class: str
    condition: str
    moments: list[Features]

    @property
    def autocorrelation(self) -> Vector:
        """Return the feature (N,)."""
        return np.array([moment.velocity_autocorrelation for moment in self.moments])


@dataclass(frozen=True)
class Scored:
    """A sample and the log-odds (N,) at its moments."""

    sample: Sample
    log_odds: Vector


Model = tuple[float, float]  # constant and weight


def recording_runs(names: Iterable[str]) -> dict[str, str]:
    """Return each clip's recording run: clips of one prefix whose numbers are at most RUN_GAP apart."""
    runs: dict[str, str] = {}
    last: dict[str, tuple[int, str]] = {}
    for prefix, number, name in sorted((*_numbered(name), name) for name in names):
        before, run = last.get(prefix, (number - RUN_GAP - 1, ""))
        runs[name] = run if number - before <= RUN_GAP else name
        last[prefix] = number, runs[name]
    return runs


def _numbered(name: str) -> tuple[str, int]:
    prefix, _, digits = name.rpartition("_")
    return (prefix, int(digits)) if digits.isdigit() else (name, 0)


def samples(trajectories: Iterable[Trajectory]) -> list[Sample]:
    """Return the features of all trajectories under all conditions; none where observed for too short."""
    random = np.random.default_rng(0)
    found = []
    for one in trajectories:
        for name, condition in CONDITIONS.items():
            if moments := list(_moments(degraded(one.rows, condition, random))):
                found.append(Sample(one.clip, one.sensor, one.object_class, name, moments))
    return found


def degraded(rows: Rows, condition: Condition, random: np.random.Generator) -> Rows:
    """Return the rows that a slower, noisier camera would give; noise as `measurement_std` of the tracker has it."""
    slots = np.floor((rows[:, 0] - rows[0, 0]) * condition.fps + 1e-6)
    kept = rows[np.r_[True, np.diff(slots) > 0]]
    kept = kept[random.random(len(kept)) >= condition.missing]
    length = kept[:, 3:4]
    std = condition.noise * np.maximum(0.7, 0.12 * length)
    noisy = kept.copy()
    noisy[:, 1:3] += std * random.standard_normal((len(kept), 2))
    noisy[:, 3:4] *= np.exp(np.minimum(std / length, 0.4) * random.standard_normal((len(kept), 1)))
    return noisy


def _moments(rows: Rows) -> Iterable[Features]:
    kinematics, before = Kinematics(), None
    for time_s, x, y, length, _ in rows.tolist():
        kinematics.update(time_s, x, y, length)
        if kinematics.features is not before and (before := kinematics.features):
            yield before


def fitted(part: Sequence[Sample]) -> Model:
    """Return the model fitted on these samples."""
    feature = np.concatenate([sample.autocorrelation for sample in part])
    mean, std = float(feature.mean()), float(feature.std())
    standardised = np.column_stack([np.ones(len(feature)), (feature - mean) / std])
    constant, weight = logistic_regression(
        standardised, _is_drone(part), EFFECTIVE * _weights(part), [FREE, PENALTY]
    ).tolist()
    return constant - weight * mean / std, weight / std


def _repeated(part: Sequence[Sample], values: Sequence[float]) -> Vector:
    return np.repeat(np.array(values, float), [len(sample.moments) for sample in part])


def _is_drone(part: Sequence[Sample]) -> Vector:
    return _repeated(part, [float(sample.object_class == DRONE) for sample in part])


def _weights(part: Sequence[Sample]) -> Vector:
    """Return each moment's weight: drones and others count alike, and so do classes and the clips of each; sum 1."""
    lengths: dict[tuple[str, str], int] = defaultdict(int)
    for sample in part:
        lengths[sample.object_class, sample.clip] += len(sample.moments)
    clips: dict[str, int] = defaultdict(int)
    for object_class, _ in lengths:
        clips[object_class] += 1
    others = len(clips) - 1

    def weight(sample: Sample) -> float:
        of_class: float = 0.5 if sample.object_class == DRONE else 0.5 / others
        return of_class / clips[sample.object_class] / lengths[sample.object_class, sample.clip]

    return _repeated(part, [weight(sample) for sample in part])


def cross_validated(part: Sequence[Sample]) -> tuple[Model, list[Scored]]:
    """Return the calibrated model, and log-odds of each recording run by a model fitted on the others."""
    runs = recording_runs({sample.clip for sample in part})
    models = {run: fitted([one for one in part if runs[one.clip] != run]) for run in sorted(set(runs.values()))}
    predicted = [models[runs[one.clip]][0] + models[runs[one.clip]][1] * one.autocorrelation for one in part]
    column = np.concatenate(predicted)[:, None]
    (slope,) = logistic_regression(column, _is_drone(part), EFFECTIVE * _weights(part), FREE).tolist()
    held_out = [one for sample in part for one in scored(_scaled(models[runs[sample.clip]], slope), [sample])]
    return _scaled(fitted(part), slope), held_out


def _scaled(model: Model, slope: float) -> Model:
    return model[0] * slope, model[1] * slope


def scored(model: Model, part: Iterable[Sample]) -> list[Scored]:
    """Return the samples with the log-odds that the tracker would add."""
    return [Scored(one, np.array([log_odds(moment, *model) for moment in one.moments])) for one in part]
