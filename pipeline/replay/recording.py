"""Replay of one recording: the stages of the workers in one process, for every frame, with no clock in any result.

Session ids, event ids and times derive from the file's content, the frame number and the presentation time, so the same
host, engine and version give the same bytes.  Only `summary.json` contains measured times.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.checkpoint import Loaded
from model.engine.engine import Engine
from pipeline.capture.images import ImageSequence
from pipeline.capture.recordings import open_recording
from pipeline.capture.video_file import VideoFile
from pipeline.capture.wall_clock import WallClock
from pipeline.config.calibration import read_calibration
from pipeline.errors import DasnetError, SourceError
from pipeline.imaging.band import band_of
from pipeline.imaging.overlay import draw
from pipeline.replay.geojson import write_geojson
from pipeline.replay.options import ReplayOptions
from pipeline.replay.outputs import (
    DetectionsWriter,
    EventsWriter,
    Header,
    TracksWriter,
    read_detections,
    write_summary,
)
from pipeline.replay.stills import Stills
from pipeline.replay.summary import Recorder, Summary
from pipeline.replay.thumbnails import Thumbnails
from pipeline.replay.track_table import TrackTableWriter
from pipeline.replay.video import VideoWriter
from pipeline.segmentation.batch import Batch
from pipeline.segmentation.segmenter import CameraView, Segmenter
from pipeline.tracking.camera_settings import calibrated_policy, orientation
from pipeline.tracking.stage import Outcome, TrackStage
from pipeline.types import Band, Detections, Event, Frame, FrameRef, Track, TrackState

VIDEO_MIN_WIDTH_PX = 640  # smaller frames are enlarged in annotated.mp4
GPU_BATCH = 16

Advance = Callable[[int, int | None], None]
"""Called with the frames so far and their total number, if that is known."""
Transform = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Changes the pixels of a decoded frame, HxWx3 RGB or HxW."""


