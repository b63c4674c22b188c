"""One camera's assessment: its frames and their results in, alarms, encounters and hours out.

The camera's own stream counts alarms; during an encounter a fork of its stages sees a copy with a drone in it.
"""

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.alerting.snapshots import with_snapshot_names
from pipeline.assess.drones import read_drones
from pipeline.assess.encounters import Encounter, place, schedule
from pipeline.assess.observations import Alarm, CameraObservation, SeededEncounter, log_odds
from pipeline.assess.records import Records
from pipeline.assess.seeded import SeededStream
from pipeline.capture.image_health import ImageHealthMonitor
from pipeline.config.camera import Camera
from pipeline.segmentation.segmenter import CameraView, Segmenter
from pipeline.tracking.stage import Outcome, TrackStage
from pipeline.types import Detections, EventKind, Frame

MAX_GAP_S = 1.0  # between two frames of observation: a longer one is not observed
GRID_COLUMNS = 32  # of the noise map
MAX_SNAPSHOTS = 1000  # per camera


class CameraWatch:
    """Gather what one camera shows.

    Args:
        camera: its configuration.
        seed: of the encounters.
        per_hour: encounters an hour.
        records: where events and snapshots are stored.
    """

    def __init__(self, camera: Camera, seed: int, per_hour: float, records: Records) -> None:
        self.observed_s = 0.0
        self._camera = camera
        self._view = CameraView(camera.scale, camera.ignore, camera.region)
        self._seed, self._per_hour, self._records = seed, per_hour, records
        self._drones = tuple(drone for drone in read_drones() if drone.band == camera.band)
        self._next = self._scheduled(0)
        self._stream: SeededStream | None = None
        self._encounters: list[SeededEncounter] = []
        self._alarms: dict[str, Alarm] = {}  # by id
        self._open: dict[int, str] = {}  # track -> id of its alarm, which may span several
        self._health = ImageHealthMonitor() if camera.is_live else None
        self._is_blind = False
        self._last_s: float | None = None
        self._blind_s = 0.0
        self._frames = 0
        self._size_px: tuple[int, int] | None = None

    def prepare(self, frame: Frame, segmenter: Segmenter, stage: TrackStage) -> None:
        """Begin an encounter that is due, before the stages see its first frame."""
        pts_s = frame.ref.pts_s
        if self._stream is not None and self._stream.is_over(pts_s):
            self._end_encounter()
        if self._stream is not None or pts_s < self._next.start_s:
            return
        encounter = self._next
        while self._next.start_s <= pts_s:  # those that fell into a gap are skipped
            encounter, self._next = self._next, self._scheduled(self._next.number + 1)
        path = place(encounter, self._view.roi(frame.size_px), self._view.ignore)
        if path is not None and not self._is_blind and pts_s - encounter.start_s < MAX_GAP_S:
            camera = self._camera.id
            self._stream = SeededStream(encounter, path, frame, segmenter.fork(camera), stage.fork(camera))

    def observe(self, frame: Frame, detections: Detections, outcome: Outcome) -> None:
        """Add a frame of the camera's own stream."""
        self._add_time(frame)
        self._frames += 1
        self._size_px = frame.size_px
        if outcome.events:
            self._add_events(frame, detections, outcome)
        for track in outcome.tracks:
            alarm = self._alarms.get(self._open.get(track.id, ""))
            if alarm is not None and track.is_target:
                highest = max(alarm.log_odds, round(log_odds(track.score), 3))
                self._alarms[alarm.id] = msgspec.structs.replace(alarm, log_odds=highest)

    def seeded(self, frame: Frame, detections: Detections) -> tuple[SeededStream, Frame] | None:
        """Return the current encounter and the frame with its drone, or None."""
        if self._stream is None:
            return None
        return self._stream, self._stream.frame(frame, detections.camera_shift_px)

    def lost(self, outcome: Outcome | None) -> None:
        """End the session: the camera was lost, or the assessment ends."""
        self._stream, self._last_s = None, None
        self._open.clear()
        if self._camera.is_live:
            self._health, self._is_blind = ImageHealthMonitor(), False
        if outcome is not None:
            self._records.append(outcome.events)

    def observation(
        self, dropped: int, error: str | None, usual_noise: NDArray[np.float32] | None
    ) -> CameraObservation:
        """Return all that was gathered."""
        return CameraObservation(
            id=self._camera.id,
            band=self._camera.band,
            frame_size_px=self._size_px,
            observed_s=round(self.observed_s, 3),
            blind_s=round(self._blind_s, 3),
            frames=self._frames,
            dropped=dropped,
            error=error,
            alarms=list(self._alarms.values()),
            encounters=self._encounters,
            noise_map=_grid(usual_noise, self._size_px),
        )

    def _scheduled(self, number: int) -> Encounter:
        return schedule(self._seed, self._camera.id, number, self._per_hour, self._drones)

    def _end_encounter(self) -> None:
        result = self._stream.result() if self._stream else None
        self._stream = None
        if result is not None:
            self._encounters.append(result)

    def _add_time(self, frame: Frame) -> None:
        pts_s, before_s = frame.ref.pts_s, self._last_s
        self._last_s = pts_s
        if self._health is not None:
            self._is_blind = self._health.update(frame.pixels, pts_s) is not None
        if self._is_blind:
            self._stream = None
        if before_s is not None and 0 < pts_s - before_s <= MAX_GAP_S:
            if self._is_blind:
                self._blind_s += pts_s - before_s
            else:
                self.observed_s += pts_s - before_s

    def _add_events(self, frame: Frame, detections: Detections, outcome: Outcome) -> None:
        events = outcome.events
        if len(self._alarms) < MAX_SNAPSHOTS:
            events = with_snapshot_names(events, frame.ref.camera)
        for event in events:
            if event.track is None or event.alert is None:
                continue
            if event.kind is EventKind.TRACK_LOST:
                self._open.pop(event.track.id, None)
            elif event.kind is EventKind.TRACK_CONFIRMED:
                self._open[event.track.id] = event.alert
            elif event.kind is EventKind.ALERT_OPENED:
                self._alarms[event.alert] = Alarm(
                    id=event.alert,
                    camera=event.camera,
                    time_utc_ns=event.time_utc_ns,
                    time_s=round(self.observed_s, 3),
                    severity=event.severity,
                    label=event.track.label,
                    log_odds=round(log_odds(event.track.score), 3),
                    snapshot=event.snapshot,
                )
        self._records.append(events)
        self._records.write_snapshots(frame, detections, events)


def _grid(noise: NDArray[np.float32] | None, size_px: tuple[int, int] | None) -> list[list[float]]:
    """Return the noise on a coarse grid, which a person can read and a file can hold."""
    if noise is None or size_px is None:
        return [[0.0]]
    size = GRID_COLUMNS, max(1, round(GRID_COLUMNS * size_px[1] / size_px[0]))
    return [[round(float(value), 3) for value in row] for row in cv2.resize(noise, size, interpolation=cv2.INTER_AREA)]
