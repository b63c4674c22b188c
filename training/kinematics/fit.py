"""Fit the class evidence from motion: trajectories in, weights of two logistic regressions out.

Drones and others count alike, and so do the classes and the clips of each.  Clips of consecutive numbers share place
and flight, so cross-validation leaves out one such recording run at a time; its predictions give the slope that
calibrates the weights.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.tracking.kinematics import LIMIT, Features, Kinematics
from training.kinematics.trajectories import Rows, Trajectory

DRONE, BIRDS, AIRCRAFT = "drone", ("bird",), ("airplane", "helicopter")
PENALTY = 1.0  # of squared weights of standardised features, where all moments together count as ...
EFFECTIVE = 120.0  # ... this many independent observations
RUN_GAP = 2  # numbers: clips farther apart are of different runs
ALL = tuple(range(len(Features._fields)))
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
    """Features (N, F) of N moments of one trajectory under one condition."""

    clip: str
    sensor: str
    object_class: str
    condition: str
    features: Vector


@dataclass(frozen=True)
class Model:
    """Log-odds of a drone against birds and against aircraft: constants and weights (1 + F,)."""

    birds: Vector
    aircraft: Vector

    def log_odds(self, features: Vector) -> Vector:
        """Return the log-odds (N,) of features (N, F), as `pipeline.tracking.kinematics` does, but unlimited."""
        birds, aircraft = (with_constant(features) @ weights for weights in (self.birds, self.aircraft))
        mixed: Vector = np.log(2) - np.logaddexp(-birds, -aircraft)
        return mixed

    def scaled(self, slope: float) -> "Model":
        """Return the model with all its weights multiplied."""
        return Model(self.birds * slope, self.aircraft * slope)


@dataclass(frozen=True)
class Scored:
    """A sample and the model's log-odds (N,) at its moments, limited."""

    sample: Sample
    log_odds: Vector


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
            if len(features := np.array(list(_features(degraded(one.rows, condition, random))))):
                found.append(Sample(one.clip, one.sensor, one.object_class, name, features))
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


def _features(rows: Rows) -> Iterable[Features]:
    kinematics, before = Kinematics(), None
    for time_s, x, y, length, _ in rows.tolist():
        kinematics.update(time_s, x, y, length)
        if kinematics.features is not before and (before := kinematics.features):
            yield before


def with_constant(features: Vector) -> Vector:
    """Return features (N, F) behind a column of ones."""
    return np.column_stack([np.ones(len(features)), features])


def fitted(part: Sequence[Sample], columns: Sequence[int]) -> Model:
    """Return the model fitted on the given features; the weights of the others are 0."""
    return Model(*(_against(part, others, columns) for others in (BIRDS, AIRCRAFT)))


def _against(part: Sequence[Sample], others: Sequence[str], columns: Sequence[int]) -> Vector:
    chosen = [sample for sample in part if sample.object_class in (DRONE, *others)]
    features = np.concatenate([sample.features[:, columns] for sample in chosen])
    is_drone = _repeated(chosen, [float(sample.object_class == DRONE) for sample in chosen])
    weights = _weights(chosen)
    mean, std = features.mean(axis=0), features.std(axis=0)
    standardised = logistic_regression(with_constant((features - mean) / std), is_drone, EFFECTIVE * weights)
    against = np.zeros(1 + part[0].features.shape[1])
    against[1 + np.array(columns)] = standardised[1:] / std
    against[0] = standardised[0] - (standardised[1:] * mean / std).sum()
    return against


def logistic_regression(x: Vector, y: Vector, weights: Vector) -> Vector:
    """Return coefficients (F,) for x (N, F), whose first column is constant and not penalised, by Newton's method."""
    penalty = PENALTY * np.eye(x.shape[1])
    penalty[0, 0] = 1e-6
    coefficients = np.zeros(x.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-(x @ coefficients)))
        gradient = x.T @ (weights * (p - y)) + penalty @ coefficients
        hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + penalty
        coefficients = coefficients - np.linalg.solve(hessian, gradient)
    return coefficients


def _repeated(part: Sequence[Sample], values: Sequence[float]) -> Vector:
    return np.repeat(np.array(values, float), [len(sample.features) for sample in part])


def _weights(part: Sequence[Sample]) -> Vector:
    """Return each moment's weight: drones and others count alike, and so do classes and the clips of each; sum 1."""
    lengths: dict[tuple[str, str], int] = defaultdict(int)
    for sample in part:
        lengths[sample.object_class, sample.clip] += len(sample.features)
    clips = defaultdict(int)
    for object_class, _ in lengths:
        clips[object_class] += 1
    others = len(clips) - 1

    def weight(sample: Sample) -> float:
        of_class = 0.5 if sample.object_class == DRONE else 0.5 / others
        return of_class / clips[sample.object_class] / lengths[sample.object_class, sample.clip]

    return _repeated(part, [weight(sample) for sample in part])


def cross_validated(part: Sequence[Sample], columns: Sequence[int] = ALL) -> tuple[Model, list[Scored]]:
    """Return the calibrated model, and log-odds of each recording run by a model fitted on the others."""
    runs = recording_runs({sample.clip for sample in part})
    held_out: list[tuple[Sample, Vector]] = []
    for run in sorted(set(runs.values())):
        model = fitted([sample for sample in part if runs[sample.clip] != run], columns)
        held_out += [(one, model.log_odds(one.features)) for one in part if runs[one.clip] == run]
    kept = [sample for sample, _ in held_out]
    predicted = np.concatenate([values for _, values in held_out])
    is_drone = _repeated(kept, [float(sample.object_class == DRONE) for sample in kept])
    (slope,) = logistic_regression(predicted[:, None], is_drone, EFFECTIVE * _weights(kept))
    scores = [Scored(sample, np.clip(slope * values, -LIMIT, LIMIT)) for sample, values in held_out]
    return fitted(part, columns).scaled(float(slope)), scores


def scored(model: Model, part: Iterable[Sample]) -> list[Scored]:
    """Return the samples with the model's limited log-odds."""
    return [Scored(sample, np.clip(model.log_odds(sample.features), -LIMIT, LIMIT)) for sample in part]
