"""DIR/report.html: one page over all inputs of a replay.

In: the inputs' summaries and thumbnails.  Out: one HTML file that contains everything (no script, nothing fetched),
dark, fit for a phone.  Equal summaries give equal bytes.  All text is escaped: a file name may be hostile.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.imaging.overlay import colour
from pipeline.replay.summary import Summary, TrackSummary, printable
from pipeline.replay.thumbnails import Thumbnail, Thumbnails
from pipeline.types import UAV, UNKNOWN

FILES = ("annotated.mp4", "tracks.txt", "detections.jsonl", "events.jsonl", "summary.json")
TABLE_ROWS = 8  # a longer table is folded
ROW_PX = 16
MIN_BAR_PERCENT = 0.4
MAX_TICKS = 8
TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True)
class _Link:
    href: str
    file: str


@dataclass(frozen=True)
class _Bar:
    """A track in the timeline, in percent of its width."""

    track: TrackSummary
    row: int
    left: float
    width: float


@dataclass(frozen=True)
class _Tick:
    time_s: float
    position: float  # 0..1


@dataclass(frozen=True)
class _Chart:
    bars: list[_Bar]
    ticks: list[_Tick]
    height_px: int
    row_px: int = ROW_PX


@dataclass(frozen=True)
class _Input:
    number: int
    summary: Summary
    problem: str  # empty: complete
    links: list[_Link]
    thumbnails: list[Thumbnail]
    chart: _Chart | None


def write_report(out_dir: Path, inputs: Sequence[tuple[Summary, Thumbnails]]) -> Path:
    """Write DIR/report.html and return its path.  It links to those output files that exist."""
    summaries = [summary for summary, _ in inputs]
    cards = [_input(number, summary, thumbnails) for number, (summary, thumbnails) in enumerate(inputs, start=1)]
    page = (
        _environment()
        .get_template("report.html")
        .render(
            inputs=cards,
            broken=[card for card in cards if card.problem],
            labels=_labels(summaries),
            models=sorted({f"{one.model.network} {one.model.sha256[:12]} on {one.engine}" for one in summaries}),
            table_rows=TABLE_ROWS,
        )
    )
    path, partial = out_dir / "report.html", out_dir / "report.html.partial"
    partial.write_text(page, encoding="utf-8", newline="\n")
    return partial.replace(path)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.replay"), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters.update(printable=printable, colour=_css_colour, base64=lambda data: b64encode(data).decode())
    return environment


def _css_colour(label: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour(label))


def _labels(summaries: Sequence[Summary]) -> list[tuple[str, int]]:
    """Count the tracks of each label, UAVs and unknown targets first."""
    counts = Counter(track.label for one in summaries for track in one.per_track)
    return sorted(counts.items(), key=lambda item: (item[0] != UAV, item[0] != UNKNOWN, item[0]))


def _input(number: int, summary: Summary, thumbnails: Thumbnails) -> _Input:
    folder = f"./{quote(printable(thumbnails.folder.name), safe='')}"
    labels = {track.id: track.label for track in summary.per_track}  # at the end, when it may be a bird
    return _Input(
        number=number,
        summary=summary,
        problem=_problem(summary),
        links=[_Link(f"{folder}/{file}", file) for file in FILES if (thumbnails.folder / file).is_file()],
        thumbnails=[one for one in thumbnails.by_track() if labels.get(one.track_id, UAV) in (UAV, UNKNOWN)],
        chart=_chart(summary) if summary.per_track else None,
    )


def _problem(summary: Summary) -> str:
    if summary.complete and not summary.error:
        return ""
    return printable(summary.error or "stopped before its end").removeprefix(f"{printable(summary.source)}: ")


def _chart(summary: Summary) -> _Chart:
    """Arrange the tracks over time, each in the first free row."""
    tracks = summary.per_track
    start_s = min(summary.start_s, *(track.first_s for track in tracks))
    span_s = max(summary.end_s, *(track.last_s for track in tracks)) - start_s or 1.0
    row_ends: list[float] = []
    bars = []
    for track in sorted(tracks, key=lambda track: (track.first_s, track.id)):
        width = max(MIN_BAR_PERCENT, 100 * (track.last_s - track.first_s) / span_s)
        left = min(100 * (track.first_s - start_s) / span_s, 100 - width)
        row = next((row for row, end in enumerate(row_ends) if end <= left), len(row_ends))
        row_ends[row : row + 1] = [left + width]
        bars.append(_Bar(track, row, left, width))
    step_s = next((step_s for step_s in TICKS_S if span_s / step_s <= MAX_TICKS), span_s)
    times_s = [index * step_s for index in range(ceil(start_s / step_s), floor((start_s + span_s) / step_s) + 1)]
    ticks = [_Tick(time_s, (time_s - start_s) / span_s) for time_s in times_s]
    return _Chart(bars, ticks, ROW_PX * len(row_ends) + 4)
