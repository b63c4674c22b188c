"""The summary of one replayed input: what its summary.json contains, and how it is gathered from frame to frame.

In: the stages' results for each frame.  Out: a Summary.  Pure: all durations are given.
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from model.metadata import Metadata
from pipeline.capture.wall_clock import WallClock
from pipeline.types import Detections, Event, EventKind, FrameRef, Track


class Percentiles(msgspec.Struct, frozen=True):
    """Percentiles of a stage's durations."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Percentiles":
        """Return the percentiles of one sample or more, rounded to a thousandth."""
        p50, p95, p99 = np.percentile(np.array(samples, float), (50, 95, 99)).round(3).tolist()
        return cls(p50, p95, p99)


class ModelSummary(msgspec.Struct, frozen=True):
    """The checkpoint: its network, its SHA-256 and the classes that it detects."""

    network: str
    sha256: str
    classes: tuple[str, ...]


class TrackSummary(msgspec.Struct, frozen=True):
    """A track that was confirmed or labelled as a distractor.  Frame numbers are 1-based, as in tracks.txt."""

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
    first_sighting_frame: int | None = None  # before it was confirmed
    first_sighting_s: float | None = None
    first_sighting_time_utc: str | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The content of summary.json.

    Attributes:
        source: name of the recording.
        frames: number of frames segmented.
        tracks: number of confirmed targets, the ids of tracks.txt.
        alerts: number of alerts; one may span several tracks.
        first_detection_s: presentation time of the first detection.
        latency_ms: durations by stage.
        model: the checkpoint.
        engine: name of the inference engine.
        complete: True if the input was read to its end, or to the end given.
        error: why it was not.
        start_s: presentation time of the first frame segmented.
        end_s: presentation time of the last one.
        fps: nominal frame rate.
        size_px: width and height.
        failed: number of undecodable frames, which keep their numbers.
        start_time_utc: wall-clock time of the first frame in ISO 8601; None if unknown.
        end_time_utc: the same of the last one.
        video_stream: the stream that was read: index in the file (codec, size).
        other_video_streams: those that were not read.
        per_track: the tracks, by id.
    """

    source: str
    frames: int
    tracks: int
    alerts: int
    first_detection_s: float | None
    latency_ms: dict[str, Percentiles]
    model: ModelSummary
    engine: str
    complete: bool
    error: str | None = None
    start_s: float = 0.0
    end_s: float = 0.0
    fps: float | None = None
    size_px: tuple[int, int] | None = None
    failed: int = 0
    start_time_utc: str | None = None
    end_time_utc: str | None = None
    video_stream: str | None = None
    other_video_streams: tuple[str, ...] = ()
    per_track: tuple[TrackSummary, ...] = ()


class Recorder:
    """Gathers the summary of one input.

    Attributes:
        frames: number of frames segmented so far.
        fps: nominal frame rate, once known.
        size_px: width and height, once known.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.fps: float | None = None
        self.size_px: tuple[int, int] | None = None
        self._confirmed = self._alerts = 0
        self._first_detection_s: float | None = None
        self._first: FrameRef | None = None
        self._last: FrameRef | None = None
        self._durations_ms: dict[str, list[float]] = {}
        self._tracks: dict[int, tuple[Track, FrameRef]] = {}  # newest state, and the frame that reported it first

    def add_duration(self, stage: str, duration_ns: int) -> None:
        """Add how long a stage took for a frame."""
        self._durations_ms.setdefault(stage, []).append(duration_ns / 1e6)

    def add_frame(self, detections: Detections) -> None:
        """Add a segmented frame."""
        self.frames += 1
        self._first, self._last = self._first or detections.ref, detections.ref
        if len(detections) and self._first_detection_s is None:
            self._first_detection_s = detections.ref.pts_s

    def add_tracks(self, tracks: Iterable[Track], events: Iterable[Event]) -> None:
        """Add the tracks and events after a frame; only tracks with an event are summarised."""
        for event in events:
            self._confirmed += event.kind is EventKind.TRACK_CONFIRMED
            self._alerts += event.kind is EventKind.ALERT_OPENED
            if event.track is not None and event.kind in (EventKind.TRACK_CONFIRMED, EventKind.TRACK_LABELLED):
                self._tracks.setdefault(event.track.id, (event.track, event.track.last_seen))
        for track in tracks:
            if track.id in self._tracks:
                self._tracks[track.id] = (track, self._tracks[track.id][1])

    def summary(
        self,
        source: str,
        metadata: Metadata,
        engine: str,
        clock: WallClock,
        *,
        error: str | None = None,
        failed: int = 0,
        video_stream: str | None = None,
        other_video_streams: tuple[str, ...] = (),
    ) -> Summary:
        """Return the summary of all that was added."""
        start_s, end_s = (ref.pts_s if ref else 0.0 for ref in (self._first, self._last))
        return Summary(
            source=source,
            frames=self.frames,
            failed=failed,
            tracks=self._confirmed,
            alerts=self._alerts,
            first_detection_s=self._first_detection_s,
            latency_ms={stage: Percentiles.of(values) for stage, values in self._durations_ms.items()},
            model=ModelSummary(metadata.network, metadata.sha256, metadata.detected_classes),
            engine=engine,
            complete=error is None,
            error=error,
            start_s=start_s,
            end_s=end_s,
            start_time_utc=clock.text(start_s) if self._first else None,
            end_time_utc=clock.text(end_s) if self._last else None,
            fps=self.fps,
            size_px=self.size_px,
            video_stream=video_stream,
            other_video_streams=other_video_streams,
            per_track=tuple(_summarised(*self._tracks[number], clock) for number in sorted(self._tracks)),
        )


def printable(text: str) -> str:
    """Replace the bytes of a file name that are not text, which neither JSON nor HTML can contain."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def printable_summary(summary: Summary) -> Summary:
    """Return a summary whose texts can be encoded."""
    error = printable(summary.error) if summary.error is not None else None
    return msgspec.structs.replace(summary, source=printable(summary.source), error=error)


def _summarised(track: Track, reported: FrameRef, clock: WallClock) -> TrackSummary:
    """Summarise a track in its last state, from the frame that reported it on."""
    return TrackSummary(
        id=track.id,
        label=track.label,
        first_frame=reported.seq + 1,
        last_frame=track.last_seen.seq + 1,
        first_s=reported.pts_s,
        last_s=track.last_seen.pts_s,
        hits=track.hits,
        score=track.score,
        first_time_utc=clock.text(reported.pts_s),
        last_time_utc=clock.text(track.last_seen.pts_s),
        first_sighting_frame=track.first_seen.seq + 1,
        first_sighting_s=track.first_seen.pts_s,
        first_sighting_time_utc=clock.text(track.first_seen.pts_s),
    )
