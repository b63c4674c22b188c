"""What a replay came to: each input's summary, and DIR/report.html over all of them.

In: while an input is replayed, its frames, Detections and tracks, of which `Thumbnails` keeps the best moments; at the
end all inputs' summaries.  Out: one HTML file with all in it (no script, nothing fetched), dark, fit for a phone.
Equal summaries give equal bytes.  All text is escaped: a file's name may be hostile.
"""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor
from pathlib import Path
from urllib.parse import quote

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.overlay import colour, draw
from pipeline.types import UAV, UNKNOWN, Detections, Frame, Track, TrackState

THUMBNAIL_PX = (320, 240)
CONTEXT = 3  # a thumbnail shows at least this many times the target's size
LARGEST_SCALE = 4
FILES = ("annotated.mp4", "tracks.txt", "detections.jsonl", "events.jsonl", "summary.json")
SHOTS = 6  # thumbnails of an input, at most
TABLE_ROWS = 8  # more are folded away
TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
HEAD = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1">
<meta http-equiv=Content-Security-Policy content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Replay report</title><style>
:root{color-scheme:dark;--line:#262d38;--ink:#e6eaf0;--dim:#8f9bad;--bad:#ff6b6b;--good:#4fc38a}
*{box-sizing:border-box} p{margin:6px 0} a{color:#7cb7ff} h1{font-size:24px;margin:0}
body{max-width:1180px;margin:0 auto;padding:24px 16px 48px;background:#0d1117;color:var(--ink)}
body{font:15px/1.5 system-ui,sans-serif} .dim{color:var(--dim);font-variant-numeric:tabular-nums}
h2{font-size:17px;margin:0;overflow-wrap:anywhere}
h2 i{font:600 12px/1 system-ui;padding:3px 8px;border-radius:9px;vertical-align:2px}
.good{color:var(--good);background:#4fc38a1f} i.bad{color:var(--bad);background:#ff6b6b24}
.error{padding:8px 12px;border-radius:4px;overflow-wrap:anywhere}
.error{border-left:3px solid var(--bad);background:#ff6b6b17}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:16px 0}
.tiles>div,section{padding:12px 16px;background:#151b24;border:1px solid var(--line);border-radius:10px}
.tiles>div{color:var(--dim)} .tiles b{display:block;font-size:26px;line-height:1.2;color:#fff}
.tiles>.bad{border-color:var(--bad)} .tiles .bad b{color:var(--bad)}
.chips{margin:2px 0 0} .chips span{display:inline-block;margin-right:12px;font-size:13px;color:var(--ink)}
.tiles>.wide{grid-column:span 2} section{margin:16px 0}
.files a{display:inline-block;padding:1px 10px;margin:2px 4px 2px 0;font-size:14px;text-decoration:none}
.files a{border:1px solid var(--line);border-radius:7px}
.dot{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:6px}
.shots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(46%,190px),1fr));gap:12px;margin:12px 0}
img{display:block;width:100%;aspect-ratio:4/3;object-fit:contain;background:#000;border-radius:6px}
figure{margin:0} figcaption{font-size:13px;margin-top:4px;color:var(--dim)} figcaption b{color:var(--ink)}
.time{display:block;margin:12px 0 6px} .time path{stroke:var(--line)} .time text{fill:var(--dim);font-size:11px}
details{overflow-x:auto} summary{cursor:pointer;color:var(--dim)}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums;white-space:nowrap}
th{text-align:left;color:var(--dim);font-weight:500} td,th{padding:4px 14px 4px 0;border-bottom:1px solid var(--line)}
</style><h1>Replay report</h1>"""


class Percentiles(msgspec.Struct, frozen=True):
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Percentiles":
        """Of at least one sample; to a thousandth."""
        p50, p95, p99 = np.percentile(np.array(samples, float), (50, 95, 99)).round(3).tolist()
        return cls(p50, p95, p99)


class ModelSummary(msgspec.Struct, frozen=True):
    network: str
    sha256: str  # of the checkpoint
    classes: tuple[str, ...]


class TrackSummary(msgspec.Struct, frozen=True):
    """A track that was confirmed, or was labelled as a sure distractor.  Frames are 1-based, as in tracks.txt."""

    id: int
    label: str
    first_frame: int
    last_frame: int
    first_s: float
    last_s: float
    hits: int
    score: float
    first_time_utc: str | None = None
    last_time_utc: str | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """summary.json."""

    source: str
    frames: int  # searched
    tracks: int  # confirmed targets: the ids of tracks.txt
    alerts: int
    first_detection_s: float | None
    latency_ms: dict[str, Percentiles]  # by stage
    model: ModelSummary
    engine: str
    complete: bool  # the input was read to its end, or to the end asked for
    error: str | None = None
    start_s: float = 0.0  # presentation times of the first and the last frame searched
    end_s: float = 0.0
    fps: float | None = None
    size_px: tuple[int, int] | None = None  # width, height
    failed: int = 0  # frames that cannot be decoded; their numbers stay free
    start_time_utc: str | None = None  # wall clock, ISO 8601: as given or as the file says, None where neither does
    end_time_utc: str | None = None
    video_stream: str | None = None  # index in the file (codec, size)
    other_video_streams: tuple[str, ...] = ()  # which were not read
    per_track: tuple[TrackSummary, ...] = ()


@dataclass(frozen=True, slots=True)
class Thumbnail:
    track_id: int
    label: str
    score: float
    pts_s: float
    jpeg: bytes


class Thumbnails:
    """The best moments of an input's targets: of each track the frame of its highest score.

    Kept as JPEG, of `limit` tracks at most: of uav before unknown, then of those with the higher scores.
    """

    def __init__(self, folder: Path, limit: int = SHOTS) -> None:
        """folder: of the input's outputs, DIR/<stem>."""
        self.folder = folder
        self._limit = limit
        self._best: dict[int, Thumbnail] = {}

    def update(self, frame: Frame, detections: Detections, tracks: Iterable[Track]) -> None:
        for track in tracks:
            kept = self._best.get(track.id)
            if track.state is not TrackState.CONFIRMED or not track.is_target or (kept and track.score <= kept.score):
                continue
            if kept is None and len(self._best) >= self._limit:
                worst = min(self._best.values(), key=lambda shot: (shot.label == UAV, shot.score, -shot.track_id))
                if (worst.label == UAV, worst.score) >= (track.label == UAV, track.score):
                    continue
                del self._best[worst.track_id]
            jpeg = _window(frame.pixels, detections, track)
            self._best[track.id] = Thumbnail(track.id, track.label, track.score, frame.ref.pts_s, jpeg)

    def pictures(self) -> list[Thumbnail]:
        """By track, oldest first."""
        return [shot for _, shot in sorted(self._best.items())]


def _window(pixels: NDArray[np.uint8], detections: Detections, track: Track) -> bytes:
    """The target with its surroundings, as JPEG of at most THUMBNAIL_PX."""
    left, top, right, bottom = track.xyxy
    need = CONTEXT * max((right - left) / THUMBNAIL_PX[0], (bottom - top) / THUMBNAIL_PX[1])
    scale, shrink = max(1, int(1 / max(need, 1 / LARGEST_SCALE))), max(1.0, need)
    width, height = (round(side * shrink / scale) for side in THUMBNAIL_PX)
    x = int(max(0, min((left + right - width) / 2, pixels.shape[1] - width)))
    y = int(max(0, min((top + bottom - height) / 2, pixels.shape[0] - height)))
    still = msgspec.structs.replace(track, velocity_px_s=(0.0, 0.0))
    picture = draw(pixels[y : y + height, x : x + width], detections, [still], scale, (x, y), labels=False)
    if shrink > 1:
        size = (ceil(picture.shape[1] / shrink), ceil(picture.shape[0] / shrink))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return jpeg.tobytes()


def write_report(out_dir: Path, inputs: Sequence[tuple[Summary, Thumbnails]]) -> Path:
    """Write DIR/report.html.  Links go to those of an input's files that are there."""
    cards = [_card(number, one, thumbnails) for number, (one, thumbnails) in enumerate(inputs, start=1)]
    page = "\n".join((HEAD, _totals([one for one, _ in inputs]), *cards, ""))
    path, partial = out_dir / "report.html", out_dir / "report.html.partial"
    partial.write_text(page, encoding="utf-8", newline="\n")
    return partial.replace(path)


def _totals(summaries: Sequence[Summary]) -> str:
    broken = [(number, one) for number, one in enumerate(summaries, start=1) if one.error or not one.complete]
    labels = Counter(track.label for one in summaries for track in one.per_track)
    order = sorted(labels, key=lambda label: (label != UAV, label != UNKNOWN, label))
    chips = "".join(f"<span>{_dot(label)}{labels[label]:,} {escape(label)}</span>" for label in order)
    models = sorted({f"{one.model.network} {one.model.sha256[:12]} on {one.engine}" for one in summaries})
    counts = {
        "inputs": len(summaries),
        "frames": sum(one.frames for one in summaries),
        "tracks": labels.total(),
        "alerts": sum(one.alerts for one in summaries),
        "broken inputs": len(broken),
    }
    tiles = [
        f"<div{' class=bad' if name.startswith('broken') and count else ' class=wide' if name == 'tracks' else ''}>"
        f"<b>{count:,}</b>{name}{f'<p class=chips>{chips}' if name == 'tracks' else ''}</div>"
        for name, count in counts.items()
    ]
    errors = [f"<p class=error><a href=#i{number}>{_name(one.source)}</a> {_problem(one)}" for number, one in broken]
    return "\n".join((f"<p class=dim>{escape(' · '.join(models))}<div class=tiles>", *tiles, "</div>", *errors))


def _card(number: int, one: Summary, thumbnails: Thumbnails) -> str:
    good = one.complete and not one.error
    facts = [f"{one.size_px[0]} x {one.size_px[1]}"] if one.size_px else []
    facts += [f"{one.fps:.4g} fps"] if one.fps else []
    facts += [_count(one.frames, "frame"), f"{one.end_s - one.start_s:.1f} s", _count(one.alerts, "alert")]
    facts += [f"{_count(one.failed, 'frame')} cannot be decoded"] if one.failed else []
    facts += [f"from {one.start_time_utc}"] if one.start_time_utc else []
    facts += [f"video stream {one.video_stream}, not {', '.join(one.other_video_streams)}"] * bool(
        one.other_video_streams
    )
    facts += [f"first detection at {one.first_detection_s:.2f} s"] if one.first_detection_s is not None else []
    at = f"./{quote(printable(thumbnails.folder.name), safe='')}"
    links = [f"<a href='{at}/{file}'>{file}</a>" for file in FILES if (thumbnails.folder / file).is_file()]
    labels = {track.id: track.label for track in one.per_track}  # at the end, which may be a bird's
    shots = [_figure(shot) for shot in thumbnails.pictures() if labels.get(shot.track_id, UAV) in (UAV, UNKNOWN)]
    lines = (
        f"<section id=i{number}><h2>{_name(one.source)} "
        f"{'<i class=good>complete' if good else '<i class=bad>broken'}</i></h2>",
        "" if good else f"<p class=error>{_problem(one)}</p>",
        f"<p class=dim>{' · '.join(facts)}<p class=files>{' '.join(links)}",
        f"<div class=shots>{''.join(shots)}</div>" if shots else "",
        _timeline(one) if one.per_track else "<p class=dim>No track was confirmed.",
        _table(one.per_track) if one.per_track else "",
        "</section>",
    )
    return "\n".join(filter(None, lines))


def _figure(shot: Thumbnail) -> str:
    return (
        f"<figure><img alt='' src='data:image/jpeg;base64,{b64encode(shot.jpeg).decode()}'><figcaption>"
        f"{_dot(shot.label)}<b>{escape(shot.label)} #{shot.track_id}</b> {shot.score:.2f} · {shot.pts_s:.2f} s"
        "</figcaption></figure>"
    )


def _problem(one: Summary) -> str:
    told = printable(one.error or "stopped before its end").removeprefix(f"{printable(one.source)}: ")
    return f"{escape(told)} (what {_count(one.frames, 'frame')} gave is kept)"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _name(text: str) -> str:
    """Isolated, so that a name written from right to left, or meant to deceive, cannot turn the line around."""
    return f"<bdi>{escape(printable(text))}</bdi>"


def printable(text: str) -> str:
    """A file's name may hold bytes that are no text, which neither JSON nor HTML can; here they are replaced."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _dot(label: str) -> str:
    return f"<i class=dot style='background:{_css(label)}'></i>"


def _css(label: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour(label))


def _timeline(one: Summary) -> str:
    """All tracks over the time searched, each in the first row that is free.  Positions are shares of the width."""
    start_s = min(one.start_s, *(track.first_s for track in one.per_track))
    span_s = max(one.end_s, *(track.last_s for track in one.per_track)) - start_s or 1.0
    row_ends: list[float] = []
    bars = []
    for track in sorted(one.per_track, key=lambda track: (track.first_s, track.id)):
        width = max(0.4, 100 * (track.last_s - track.first_s) / span_s)
        left = min(100 * (track.first_s - start_s) / span_s, 100 - width)
        row = next((row for row, end in enumerate(row_ends) if end <= left), len(row_ends))
        row_ends[row : row + 1] = [left + width]
        title = f"{track.label} #{track.id}: {track.first_s:.2f} to {track.last_s:.2f} s, score {track.score:.2f}"
        bars.append(
            f"<rect x='{left:.2f}%' y={row * 16 + 3} width='{width:.2f}%' height=12 rx=3 fill='{_css(track.label)}'>"
            f"<title>{escape(title)}</title></rect>"
        )
    height = 16 * len(row_ends) + 4
    step_s = next((step_s for step_s in TICKS_S if span_s / step_s <= 8), span_s)
    ticks_s = [index * step_s for index in range(ceil(start_s / step_s), floor((start_s + span_s) / step_s) + 1)]
    axis = [
        f"<svg x='{100 * share:.2f}%' overflow=visible><path d='M0 0V{height}'/>"
        f"<text y={height + 11} {'x=-3 text-anchor=end' if share > 0.9 else 'x=3'}>{tick_s:.6g} s</text></svg>"
        for tick_s, share in ((tick_s, (tick_s - start_s) / span_s) for tick_s in ticks_s)
    ]
    return f"<svg class=time role=img width=100% height={height + 14}>{''.join(axis + bars)}</svg>"


def _table(tracks: Sequence[TrackSummary]) -> str:
    rows = [
        f"<tr><td>#{one.id}<td>{_dot(one.label)}{escape(one.label)}<td>{one.first_s:.2f} s<td>"
        f"{one.last_s - one.first_s:.2f} s<td>{one.first_frame} to {one.last_frame}<td>{one.hits}<td>{one.score:.2f}"
        for one in tracks
    ]
    head = "<tr><th>track<th>label<th>first seen<th>for<th>frames<th>hits<th>score"
    details = (
        f"<details{' open' if len(tracks) <= TABLE_ROWS else ''}><summary>{_count(len(tracks), 'track')}</summary>"
    )
    return f"{details}<table>{head}{''.join(rows)}</table></details>"
