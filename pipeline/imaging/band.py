"""The band of an image: as configured, or recognised by its colours.  Pure."""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.types import Band

COLOUR_DIFFERENCE = 6.0  # mean difference between the channels above which an image is coloured


def named_band(name: str) -> Band:
    """Return the band of that name.  Raise ConfigError for an unknown one."""
    try:
        return Band(name)
    except ValueError as error:
        raise ConfigError(f"band {name!r}: must be one of auto, {', '.join(Band)}") from error


def band_of(pixels: NDArray[np.uint8], name: str = "auto") -> Band:
    """Return the named band; for `auto`, infrared for an image without colour, otherwise visible."""
    if name != "auto":
        return named_band(name)
    if pixels.ndim == 2:
        return Band.INFRARED
    difference = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    return Band.VISIBLE if float(difference.mean()) > COLOUR_DIFFERENCE else Band.INFRARED
