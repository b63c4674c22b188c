"""The library of recorded drones that seeded encounters show: crops over time with alpha masks, in one small file.

`drones.npz` was made by scripts/pack_drones.py from the Drone-detection-dataset (Svanström, Alonso-Fernandez and
Englund, DOI 10.5281/zenodo.5500576, CC0 1.0), from clips outside its training split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("drones.npz")
CROP_PX = 40
CROPS_PER_S = 15.0
DIFFERENCE_UNIT = 100  # stored value of a difference of 1


@dataclass(frozen=True, eq=False)
class Drone:
    """A recorded drone.

    Attributes:
        name: of the clip.
        band: infrared or visible.
        size_px: apparent size, the square root of width times height of its mask, median over the crops.
        alphas: uint8 (T, CROP_PX, CROP_PX), 255 where the drone covers the background; the drone is centred.
        differences: int8 of the same shape: grey level minus the background's, times alpha, in hundredths of the
            drone's contrast.
    """

    name: str
    band: str
    size_px: float
    alphas: NDArray[np.uint8]
    differences: NDArray[np.int8]

    def at(self, time_s: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return alpha (0..1) and difference (1: the drone's contrast), float32 (CROP_PX, CROP_PX), at a time.

        The crops are played forwards, then backwards, and so on.
        """
        last = len(self.alphas) - 1
        step = round(time_s * CROPS_PER_S) % (2 * last)
        index = min(step, 2 * last - step)
        alpha, difference = self.alphas[index], self.differences[index]
        return alpha.astype(np.float32) / 255, difference.astype(np.float32) / DIFFERENCE_UNIT


def write_drones(path: Path, drones: Sequence[Drone]) -> None:
    """Write the library."""
    np.savez_compressed(
        path,
        names=np.array([one.name for one in drones]),
        bands=np.array([one.band for one in drones]),
        sizes_px=np.array([one.size_px for one in drones]),
        alphas=np.stack([one.alphas for one in drones]),
        differences=np.stack([one.differences for one in drones]),
    )


@cache
def read_drones(path: Path = FILE) -> tuple[Drone, ...]:
    """Return the library."""
    with np.load(path, allow_pickle=False) as file:
        columns = [file[name] for name in ("names", "bands", "sizes_px", "alphas", "differences")]
    rows = zip(*columns, strict=True)
    return tuple(Drone(str(name), str(band), float(size), *crops) for name, band, size, *crops in rows)
