"""Reads tracks.csv: where each track was, frame by frame."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import SourceError

MAX_POINTS = 256  # of a path that is drawn


class TableRow(NamedTuple):
    """A track in a frame, as tracks.csv has it; `time_utc` is None where it is unknown."""

    time_s: float
    time_utc: str | None
    track: int
    label: str
    xyxy: tuple[float, float, float, float]
    state: str


def read_rows(path: Path) -> Iterator[TableRow]:
    """Yield the rows of a tracks.csv.  Raise SourceError where it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for fields in csv.DictReader(file):
                x, y, width, height = (float(fields[name]) for name in ("x", "y", "w", "h"))
                yield TableRow(
                    float(fields["time_s"]), fields["time_utc"] or None, int(fields["id"]), fields["label"],
                    (x, y, x + width, y + height), fields["state"],
                )  # fmt: skip
    except OSError as error:
        raise SourceError(f"{path}: cannot be opened: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise SourceError(f"{path}: not a tracks.csv of dasnet, or damaged: {error}") from error


class _PixelPath:
    """The middles of a track's boxes, in frame pixels; of a long track every n-th, and always the last."""

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []
        self._stride = 1
        self._seen = 0
        self._last = (0.0, 0.0)

    def add(self, xyxy: tuple[float, float, float, float]) -> None:
        """Add the next box."""
        self._last = (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2
        if self._seen % self._stride == 0:
            self._points.append(self._last)
        self._seen += 1
        if len(self._points) > MAX_POINTS:
            self._points, self._stride = self._points[::2], self._stride * 2

    @property
    def points(self) -> list[tuple[float, float]]:
        """Return the points, x and y."""
        return self._points if self._points[-1:] == [self._last] else [*self._points, self._last]


def read_paths(path: Path) -> dict[int, list[tuple[float, float]]]:
    """Return the path of each track, by its id; none where there is no tracks.csv.  Raise SourceError."""
    paths: dict[int, _PixelPath] = {}
    if path.is_file():
        for row in read_rows(path):
            paths.setdefault(row.track, _PixelPath()).add(row.xyxy)
    return {track: drawn.points for track, drawn in sorted(paths.items())}
