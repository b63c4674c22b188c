"""Boundaries of the latency histograms.  Pure.

Each boundary is one more series, and of a camera's histograms one for each camera: they are close together where the
objective is judged, and no closer than a question needs elsewhere.  The objective itself is always a boundary.
"""

from collections.abc import Sequence

_SHORTEST_STAGE_S, _LONGEST_STAGE_S = 0.0002, 60.0

# (up to this multiple of the objective, ratio of consecutive boundaries).
_Ratios = Sequence[tuple[float, float]]
_EVERYWHERE = float("inf")
_STAGE: _Ratios = ((1 / 40, 1.6), (1 / 5, 1.25), (2, 1.12), (_EVERYWHERE, 1.6))
_CAMERA: _Ratios = ((1 / 5, 2), (0.8, 1.25), (1.25, 1.1), (2, 1.25), (_EVERYWHERE, 2))
_RARE: _Ratios = ((_EVERYWHERE, 2),)


def stage_buckets_s(objective_s: float) -> tuple[float, ...]:
    """Return the upper boundaries of buckets in s for parts of the latency of all cameras, which may be tiny."""
    return _buckets_s(objective_s, _SHORTEST_STAGE_S, max(_LONGEST_STAGE_S, 8 * objective_s), _STAGE)


def camera_buckets_s(objective_s: float) -> tuple[float, ...]:
    """Return those for the latency of one camera's frames: 10% apart around the objective.

    Quantiles are interpolated within a bucket: that bounds their error there for any distribution.  From a fifth to
    twice the objective boundaries are close enough for the smooth distributions of latencies.
    """
    return _buckets_s(objective_s, objective_s / 40, 8 * objective_s, _CAMERA)


def rare_buckets_s(objective_s: float) -> tuple[float, ...]:
    """Return those for what is rare in one camera, or only as exact as two clocks: from a quarter of the objective."""
    return _buckets_s(objective_s, objective_s / 4, 8 * objective_s, _RARE)


def _buckets_s(objective_s: float, shortest_s: float, longest_s: float, ratios: _Ratios) -> tuple[float, ...]:
    below, above = [objective_s], [objective_s]
    while below[-1] > shortest_s * 1.001:
        below.append(below[-1] / _ratio(ratios, below[-1] / objective_s * 0.999))
    while above[-1] < longest_s * 0.999:
        above.append(above[-1] * _ratio(ratios, above[-1] / objective_s * 1.001))
    return tuple(sorted({float(f"{bound:.4g}") for bound in (*below, *above)} | {objective_s}))


def _ratio(ratios: _Ratios, multiple: float) -> float:
    return next(ratio for limit, ratio in ratios if multiple < limit)
