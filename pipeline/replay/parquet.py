"""DIR/parquet: tracks, events and detections of all inputs as Parquet, to be queried as one data set.

In: an input's folder.  Out: DIR/parquet/<table>/date=<UTC date of its first frame>/<name>.parquet, a file of each table
for each input, so that inputs can be written at the same time and written again.  The date is null where the wall-clock
time is unknown.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from pipeline.capture.wall_clock import WallClock
from pipeline.errors import ConfigError
from pipeline.replay.outputs import Header, read_detections
from pipeline.replay.summary import Summary
from pipeline.types import Detections, Event

DATA_SET = "parquet"
TABLES = ("tracks", "events", "detections")
NULL_DATE = "__HIVE_DEFAULT_PARTITION__"  # as Hive, Spark, DuckDB and pyarrow read it
BATCH_ROWS = 65_536  # in memory at once, and in a row group

Row = dict[str, Any]


def require_pyarrow() -> None:
    """Raise ConfigError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigError('--parquet needs pyarrow, not installed here: pip install "dasnet[ray]"') from error


def has_rows(folder: Path) -> bool:
    """Return whether the data set has all tables of an input, given its folder DIR/<name>."""
    return all(any(_files(folder, table)) for table in TABLES)


def remove_rows(folder: Path) -> None:
    """Remove an input's rows from the data set, before its outputs change."""
    for table in TABLES:
        for file in _files(folder, table):
            file.unlink(missing_ok=True)


def write_rows(folder: Path) -> None:
    """Write the rows of an input from the files in its folder DIR/<name>.  Raise DasnetError, OSError."""
    remove_rows(folder)
    stored = folder / "detections.jsonl"
    if not stored.is_file():  # nothing of it could be read
        return
    header, frames = read_detections(stored)
    clock = WallClock(header.start_utc_ns)
    names = {"recording": folder.name, "source": header.source}
    times_s: dict[int, float] = {}
    _write(folder, "detections", clock, _detection_rows(frames, header, names, times_s))
    _write(folder, "tracks", clock, _track_rows(folder, names, times_s))
    _write(folder, "events", clock, _event_rows(folder, names))


def _files(folder: Path, table: str) -> Iterator[Path]:
    dates = sorted((folder.parent / DATA_SET / table).glob("date=*"))
    return (file for date in dates if (file := date / f"{folder.name}.parquet").is_file())


def _detection_rows(
    frames: Iterator[Detections], header: Header, names: Row, times_s: dict[int, float]
) -> Iterator[Row]:
    """Yield a row for each detection, and note the presentation time of each frame."""
    for one in frames:
        number = one.ref.seq + 1
        times_s[number] = one.ref.pts_s
        place = names | {"frame": number, "time_s": one.ref.pts_s}
        for row, (left, top, right, bottom) in enumerate(one.xyxy.tolist()):
            yield place | {
                "x": left,
                "y": top,
                "w": right - left,
                "h": bottom - top,
                "score": float(one.score[row]),
                "mask_score": float(one.mask_score[row]),
                "motion_score": float(one.motion_score[row]),
                "novelty": float(one.novelty[row]),
                "area": float(one.area_px[row]),
                "class_scores": list(zip(header.classes, one.class_scores[row].tolist(), strict=True)),
            }


def _track_rows(folder: Path, names: Row, times_s: dict[int, float]) -> Iterator[Row]:
    """Yield the rows of tracks.txt with their times and each track's last label."""
    summary = msgspec.json.decode((folder / "summary.json").read_bytes(), type=Summary)
    labels = {track.id: track.label for track in summary.per_track}
    with (folder / "tracks.txt").open() as lines:
        for line in lines:
            frame, track, x, y, w, h, score, *_ = line.split(",")
            box = {"x": float(x), "y": float(y), "w": float(w), "h": float(h), "score": float(score)}
            number = int(frame)
            place = {"frame": number, "time_s": times_s[number], "track": int(track), "label": labels[int(track)]}
            yield names | place | box


def _event_rows(folder: Path, names: Row) -> Iterator[Row]:
    with (folder / "events.jsonl").open("rb") as lines:
        for line in lines:
            event = msgspec.json.decode(line, type=Event)
            track = event.track
            yield names | {
                "frame": event.frame + 1,
                "time_s": event.pts_s,
                "id": event.id,
                "kind": event.kind.value,
                "severity": event.severity.value,
                "alert": event.alert,
                "track": track.id if track else None,
                "label": track.label if track else None,
                "score": track.score if track else None,
            }


def _write(folder: Path, table: str, clock: WallClock, rows: Iterator[Row]) -> None:
    """Write one file of the data set, with the wall-clock time of each row, and rename it when it is whole."""
    import pyarrow
    import pyarrow.parquet

    date = NULL_DATE
    if clock.start_utc_ns is not None:
        date = datetime.fromtimestamp(clock.start_utc_ns // 1_000_000_000, UTC).date().isoformat()
    path = folder.parent / DATA_SET / table / f"date={date}" / f"{folder.name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")  # data sets do not read hidden files
    schema = pyarrow.schema(_columns(table))
    with pyarrow.parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            for row in batch:
                row["time_utc"] = clock.time_ns(row["time_s"])
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))
    partial.replace(path)


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    yield batch  # also an empty one: a file without rows says that there are none


def _columns(table: str) -> list[tuple[str, Any]]:
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int64()
    place = [
        ("recording", text),
        ("source", text),
        ("frame", whole),
        ("time_s", real),
        ("time_utc", pa.timestamp("ns", "UTC")),
    ]
    box = [("x", real), ("y", real), ("w", real), ("h", real), ("score", real)]
    if table == "tracks":
        return [*place, ("track", whole), ("label", text), *box]
    if table == "events":
        what = [("id", text), ("kind", text), ("severity", text), ("alert", text)]
        return [*place, *what, ("track", whole), ("label", text), ("score", real)]
    scores = [("mask_score", real), ("motion_score", real), ("novelty", real), ("area", real)]
    return [*place, *box, *scores, ("class_scores", pa.map_(text, real))]
