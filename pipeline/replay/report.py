"""DIR/report.html: one page over all inputs of a replay.

In: the inputs' summaries, thumbnails and folders.  Out: one HTML file, dark, fit for a phone.  Stills of alerts and
annotated.mp4 lie beside it; nothing else is fetched.  Its one script moves the player to a track that is clicked on in
a time line; without scripts a click opens the video there.  Equal outputs give equal bytes.  All text is escaped: a
file name may be hostile.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.errors import SourceError
from pipeline.imaging.overlay import colour
from pipeline.replay.geojson import FILE as GEOJSON
from pipeline.replay.report_alerts import ReportAlert, read_alerts
from pipeline.replay.report_charts import Chart, common_chart, first_s, input_chart
from pipeline.replay.stills import ALERTS, STILL
from pipeline.replay.summary import Summary, TrackSummary, printable
from pipeline.replay.thumbnails import Thumbnail, Thumbnails
from pipeline.replay.track_paths import read_paths
from pipeline.types import UAV, UNKNOWN

VIDEO = "annotated.mp4"
TRACKS, EVENTS = "tracks.csv", "events.jsonl"  # which it reads; of others it needs to know that they are there
FILES = (VIDEO, "tracks.txt", TRACKS, GEOJSON, "detections.jsonl", EVENTS, "summary.json")
TABLE_ROWS = 8  # a longer table is folded
OPEN_ALERTS = 12  # more are folded


@dataclass(frozen=True)
class _Link:
    href: str
    file: str


@dataclass(frozen=True)
class _Path:
    """A track's path: points of an SVG polyline in frame pixels."""

    track: TrackSummary
    points: str


@dataclass(frozen=True)
class _Alert:
    """An alert, the address of its still or an empty text, and the paths of its tracks."""

    alert: ReportAlert
    still: str
    paths: list[_Path]


@dataclass(frozen=True)
class _Input:
    number: int
    summary: Summary
    problem: str  # empty: complete
    links: list[_Link]
    thumbnails: list[Thumbnail]
    chart: Chart | None
    video: str  # address of annotated.mp4; empty: there is none
    still: str  # likewise
    paths: list[_Path]
    alerts: list[_Alert]


def write_report(out_dir: Path, inputs: Sequence[tuple[Summary, Thumbnails]]) -> Path:
    """Write DIR/report.html and return its path.  It links to those output files that exist."""
    summaries = [summary for summary, _ in inputs]
    cards = [_input(number, summary, thumbnails) for number, (summary, thumbnails) in enumerate(inputs, start=1)]
    script = files("pipeline.replay").joinpath("templates/report.js").read_text(encoding="utf-8")
    page = (
        _environment()
        .get_template("report.html")
        .render(
            inputs=cards,
            broken=[card for card in cards if card.problem],
            labels=_labels(summaries),
            models=sorted({f"{one.model.network} {one.model.sha256[:12]} on {one.engine}" for one in summaries}),
            common=common_chart([(card.number, card.summary) for card in cards]),
            videos={card.number: card.video for card in cards},
            table_rows=TABLE_ROWS,
            open_alerts=OPEN_ALERTS,
            script=Markup(script),
            script_hash=b64encode(sha256(script.encode()).digest()).decode(),
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
    environment.filters.update(
        printable=printable, colour=_css_colour, base64=lambda data: b64encode(data).decode(), first_s=first_s
    )
    return environment


def _css_colour(label: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour(label))


def _labels(summaries: Sequence[Summary]) -> list[tuple[str, int]]:
    """Count the tracks of each label, UAVs and unknown targets first."""
    counts = Counter(track.label for one in summaries for track in one.per_track)
    return sorted(counts.items(), key=lambda item: (item[0] != UAV, item[0] != UNKNOWN, item[0]))


def _input(number: int, summary: Summary, thumbnails: Thumbnails) -> _Input:
    folder = thumbnails.folder
    labels = {track.id: track.label for track in summary.per_track}  # at the end, when it may be a bird
    problem = _problem(summary)
    paths, alerts = [], []
    try:
        drawn = read_paths(folder / TRACKS) if summary.size_px else {}
        paths = [_Path(track, _points(drawn[track.id])) for track in summary.per_track if track.id in drawn]
        alerts = [_alert(folder, alert, paths) for alert in read_alerts(folder / EVENTS)]
    except SourceError as error:
        problem = problem or printable(str(error))
    return _Input(
        number=number,
        summary=summary,
        problem=problem,
        links=[_Link(address, file) for file in FILES if (address := _address(folder, file))],
        thumbnails=[one for one in thumbnails.by_track() if labels.get(one.track_id, UAV) in (UAV, UNKNOWN)],
        chart=input_chart(number, summary) if summary.per_track else None,
        video=_address(folder, VIDEO),
        still=_address(folder, STILL),
        paths=paths,
        alerts=alerts,
    )


def _alert(folder: Path, alert: ReportAlert, paths: Sequence[_Path]) -> _Alert:
    own = [path for path in paths if path.track.id in alert.tracks]
    return _Alert(alert, _address(folder / ALERTS, f"{alert.id}.jpg", folder.name), own)


def _address(folder: Path, file: str, above: str = "") -> str:
    """Return the address of a file beside the report, or an empty text where it is not there."""
    if not (folder / file).is_file():
        return ""
    return "./" + "/".join(quote(printable(part), safe="") for part in (above, folder.name, file) if part)


def _points(path: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in path)


def _problem(summary: Summary) -> str:
    if summary.complete and not summary.error:
        return ""
    return printable(summary.error or "stopped before its end").removeprefix(f"{printable(summary.source)}: ")
