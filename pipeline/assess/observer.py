"""The main thread of an assessment: frames of all cameras through segmentation and tracking, until the time is over."""

import threading
import time
from contextlib import suppress

from model.engine.engine import Engine
from model.errors import ModelError
from pipeline.assess.feeds import Feeds
from pipeline.assess.observations import CameraObservation
from pipeline.assess.options import AssessOptions
from pipeline.assess.records import Records
from pipeline.assess.watch import CameraWatch
from pipeline.config.models import Config
from pipeline.errors import DasnetError, StoreError
from pipeline.runtime.progress import ProgressDisplay
from pipeline.segmentation.segmenter import Segmenter, views_of
from pipeline.tracking.policy import Policy
from pipeline.tracking.stage import TrackStage
from pipeline.types import Frame

POLL_S = 0.2


class Observer:
    """Observe all cameras of a site.

    Args:
        config: the site.
        options: hours, seed and rate of encounters.
        engine: the inference engine.
        records: where events and snapshots are stored.

    Attributes:
        stop: ends the observation when it is set.
    """

    def __init__(self, config: Config, options: AssessOptions, engine: Engine, records: Records) -> None:
        self.stop = threading.Event()
        self._limit_s = 3600 * options.hours
        self._cameras = config.cameras
        self._segmenter = Segmenter(engine, config.model.threshold, views_of(config.cameras))
        # As `run` will treat the cameras with the calibrations that come out of this.
        policies = {camera.id: Policy(config.model.role, calibrated=True) for camera in config.cameras}
        self._stage = TrackStage(self._segmenter.thresholds, policies)
        self._watches = {
            camera.id: CameraWatch(camera, options.seed, options.encounters_per_hour, records)
            for camera in config.cameras
        }
        self._started_s = time.monotonic()
        self._feeds = Feeds(config.cameras)

    def run(self, progress: ProgressDisplay) -> DasnetError | ModelError | OSError | None:
        """Observe until the time is over, all recordings are, or `stop` is set; return what ended it early."""
        progress.start(f"{len(self._cameras)} cameras" if len(self._cameras) > 1 else self._cameras[0].id)
        try:
            while not self.stop.is_set() and not self._feeds.are_finished:
                items = self._feeds.take(POLL_S)
                for item in items:
                    if item.frame is None:
                        self._lose(item.camera)
                self._process([item.frame for item in items if item.frame is not None])
                progress.advance(round(self._end_due()), round(self._limit_s))
        except (DasnetError, ModelError, OSError) as error:
            return error
        return None

    def close(self) -> list[CameraObservation]:
        """End all feeds and sessions, and return what was observed of each camera."""
        self._feeds.close()
        observations = []
        for camera in self._cameras:
            with suppress(StoreError):  # which ended the observation already
                self._lose(camera.id)
            feed = self._feeds.by_camera[camera.id]
            observations.append(
                self._watches[camera.id].observation(feed.dropped, feed.error, self._segmenter.usual_noise(camera.id))
            )
        return observations

    def _process(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._watches[frame.ref.camera].prepare(frame, self._segmenter, self._stage)
        seeded = []
        batch = self._segmenter.submit(frames)
        for frame, detections in zip(frames, self._segmenter.finish(batch), strict=True):
            watch = self._watches[frame.ref.camera]
            outcome = self._stage.update(detections)
            watch.observe(frame, detections, outcome)
            pasted = watch.seeded(frame, detections)
            if pasted is not None:
                stream, copy = pasted
                seeded.append((stream, stream.segmenter.submit([copy]), outcome.tracks))
        for stream, batch, tracks in seeded:
            for detections in stream.segmenter.finish(batch):
                stream.update(detections, tracks)

    def _end_due(self) -> float:
        """End the feeds whose time is over; return the seconds that the slowest of the others has behind it."""
        elapsed_s = time.monotonic() - self._started_s
        behind_s = []
        for camera in self._cameras:
            done_s = elapsed_s if camera.is_live else self._watches[camera.id].observed_s
            if done_s >= self._limit_s:
                self._feeds.stop(camera.id)
            elif not self._feeds.by_camera[camera.id].ended:
                behind_s.append(done_s)
        return min(behind_s, default=self._limit_s)

    def _lose(self, camera: str) -> None:
        self._watches[camera].lost(self._stage.close(camera))
