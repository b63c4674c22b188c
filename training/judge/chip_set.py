"""A set of labelled chips, in memory or mapped from files, and its packed form.  Needs numpy alone.

A chip is uint8 (T, S, S): registered grey crops of one place, newest first, with a margin around what the judge sees,
so that a sample can be rotated, scaled and shifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.metadata import CLASSES

# What a chip shows: a class of CLASSES, or clutter: a motion candidate, or a peak of contrast that stands still.
MOTION, STATIC = len(CLASSES), len(CLASSES) + 1
MAX_COMPRESSION = 8.0  # of a packed file: more chips than that do not fit
Chips = NDArray[np.uint8]


@dataclass(frozen=True)
class RecordingChips:
    """The chips of one recording: arrays of one length."""

    name: str
    sensor: str
    chips: Chips  # (N, T, S, S)
    kinds: NDArray[np.int8]  # index into CLASSES, MOTION or STATIC
    lengths_px: NDArray[np.float32]  # longer side of the target, frame pixels; 0 of clutter

    def __len__(self) -> int:
        return len(self.kinds)


class ChipSet:
    """Chips of several recordings, addressed by one index.

    Args:
        parts: the recordings'.
        lags_s: age of each of a chip's T crops.
        side_px: of the middle of a chip, which the judge sees.
    """

    def __init__(self, parts: Sequence[RecordingChips], lags_s: Sequence[float], side_px: int) -> None:
        self.parts = [part for part in parts if len(part)]
        self.lags_s, self.side_px = tuple(lags_s), side_px
        counts = [len(part) for part in self.parts]
        self._starts = np.cumsum([0, *counts])[:-1]
        self.kinds = np.concatenate([np.zeros(0, np.int8), *(part.kinds for part in self.parts)])
        self.lengths_px = np.concatenate([np.zeros(0, np.float32), *(part.lengths_px for part in self.parts)])
        self.recordings: NDArray[np.int64] = np.repeat(np.arange(len(counts)), counts)

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def is_target(self) -> NDArray[np.bool_]:
        """Which chips show a target."""
        return self.kinds < len(CLASSES)

    def at(self, indices: NDArray[np.int64]) -> Chips:
        """Return the chips with these indices, with their margins."""
        parts = np.searchsorted(self._starts, indices, "right") - 1
        rows = indices - self._starts[parts]
        return np.stack([self.parts[part].chips[row] for part, row in zip(parts.tolist(), rows.tolist(), strict=True)])

    def seen(self, indices: NDArray[np.int64]) -> Chips:
        """Return the chips without their margins, as the judge sees them."""
        chips = self.at(indices)
        first = (chips.shape[-1] - self.side_px) // 2
        return np.ascontiguousarray(chips[:, :, first : first + self.side_px, first : first + self.side_px])

    def counts(self) -> dict[str, int]:
        """Return the number of chips of each kind."""
        names = (*CLASSES, "moving clutter", "static clutter")
        return dict(zip(names, np.bincount(self.kinds, minlength=len(names)).tolist(), strict=True))


def pack(path: Path, sets: dict[str, ChipSet], limit_bytes: int, seed: int = 0) -> None:
    """Write at most `limit_bytes` of the sets' chips to one compressed .npz file, atomically.

    Of each recording and kind the same number is kept as far as there are as many, so that no long one prevails.
    """
    orders = {name: _spread_order(chips, np.random.default_rng(seed)) for name, chips in sets.items()}
    total = sum(map(len, orders.values()))
    raw_bytes = sum(len(chips) * part.chips[0].nbytes for chips in sets.values() for part in chips.parts[:1])
    share = min(1.0, MAX_COMPRESSION * limit_bytes / max(1, raw_bytes))
    partial = path.with_suffix(".partial.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        content: dict[str, Any] = {}
        for name, chips in sets.items():
            content |= _packed(f"{name}.", chips, np.sort(orders[name][: round(share * len(orders[name]))]))
        np.savez_compressed(partial, **content)
        size_bytes = partial.stat().st_size
        if size_bytes <= limit_bytes or share * total < len(sets):
            break
        share *= 0.98 * limit_bytes / size_bytes
    partial.replace(path)


def unpack(path: Path) -> dict[str, ChipSet]:
    """Return the sets of a packed file."""
    with np.load(path, allow_pickle=False) as content:
        names = [key.removesuffix(".kinds") for key in content.files if key.endswith(".kinds")]
        return {name: _unpacked(f"{name}.", content) for name in names}


def _spread_order(chips: ChipSet, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return all indices in random order, but the first of each recording and kind before the second of any."""
    order = rng.permutation(len(chips))
    group = chips.recordings[order] * (STATIC + 1) + chips.kinds[order]
    by_group = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[by_group], group[by_group], "left")
    rank = np.empty(len(order), np.int64)
    rank[by_group] = np.arange(len(order)) - starts
    spread: NDArray[np.int64] = order[np.argsort(rank, kind="stable")]
    return spread


def _packed(prefix: str, chips: ChipSet, chosen: NDArray[np.int64]) -> dict[str, Any]:
    pixels = chips.at(chosen) if len(chosen) else np.zeros((0, len(chips.lags_s), 1, 1), np.uint8)
    # Differences, modulo 256, compress better: of each crop to the newer one, of the newest to its left neighbours.
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    differences[:, 0, :, 1:] -= pixels[:, 0, :, :-1]
    content = {
        "differences": differences,
        "kinds": chips.kinds[chosen],
        "lengths_px": chips.lengths_px[chosen],
        "recordings": chips.recordings[chosen],
        "names": np.array([part.name for part in chips.parts]),
        "sensors": np.array([part.sensor for part in chips.parts]),
        "lags_s": np.array(chips.lags_s),
        "side_px": np.array(chips.side_px),
    }
    return {prefix + key: value for key, value in content.items()}


def _unpacked(prefix: str, content: Any) -> ChipSet:
    pixels = content[prefix + "differences"]
    np.cumsum(pixels[:, 0], axis=2, dtype=np.uint8, out=pixels[:, 0])
    np.cumsum(pixels, axis=1, dtype=np.uint8, out=pixels)
    kinds, lengths_px, recordings = (content[prefix + key] for key in ("kinds", "lengths_px", "recordings"))
    about = zip(content[prefix + "names"].tolist(), content[prefix + "sensors"].tolist(), strict=True)
    parts = []
    for number, (name, sensor) in enumerate(about):
        rows = recordings == number
        parts.append(RecordingChips(name, sensor, pixels[rows], kinds[rows], lengths_px[rows]))
    return ChipSet(parts, content[prefix + "lags_s"].tolist(), int(content[prefix + "side_px"]))
