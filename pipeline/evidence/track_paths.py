"""Where the tracks of an alert were over time, for its sidecar.  Pure.

In: the tracks and events of every frame.  Out: when an alert ends, the boxes of its tracks from their first detections
on, at 10 Hz at most.  A long track is thinned evenly: its boxes are bounded, and still span its whole life.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from pipeline.types import Event, EventKind, FrameRef, Track, TrackState

PERIOD_S = 0.1
MAX_BOXES = 2000  # per track
MAX_TRACKS = 64  # per camera
TOLERANCE_S = 0.005  # of a frame's time


class BoxAt(msgspec.Struct, frozen=True, array_like=True):
    """The box of a track in one frame."""

    frame: int  # sequence number in the session
    pts_s: float
    time_utc_ns: int
    x0: float  # frame pixels
    y0: float
    x1: float
    y1: float
    score: float
    state: TrackState  # coasting: predicted, without a detection
    azimuth_deg: float | None = None  # of a camera whose pose is known
    elevation_deg: float | None = None


class TrackPath(msgspec.Struct, omit_defaults=True):
    """A track of an alert, with its boxes."""

    ulid: str
    id: int
    label: str
    boxes: list[BoxAt]
    camera: str | None = None  # where it is another one than the alert's


@dataclass
class _Recorded:
    path: TrackPath
    period_s: float = PERIOD_S
    next_s: float = float("-inf")
    alert: str | None = None
    is_lost: bool = False

    def add(self, ref: FrameRef, track: Track) -> None:
        self.path.label = track.label
        self.is_lost = track.state is TrackState.LOST
        if self.is_lost or ref.pts_s < self.next_s - TOLERANCE_S:
            return
        self.next_s = ref.pts_s + self.period_s
        self.path.boxes.append(_box(ref, track))
        if len(self.path.boxes) >= MAX_BOXES:
            del self.path.boxes[1::2]
            self.period_s *= 2


@dataclass
class _Session:
    name: str
    tracks: dict[int, _Recorded] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)  # alerts of tracks that live on, as of a distractor


class TrackPaths:
    """Record the tracks of all cameras."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}  # by camera

    def update(self, ref: FrameRef, tracks: Sequence[Track], events: Sequence[Event]) -> dict[str, list[TrackPath]]:
        """Take one frame's tracks and events; return the tracks of the alerts that end with it."""
        session = self._sessions.get(ref.camera)
        if session is None or session.name != ref.session:
            session = self._sessions[ref.camera] = _Session(ref.session)
        for track in tracks:
            recorded = _of_track(session.tracks, track)
            if recorded is not None:
                recorded.add(ref, track)
        for event in events:
            own = event.track if event.camera == ref.camera else None  # an event may tell of another camera's track
            if event.alert is not None and own is not None and own.id in session.tracks:
                session.tracks[own.id].alert = event.alert
        ended = {
            event.alert: self._of_alert(event.alert, event.camera)
            for event in events
            if event.alert and event.ends_alert
        }
        again = {event.alert for event in events if event.alert and event.kind is EventKind.ALERT_ESCALATED}
        for each in self._sessions.values():  # other cameras may see the same target
            known = {one.alert for one in each.tracks.values()}
            each.ended = (each.ended | (ended.keys() & known)) - again
        current = {track.id for track in tracks}
        for number, recorded in list(session.tracks.items()):
            is_gone = recorded.is_lost or number not in current
            if is_gone and (recorded.alert is None or recorded.alert in session.ended):
                del session.tracks[number]
        session.ended &= {each.alert for each in session.tracks.values() if each.alert is not None}
        return ended

    def close(self, camera: str) -> None:
        """Forget a camera whose session ended."""
        self._sessions.pop(camera, None)

    def _of_alert(self, alert: str, camera: str) -> list[TrackPath]:
        """Return the tracks of an alert of this camera, its own first."""
        return [
            TrackPath(path.ulid, path.id, path.label, list(path.boxes), None if name == camera else name)
            for name in sorted(self._sessions, key=lambda name: (name != camera, name))
            for each in self._sessions[name].tracks.values()
            if each.alert == alert
            for path in (each.path,)
        ]


def _of_track(tracks: dict[int, _Recorded], track: Track) -> _Recorded | None:
    """Return the record of a track, a new one where there is room: tracks without an alert make way."""
    if track.id not in tracks:
        if len(tracks) >= MAX_TRACKS:
            spare = next((number for number, each in tracks.items() if each.alert is None), None)
            if spare is None:
                return None
            del tracks[spare]
        tracks[track.id] = _Recorded(TrackPath(track.ulid, track.id, track.label, []))
    return tracks[track.id]


def _box(ref: FrameRef, track: Track) -> BoxAt:
    x0, y0, x1, y1 = (round(side, 1) for side in track.xyxy)
    bearing = track.bearing
    direction = (bearing.azimuth_deg, bearing.elevation_deg) if bearing is not None else (None, None)
    when = (ref.seq, round(ref.pts_s, 4), ref.received_utc_ns)
    return BoxAt(*when, x0, y0, x1, y1, round(track.score, 3), track.state, *direction)
