"""Measured service times of one kind of camera, as `scripts/bench_site.py` writes them.

All are seconds of one core for one frame; where they vary, a sample of them.  A simulation draws from the samples.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]
Samples = Annotated[tuple[Seconds, ...], Field(min_length=1)]


class ServiceTimes(BaseModel):
    """What a frame of one kind of camera costs, and on which machine that was measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_px: tuple[int, int]  # of the network's input: width, height
    capture_s: Samples  # reception, decoding, image health
    prepare_s: Samples  # of the network's input, by the segmentation worker
    whole_s: Seconds  # the network, on a whole frame
    tile_s: Seconds  # on a tile
    reduced_s: Seconds  # on the reduced frame
    judge_s: Samples  # mask components, motion, chips, by the segmentation worker
    track_s: Samples  # by the track worker
    threads: int = Field(ge=1)  # of the network
    parallel_share: Annotated[float, Field(gt=0, le=1)]  # of a core that each of them adds to one frame


class Draw:
    """Draws service times."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def of(self, samples: Sequence[float]) -> float:
        """Return one of the samples."""
        return samples[int(self._random.integers(len(samples)))]

    def phase(self, period_s: float) -> float:
        """Return a time within a period."""
        return float(self._random.uniform(0, period_s))
