"""Replay: recordings -> the same stages that the workers run, in one process, every frame, no clock in any result.

Session ids, event ids and times derive from the file's content, the frame number and the presentation time, so the same
machine, engine and version give the same bytes.  Only `summary.json` holds measured times.
"""

import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec

from model.checkpoint import Loaded, load
from model.engine.engine import Engine
from pipeline.capture.images import ImageSequence
from pipeline.capture.recordings import find_recordings, open_recording, source_names
from pipeline.capture.video_file import VideoFile
from pipeline.capture.wall_clock import WallClock, utc_ns
from pipeline.checkpoints import checkpoint_path
from pipeline.config.models import MIN_REGION_PX
from pipeline.errors import ConfigError, DasnetError, SourceError
from pipeline.imaging.overlay import draw
from pipeline.redaction import redact
from pipeline.replay.outputs import (
    DetectionsWriter,
    EventsWriter,
    Header,
    TracksWriter,
    VideoWriter,
    folder_names,
    read_detections,
    write_summary,
)
from pipeline.replay.predict import band_of, named_band
from pipeline.replay.report import ModelSummary, Percentiles, Summary, Thumbnails, TrackSummary, write_report
from pipeline.runtime.progress import ProgressDisplay
from pipeline.segmentation.segmenter import Batch, CameraView, Segmenter
from pipeline.tracking.stage import TrackStage
from pipeline.types import Band, Detections, Event, EventKind, Frame, FrameRef, Track, TrackState

VIDEO_MIN_WIDTH_PX = 640  # smaller pictures are enlarged for people


Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ReplayOptions:
    """What the command line says; see `dasnet replay --help`."""

    checkpoint: Path | None = None
    threshold: float | None = None
    device: str = "auto"
    engine: str = "auto"
    band: str = "auto"
    scale: float | None = None
    ignore: tuple[Polygon, ...] = ()
    region: tuple[int, int, int, int] | None = None
    fps: float | None = None
    stream: int | None = None
    start_utc_ns: int | None = None
    start: int = 0
    end: int | None = None
    stride: int = 1
    video: bool = True
    from_detections: bool = False


def run_replay(paths: Sequence[Path], out: Path, options: ReplayOptions) -> int:
    """Replay all inputs into `out`.  Returns 1 where one of them was broken; the others are done all the same."""
    if options.end is not None and options.end <= options.start:
        raise ConfigError(f"--end {options.end} is not after --start {options.start}")
    if options.band != "auto":
        named_band(options.band)
    if options.from_detections and options.threshold is not None:
        raise ConfigError("--threshold cannot be changed with --from-detections: the masks are already cut")
    if options.from_detections and (options.ignore or options.region):
        raise ConfigError("--ignore and --region cannot be changed with --from-detections: the masks are already cut")
    inputs, failures = _find(paths)
    loaded = load(checkpoint_path(options.checkpoint))
    out.mkdir(parents=True, exist_ok=True)
    names, sources = folder_names(inputs), source_names(inputs, paths)
    summaries: list[tuple[Summary, Thumbnails]] = []
    with Engine(loaded, device=options.device, kind=options.engine) as engine, ProgressDisplay("frames") as progress:
        for number, (path, name, source) in enumerate(zip(inputs, names, sources, strict=True), 1):
            progress.start(name if len(inputs) == 1 else f"{name} ({number} of {len(inputs)})")
            replay = Replay(path, name, source, out / name, loaded, engine, options)
            summary = replay.run(progress.advance)
            summaries.append((summary, replay.thumbnails))
            if summary.other_video_streams:
                others = ", ".join(summary.other_video_streams)
                print(f"{path}: video stream {summary.video_stream}; --stream reads another: {others}", file=sys.stderr)
            if summary.error:
                print(redact(f"error: {summary.error}"), file=sys.stderr)
                failures += 1
    write_report(out, summaries)
    frames = sum(summary.frames for summary, _ in summaries)
    alerts = sum(summary.alerts for summary, _ in summaries)
    print(f"{len(summaries)} recordings, {frames} frames, {alerts} alerts: {out / 'report.html'}")
    return 1 if failures else 0