class Replay:
    """The replay of one input.

    Args:
        path: of the recording.
        name: of the output folder and of the camera.
        source: name of the recording in the outputs.
        folder: of the outputs.
        loaded: the checkpoint.
        engine: the inference engine, with this checkpoint.
        options: the command-line options.
        transform: changes every frame before it is segmented; default: none.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        source: str,
        folder: Path,
        loaded: Loaded,
        engine: Engine,
        options: ReplayOptions,
        transform: Transform | None = None,
    ) -> None:
        self.thumbnails = Thumbnails(folder)
        self._path, self._name, self._source, self._folder = path, name, source, folder
        self._metadata = loaded.metadata
        self._engine = engine
        self._options = options
        self._transform = transform
        calibration = read_calibration(options.calibration) if options.calibration else None
        noise = np.array(calibration.noise_map, np.float32) if calibration else None
        view = CameraView(options.scale, options.ignore, options.region, noise)
        self._segmenter = Segmenter(engine, options.threshold, {name: view})
        self._segmenter.share = options.share
        policies = {name: calibrated_policy(calibration)} if calibration else {}
        orientations = {name: orientation(options.pose)} if options.pose else {}
        self._stage = TrackStage(self._segmenter.thresholds, policies, orientations)
        self._stills = Stills(folder)
        self._recorder = Recorder()
        self._clock = WallClock(options.start_utc_ns)
        self._session = content_id(path)
        self._recording: VideoFile | ImageSequence | None = None  # None: replayed from stored detections

    def run(self, advance: Advance) -> Summary:
        """Replay the input and write its outputs; an error is part of the summary."""
        self._folder.mkdir(parents=True, exist_ok=True)
        error = None
        with (
            TracksWriter(self._folder / "tracks.txt") as self._tracks_writer,
            TrackTableWriter(self._folder / "tracks.csv") as self._track_table,
            EventsWriter(self._folder / "events.jsonl") as self._events_writer,
        ):
            try:
                if self._options.from_detections:
                    self._from_detections(advance)
                else:
                    self._from_frames(advance)
            except DasnetError as caught:
                error = str(caught)
            closing = self._stage.close(self._name)
            if closing is not None:
                self._record(closing.tracks, closing.events)
        write_geojson(self._folder, self._options.pose, self._recorder.size_px)
        summary = self._summary(error)
        write_summary(self._folder / "summary.json", summary)
        return summary

    def _summary(self, error: str | None) -> Summary:
        recording = self._recording
        video = recording if isinstance(recording, VideoFile) else None
        return self._recorder.summary(
            self._source,
            self._metadata,
            self._engine.name,
            self._clock,
            error=error,
            failed=recording.lost if recording else 0,
            video_stream=video.stream if video else None,
            other_video_streams=tuple(video.other_streams) if video else (),
        )

    def _from_detections(self, advance: Advance) -> None:
        header, stored = read_detections(self._folder / "detections.jsonl")
        self._session = header.session
        self._recorder.fps, self._recorder.size_px = header.fps, (header.width, header.height)
        if self._options.start_utc_ns is None:
            self._clock = WallClock(header.start_utc_ns)
        for detections in stored:
            self._track(detections)
            advance(self._recorder.frames, header.frames)

    def _from_frames(self, advance: Advance) -> None:
        options = self._options
        self._stills.clear()
        recording = self._recording = open_recording(self._path, options.fps, stream=options.stream)
        total = options.frame_count(recording.stated_count)
        if self._clock.start_utc_ns is None and isinstance(recording, VideoFile):
            self._clock = WallClock(recording.created_utc_ns)
        try:
            frames = self._frames(recording)
            first = next(frames, None)
            if first is None:
                raise SourceError(f"{self._path}: no frame from {options.start} on; must be a smaller --start")
            self._recorder.size_px, self._recorder.fps = first.size_px, recording.fps or None
            with ExitStack() as stack:
                header = self._header(first, total)
                writer = stack.enter_context(DetectionsWriter(self._folder / "detections.jsonl", header))
                video = None
                if options.video:
                    video = stack.enter_context(VideoWriter(self._folder / "annotated.mp4", header.fps))
                enlarge = -(-VIDEO_MIN_WIDTH_PX // first.size_px[0])
                for frame, detections in self._segment(chain([first], frames)):
                    writer.write(detections)
                    outcome, visible = self._track(detections)
                    self.thumbnails.update(frame, detections, visible)
                    self._stills.update(frame, detections, outcome.tracks, outcome.events)
                    if video is not None:
                        video.write(draw(frame.pixels, detections, outcome.tracks, scale=enlarge), detections.ref.pts_s)
                    advance(self._recorder.frames, total)
        finally:
            recording.close()

    def _frames(self, recording: VideoFile | ImageSequence) -> Iterator[Frame]:
        """Yield the selected frames with the recording's own numbers and times."""
        band: Band | None = None
        for decoded in recording.frames():
            if self._options.end is not None and decoded.number >= self._options.end:
                break
            if not self._options.selects(decoded.number):
                continue
            if band is None:
                band = band_of(decoded.pixels, self._options.band)
            self._recorder.add_duration("decode", decoded.decode_ns)
            time_ns = round(decoded.pts_s * 1e9)
            ref = FrameRef(self._name, self._session, decoded.number, decoded.pts_s, time_ns, time_ns)
            yield Frame(ref, band, self._transform(decoded.pixels) if self._transform else decoded.pixels)

    def _segment(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Detections]]:
        """Segment the frames in full batches.  When the recording breaks, frames that were read are still yielded."""
        size = GPU_BATCH if self._engine.device.type == "cuda" else 1
        in_flight: deque[Batch] = deque()
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
                in_flight.append(self._segmenter.submit(waiting))
                waiting = []
            # One batch is measured, tracked and drawn while the engine has as many as it takes.
            while in_flight and (frame is None or len(in_flight) > self._engine.max_in_flight):
                yield from self._finish(in_flight.popleft())
            if frame is None:
                break
        if broken is not None:
            raise broken

    def _finish(self, batch: Batch) -> Iterator[tuple[Frame, Detections]]:
        detections = self._segmenter.finish(batch)
        count, done_ns = len(detections), time.monotonic_ns()
        self._recorder.add_duration("inference", (batch.inferred_ns - batch.started_ns) // count)
        self._recorder.add_duration("mask", (done_ns - max(batch.inferred_ns, batch.started_ns)) // count)
        yield from zip(batch.frames, detections, strict=True)

    def _track(self, detections: Detections) -> tuple[Outcome, list[Track]]:
        """Track and alert one frame; return the outcome, and the tracks of confirmed targets visible in it."""
        outcome = self._stage.update(detections)
        self._recorder.add_duration("track", outcome.track_ns)
        self._recorder.add_duration("alert", outcome.alert_ns)
        self._recorder.add_frame(detections)
        visible = [track for track in outcome.tracks if track.state is TrackState.CONFIRMED and track.is_target]
        self._tracks_writer.write(detections.ref, visible)
        self._track_table.write(detections.ref, self._clock.text(detections.ref.pts_s), outcome.tracks)
        self._record(outcome.tracks, outcome.events)
        return outcome, visible

    def _record(self, tracks: Sequence[Track], events: Sequence[Event]) -> None:
        for event in events:
            self._events_writer.write(self._timed(event))
        self._recorder.add_tracks(tracks, events)

    def _timed(self, event: Event) -> Event:
        """Add the wall-clock time to an event, where that is known; the event's id does not depend on it."""
        time_ns, text = self._clock.time_ns(event.pts_s), self._clock.text(event.pts_s)
        return event if time_ns is None else msgspec.structs.replace(event, time_utc_ns=time_ns, time_utc=text)

    def _header(self, first: Frame, frames: int | None) -> Header:
        return Header(
            source=self._source,
            camera=self._name,
            session=self._session,
            band=first.band,
            width=first.size_px[0],
            height=first.size_px[1],
            fps=self._recorder.fps,
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


def content_id(path: Path) -> str:
    """Return 16 hex digits of a recording's content: a file's bytes, or the names and bytes of a sequence's images."""
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
