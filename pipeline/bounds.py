"""Exact bounds of a proportion and of a rate.  Pure.

Both are two-sided: the upper bound of a 90% interval is what holds on one side with 95% confidence.
"""

from scipy.special import betaincinv, gammaincinv


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the bounds of a probability (Clopper & Pearson, Biometrika 26, 1934); 0 and 1 without trials.

    Raise ValueError for impossible counts.
    """
    _check_confidence(confidence)
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials}; must be 0 <= successes <= trials")
    tail, failures = (1 - confidence) / 2, trials - successes
    lower = float(betaincinv(successes, failures + 1, tail)) if successes else 0.0
    upper = float(betaincinv(successes + 1, failures, 1 - tail)) if failures else 1.0
    return lower, upper


def poisson_rate(events: int, exposure: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the bounds of a rate per unit of exposure (Garwood, Biometrika 28, 1936); 0 and infinity without any.

    Raise ValueError for a negative count or exposure.
    """
    _check_confidence(confidence)
    if events < 0 or exposure < 0:
        raise ValueError(f"{events} events in {exposure}; must not be negative")
    if not exposure:
        return 0.0, float("inf")
    tail = (1 - confidence) / 2
    lower = float(gammaincinv(events, tail)) if events else 0.0
    return lower / exposure, float(gammaincinv(events + 1, 1 - tail)) / exposure


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}; must lie between 0 and 1")