def polygon(text: str) -> Polygon:
    """`0,0 100,0 100,50`.  Raises ConfigError."""
    try:
        points = tuple((float(x), float(y)) for x, y in (point.split(",") for point in text.split()))
    except ValueError:
        points = ()
    if len(points) < 3:
        raise ConfigError(f"--ignore {text!r}; allowed: three or more points in frame pixels, as in '0,0 100,0 100,50'")
    return points


def region(text: str) -> tuple[int, int, int, int]:
    """`x0,y0,x1,y1`.  Raises ConfigError."""
    try:
        x0, y0, x1, y1 = (int(part) for part in text.split(","))
    except ValueError:
        x0 = y0 = x1 = y1 = 0
    if not (0 <= x0 <= x1 - MIN_REGION_PX and 0 <= y0 <= y1 - MIN_REGION_PX):
        raise ConfigError(f"--region {text!r}; allowed: x0,y0,x1,y1 in frame pixels, {MIN_REGION_PX} or more apart")
    return x0, y0, x1, y1


def start_time(text: str) -> int:
    """ISO 8601 with a time zone, in ns since 1970.  Raises ConfigError."""
    try:
        return utc_ns(text)
    except ValueError:
        raise ConfigError(
            f"--start-time {text!r}: must be an ISO 8601 time with its zone, as in 2026-05-04T03:02:01Z or ...+02:00"
        ) from None


def _find(paths: Sequence[Path]) -> tuple[list[Path], int]:
    inputs: list[Path] = []
    failures = 0
    for path in paths:
        try:
            inputs += find_recordings(path)
        except SourceError as error:
            print(redact(f"error: {error}"), file=sys.stderr)
            failures += 1
    return inputs, failures


