"""What `dasnet rules test` reads, and the events of its tracks without and with rules.

detections.jsonl   of `dasnet replay`: tracked again, so that rules see every frame as they would have
events.jsonl, store.sqlite   rules see a track where an event tells of it: confirmed, changed, lost
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import msgspec

from model.metadata import BandThresholds
from pipeline.alerting.alerts import Alerting
from pipeline.alerting.rules import Rule
from pipeline.capture.wall_clock import WallClock
from pipeline.errors import ConfigError, SourceError
from pipeline.replay.outputs import read_detections
from pipeline.store.reader import StoreReader
from pipeline.tracking.bearing import Orientation
from pipeline.tracking.policy import Policy
from pipeline.tracking.stage import TrackStage
from pipeline.types import Event, EventKind, FrameRef, Track, TrackState

DETECTIONS, EVENTS, STORE = "detections.jsonl", "events.jsonl", "store.sqlite"
EVENTS_READ = 1000  # from the store, at once
KNOWN_FROM_NS = 10**18  # 2001: earlier, a time is that since the beginning of a recording
_SEEN = (
    EventKind.TRACK_CONFIRMED,
    EventKind.TRACK_LABELLED,
    EventKind.TRACK_LOST,
    EventKind.ALERT_OPENED,
    EventKind.ALERT_ESCALATED,
    EventKind.ALERT_LOWERED,
)


@dataclass(frozen=True)
class Site:
    """What of a site decides on alerts, by camera id.

    Attributes:
        rules: of each camera.
        policies: likewise.
        orientations: of cameras with a pose.
        thresholds: of the checkpoint.
        checkpoint: its SHA-256.
        armed: whether rules apply that need arming.
        camera: that all recordings are of; None: the camera that they name.
        start_utc_ns: when recordings began; None: as they say.
        since_utc_ns: stored events before that are left out.
    """

    rules: Mapping[str, Sequence[Rule]]
    policies: Mapping[str, Policy]
    orientations: Mapping[str, Orientation]
    thresholds: BandThresholds
    checkpoint: str
    armed: bool = True
    camera: str | None = None
    start_utc_ns: int | None = None
    since_utc_ns: int = 0

    def camera_of(self, recorded: str, path: Path) -> str:
        """Return the camera whose rules apply to a recording.  Raise ConfigError."""
        name = self.camera or (recorded if recorded in self.rules or len(self.rules) > 1 else next(iter(self.rules)))
        if name not in self.rules:
            known = ", ".join(self.rules)
            raise ConfigError(f"{path}: of camera {name!r}; expected --camera with one of the site's: {known}")
        return name

    def check_time(self, camera: str, start_utc_ns: int | None, path: Path) -> None:
        """Raise ConfigError where rules depend on a time that is unknown."""
        timed = [rule.name for rule in self.rules[camera] if rule.period is not None]
        if timed and start_utc_ns is None:
            raise ConfigError(f"{path}: time of the recording unknown, and rule {timed[0]!r} depends on it; expected "
                              "--start-time")  # fmt: skip


def find_inputs(paths: Iterable[Path]) -> list[Path]:
    """Return the files to read.  Raise ConfigError where a path has none."""
    return [file for path in paths for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    detections = sorted(path.rglob(DETECTIONS))
    found = detections or [path / name for name in (STORE, EVENTS) if (path / name).is_file()][:1]
    if not found:
        raise ConfigError(f"{path}: must be or hold {DETECTIONS} of `dasnet replay`, {STORE} or {EVENTS}")
    return found


def from_detections(path: Path, site: Site) -> tuple[list[Event], list[Event]]:
    """Track the detections of a recording; return its events without and with rules.  Raise DasnetError."""
    header, stored = read_detections(path)
    if header.checkpoint != site.checkpoint:
        raise SourceError(
            f"{path}: detections of checkpoint {header.checkpoint[:12]}; expected those of the site's, "
            f"{site.checkpoint[:12]}"
        )
    camera, name = site.camera_of(header.camera, path), header.camera
    clock = WallClock(site.start_utc_ns or header.start_utc_ns)
    site.check_time(camera, clock.start_utc_ns, path)
    orientations = {name: site.orientations[camera]} if camera in site.orientations else {}
    stage = TrackStage(site.thresholds, {name: site.policies[camera]}, orientations)
    alerting = _alerting(site, camera, name, header.session)
    before: list[Event] = []
    after: list[Event] = []
    for detections in stored:
        time_ns = clock.time_ns(detections.ref.pts_s)
        if time_ns is not None:
            ref = msgspec.structs.replace(detections.ref, received_utc_ns=time_ns)
            detections = replace(detections, ref=ref)
        outcome = stage.update(detections)
        before += outcome.events
        after += alerting.update(outcome.ref, outcome.tracks, detections.camera_shift_px)
    closing = stage.close(name)
    if closing is not None:
        before += closing.events
        after += alerting.close(closing.ref, closing.tracks)
    return before, after


def from_events(path: Path, site: Site) -> dict[str, tuple[list[Event], list[Event]]]:
    """Return the stored events of each camera, and those with rules.  Raise DasnetError."""
    events = [event for event in _stored(path) if event.time_utc_ns >= site.since_utc_ns]
    events.sort(key=lambda event: (event.camera, event.session, event.frame))
    compared = {}
    for name, group in groupby(events, key=lambda event: event.camera):
        own = list(group)
        camera = site.camera_of(name, path)
        is_timed = own[0].time_utc_ns >= KNOWN_FROM_NS
        site.check_time(camera, site.start_utc_ns or (own[0].time_utc_ns if is_timed else None), path)
        after: list[Event] = []
        for session, part in groupby(own, key=lambda event: event.session):
            after += _with_rules(_alerting(site, camera, name, session), list(part), site.start_utc_ns)
        compared[name] = own, after
    return compared


def _alerting(site: Site, camera: str, name: str, session: str) -> Alerting:
    alerting = Alerting(name, session)
    alerting.rules, alerting.armed = site.rules[camera], site.armed
    return alerting


def _stored(path: Path) -> list[Event]:
    """Return the events that say where a track is.  Raise DasnetError."""
    events = _store_events(path) if path.suffix == ".sqlite" else _line_events(path)
    return [event for event in events if event.kind in _SEEN and event.track is not None]


def _store_events(path: Path) -> Iterator[Event]:
    with StoreReader(path) as reader:
        row = 0
        while stored := reader.events(EVENTS_READ, row):
            yield from (each.event for each in stored)
            row = stored[-1].row


def _line_events(path: Path) -> Iterator[Event]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield msgspec.json.decode(line, type=Event)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise SourceError(f"{path}, line {number}: not an event of dasnet, or damaged: {error}") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None


def _with_rules(alerting: Alerting, events: Sequence[Event], start_utc_ns: int | None) -> list[Event]:
    """Return the events of one session with rules, which see each track where its events have it."""
    frames: dict[int, tuple[FrameRef, dict[int, Track]]] = {}  # by sequence number
    for event in events:
        for ref, track in _places(event, start_utc_ns):
            frames.setdefault(ref.seq, (ref, {}))[1][track.id] = track
    made: list[Event] = []
    alive: dict[int, Track] = {}
    for _, (ref, seen) in sorted(frames.items()):
        tracks = {number: _as(track, TrackState.COASTING) for number, track in alive.items()} | seen
        made += alerting.update(ref, list(tracks.values()))
        alive = {number: track for number, track in tracks.items() if track.state is not TrackState.LOST}
    last = frames[max(frames)][0]
    return made + alerting.close(last, [_as(track, TrackState.LOST) for track in alive.values()])


def _places(event: Event, start_utc_ns: int | None) -> Iterator[tuple[FrameRef, Track]]:
    """Yield where an event has its track: also where a lost one was last seen, which is nearly where it was lost."""
    track = event.track
    if track is None:
        return
    time_ns = WallClock(start_utc_ns).time_ns(event.pts_s) or event.time_utc_ns
    seq, last = event.frame, track.last_seen
    if track.state is TrackState.LOST:
        seq = max(seq, last.seq + 1)
        seen_ns = time_ns - round((event.pts_s - last.pts_s) * 1e9)
        yield FrameRef(event.camera, event.session, last.seq, last.pts_s, 0, seen_ns), _as(track, TrackState.CONFIRMED)
    yield FrameRef(event.camera, event.session, seq, event.pts_s, 0, time_ns), track


def _as(track: Track, state: TrackState) -> Track:
    return msgspec.structs.replace(track, state=state)