class Replay:
    """One input."""

    def __init__(
        self,
        path: Path,
        name: str,
        source: str,
        folder: Path,
        loaded: Loaded,
        engine: Engine,
        options: ReplayOptions,
    ) -> None:
        """`name`: of the folder and the camera.  `source`: what to call the recording."""
        self._path = path
        self._name = name
        self._source = source
        self._folder = folder
        self._engine = engine
        self._options = options
        self._segmenter = Segmenter(
            engine, options.threshold, {name: CameraView(options.scale, options.ignore, options.region)}
        )
        self._metadata = loaded.metadata
        self._stage = TrackStage(self._segmenter.thresholds)
        self._latencies: dict[str, list[float]] = {}
        self._tracks: dict[int, tuple[Track, FrameRef]] = {}  # newest state of each reported track, where it was
        self._first: FrameRef | None = None
        self._last: FrameRef | None = None
        self._fps: float | None = None
        self._size_px: tuple[int, int] | None = None
        self._frames = 0
        self._alerts = 0
        self._first_detection_s: float | None = None
        self._clock = WallClock(options.start_utc_ns)
        self._read: VideoFile | ImageSequence | None = None  # None: tracked again from stored detections
        self._session = content_id(path)
        self.thumbnails = Thumbnails(folder)

    def run(self, advance: Callable[[int, int | None], None]) -> Summary:
        self._folder.mkdir(parents=True, exist_ok=True)
        error = None
        with TracksWriter(self._folder / "tracks.txt") as tracks, EventsWriter(self._folder / "events.jsonl") as events:
            self._tracks_writer, self._events_writer = tracks, events
            try:
                if self._options.from_detections:
                    self._from_detections(advance)
                else:
                    self._from_pictures(advance)
            except DasnetError as caught:
                error = str(caught)
            closing = self._stage.close(self._name)
            if closing is not None:
                self._record(closing.tracks, closing.events)
        summary = self._summary(error)
        write_summary(self._folder / "summary.json", summary)
        return summary

    def _from_detections(self, advance: Callable[[int, int | None], None]) -> None:
        header, stored = read_detections(self._folder / "detections.jsonl")
        self._session = header.session
        self._fps, self._size_px = header.fps, (header.width, header.height)
        if self._options.start_utc_ns is None:
            self._clock = WallClock(header.start_utc_ns)
        for detections in stored:
            self._follow(detections)
            advance(self._frames, header.frames)

    def _from_pictures(self, advance: Callable[[int, int | None], None]) -> None:
        source = self._read = open_recording(self._path, self._options.fps, stream=self._options.stream)
        total = self._total(source.stated_count)
        if self._clock.start_utc_ns is None and isinstance(source, VideoFile):
            self._clock = WallClock(source.created_utc_ns)
        try:
            frames = self._pictures(source)
            first = next(frames, None)
            if first is None:
                raise SourceError(f"{self._path}: no frame from {self._options.start} on; allowed: a smaller --start")
            self._size_px = first.size_px
            self._fps = source.fps or None
            enlarge = -(-VIDEO_MIN_WIDTH_PX // first.size_px[0])
            with ExitStack() as stack:
                header = self._header(first, self._fps, total)
                writer = stack.enter_context(DetectionsWriter(self._folder / "detections.jsonl", header))
                video = None
                if self._options.video:
                    video = stack.enter_context(VideoWriter(self._folder / "annotated.mp4", self._fps))
                for frame, detections in self._segment(chain([first], frames)):
                    writer.write(detections)
                    tracks, seen = self._follow(detections)
                    self.thumbnails.update(frame, detections, seen)
                    if video is not None:
                        video.write(draw(frame.pixels, detections, tracks, scale=enlarge), detections.ref.pts_s)
                    advance(self._frames, total)
        finally:
            source.close()

    def _pictures(self, source: VideoFile | ImageSequence) -> Iterator[Frame]:
        """The frames that are asked for, with the source's own numbers and times."""
        options = self._options
        band: Band | None = None
        for picture in source.frames():
            number = picture.number
            if options.end is not None and number >= options.end:
                break
            if number < options.start or (number - options.start) % options.stride:
                continue
            if band is None:
                band = band_of(picture.pixels, options.band)
            self._measured("decode", picture.decode_ns)
            time_ns = round(picture.pts_s * 1e9)
            ref = FrameRef(self._name, self._session, number, picture.pts_s, time_ns, time_ns)
            yield Frame(ref, band, picture.pixels)

    def _segment(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        """A recording fills its batches by itself.  When the source breaks, what was read is still delivered."""
        size = 16 if self._engine.device.type == "cuda" else 1
        flying: deque[Batch] = deque()
        waiting: list[Frame] = []
        broken: SourceError | None = None
        iterator = iter(frames)
        while True:
            frame = None
            try:
                frame = next(iterator, None)
            except SourceError as error:
                broken = error
            if frame is not None:
                waiting.append(frame)
            if waiting and (frame is None or len(waiting) >= size):
                flying += self._segmenter.submit(waiting)
                waiting = []
            # One batch is measured, tracked and drawn while the engine has as many as it takes.
            while flying and (frame is None or len(flying) > self._engine.max_in_flight):
                yield from self._finish(flying.popleft())
            if frame is None:
                break
        if broken is not None:
            raise broken

    def _finish(self, batch: Batch) -> Iterator[tuple[Frame, Detections]]:
        detections = self._segmenter.finish(batch)
        self._measured("inference", (batch.inferred_ns - batch.started_ns) // len(detections))
        self._measured("mask", (time.monotonic_ns() - max(batch.inferred_ns, batch.started_ns)) // len(detections))
        yield from zip(batch.frames, detections, strict=True)

    def _follow(self, detections: Detections) -> tuple[list[Track], list[Track]]:
        """Track and alert one frame.  Returns all tracks, and those of targets that are confirmed and seen in it."""
        outcome = self._stage.update(detections)
        tracks = outcome.tracks
        self._measured("track", outcome.track_ns)
        self._measured("alert", outcome.alert_ns)
        self._frames += 1
        self._first, self._last = self._first or detections.ref, detections.ref
        if len(detections) and self._first_detection_s is None:
            self._first_detection_s = detections.ref.pts_s
        seen = [track for track in tracks if track.state is TrackState.CONFIRMED and track.is_target]
        self._tracks_writer.write(detections.ref, seen)
        self._record(tracks, outcome.events)
        return tracks, seen

    def _record(self, tracks: Sequence[Track], events: Sequence[Event]) -> None:
        for event in events:
            self._events_writer.write(self._timed(event))
            if event.track is not None and event.kind is not EventKind.TRACK_LOST:
                self._tracks.setdefault(event.track.id, (event.track, event.track.last_seen))
                self._alerts += event.kind is EventKind.TRACK_CONFIRMED
        for track in tracks:
            if track.id in self._tracks:
                self._tracks[track.id] = (track, self._tracks[track.id][1])

    def _timed(self, event: Event) -> Event:
        """With its wall-clock time, where that is known.  Its id does not depend on it."""
        time_ns, text = self._clock.time_ns(event.pts_s), self._clock.text(event.pts_s)
        return event if time_ns is None else msgspec.structs.replace(event, time_utc_ns=time_ns, time_utc=text)

    def _measured(self, stage: str, duration_ns: int) -> None:
        self._latencies.setdefault(stage, []).append(duration_ns / 1e6)

    def _total(self, count: int | None) -> int | None:
        if count is None:
            return None
        options = self._options
        end = count if options.end is None else min(count, options.end)
        return max(0, -(-(end - options.start) // options.stride))

    def _header(self, first: Frame, fps: float | None, frames: int | None) -> Header:
        return Header(
            source=self._source,
            camera=self._name,
            session=self._session,
            band=first.band,
            width=first.size_px[0],
            height=first.size_px[1],
            fps=fps,
            frames=frames,
            classes=self._metadata.detected_classes,
            checkpoint=self._metadata.sha256,
            engine=self._engine.name,
            threshold=self._segmenter.thresholds[first.band].threshold,
            start=self._options.start,
            end=self._options.end,
            stride=self._options.stride,
            start_utc_ns=self._clock.start_utc_ns,
        )

    def _summary(self, error: str | None) -> Summary:
        told = sorted(self._tracks.values(), key=lambda entry: entry[0].id)
        metadata = self._metadata
        read = self._read
        start_s, end_s = (ref.pts_s if ref else 0.0 for ref in (self._first, self._last))
        return Summary(
            source=self._source,
            frames=self._frames,
            failed=read.lost if read else 0,
            tracks=self._alerts,
            alerts=self._alerts,
            first_detection_s=self._first_detection_s,
            latency_ms={stage: Percentiles.of(values) for stage, values in self._latencies.items()},
            model=ModelSummary(metadata.network, metadata.sha256, metadata.detected_classes),
            engine=self._engine.name,
            complete=error is None,
            error=error,
            start_s=start_s,
            end_s=end_s,
            start_time_utc=self._clock.text(start_s) if self._first else None,
            end_time_utc=self._clock.text(end_s) if self._last else None,
            fps=self._fps,
            size_px=self._size_px,
            video_stream=read.stream if isinstance(read, VideoFile) else None,
            other_video_streams=tuple(read.other_streams) if isinstance(read, VideoFile) else (),
            per_track=tuple(self._describe(track, reported) for track, reported in told),
        )

    def _describe(self, track: Track, reported: FrameRef) -> TrackSummary:
        """A track as it was at its end, from the frame that reported it on."""
        return TrackSummary(
            id=track.id,
            label=track.label,
            first_frame=reported.seq + 1,
            last_frame=track.last_seen.seq + 1,
            first_s=reported.pts_s,
            last_s=track.last_seen.pts_s,
            hits=track.hits,
            score=track.score,
            first_time_utc=self._clock.text(reported.pts_s),
            last_time_utc=self._clock.text(track.last_seen.pts_s),
        )


def content_id(path: Path) -> str:
    """16 hex digits of what the recording holds: a file's bytes, or the names and bytes of a sequence's pictures."""
    digest = hashlib.sha256()
    folder = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else sorted(file for file in folder.iterdir() if file.is_file())
    for file in files:
        if path.is_dir():
            digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
