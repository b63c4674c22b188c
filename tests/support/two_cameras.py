"""Two cameras with poses that see targets in the air: their tracks, and the alerts that the stage raises."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from pipeline.alerting.alerts import Alerting
from pipeline.alerting.pairs import PairedAlerts
from pipeline.alerting.triangulation import Place
from pipeline.geodesy import camera_axes, earth_fixed, local_axes
from pipeline.tracking.bearing import Orientation
from pipeline.types import Event, FrameRef, Track, TrackState
from support.events import START_NS

SIZE_PX = (1280, 720)
PERIOD_S = 0.1
CONFIRM_FRAMES = 6  # from a track's first detection to its confirmation
HOME = Place(48.1, 11.6, 500.0)
Vector = tuple[float, float, float]
"""East, north, up of HOME, m."""


def place_at(offset: Vector) -> Place:
    lat = HOME.lat + math.degrees(offset[1] / 6_371_000)
    lon = HOME.lon + math.degrees(offset[0] / 6_371_000 / math.cos(math.radians(HOME.lat)))
    return Place(lat, lon, HOME.height_m + offset[2])


@dataclass
class Camera:
    """A camera, its tracks by target, and its alerts."""

    name: str
    place: Place
    orientation: Orientation
    late_s: float = 0.0
    session: str = "s1"
    alerting: Alerting = field(init=False)
    tracks: dict[str, Track] = field(default_factory=dict)
    frame: int = 0

    def __post_init__(self) -> None:
        self.alerting = Alerting(self.name, self.session)

    @property
    def rad_per_px(self) -> float:
        return self.orientation.rad_per_px(SIZE_PX)

    def box(self, target: Place, size_m: float) -> tuple[float, float, float, float] | None:
        """Where a target is in the frame; None: outside."""
        here = earth_fixed(self.place.lat, self.place.lon, self.place.height_m)
        there = earth_fixed(target.lat, target.lon, target.height_m)
        local = local_axes(self.place.lat, self.place.lon) @ (there - here)
        facing = self.orientation
        axes = camera_axes(facing.azimuth_deg, facing.elevation_deg, facing.roll_deg)
        right, up, forward = (axes.T @ local).tolist()
        if forward <= 0:
            return None
        x, y = right / forward / self.rad_per_px + SIZE_PX[0] / 2, SIZE_PX[1] / 2 - up / forward / self.rad_per_px
        half_px = size_m / float(np.linalg.norm(local)) / self.rad_per_px / 2
        inside = 0 < x < SIZE_PX[0] and 0 < y < SIZE_PX[1]
        return (x - half_px, y - half_px, x + half_px, y + half_px) if inside else None


class Scene:
    """Two cameras 200 m apart that look north, and what they report."""

    def __init__(self, cameras: Sequence[Camera] | None = None) -> None:
        look = Orientation(0.0, 10.0, 0.0, 60.0, 0.3)
        self.cameras = cameras or [
            Camera("east", place_at((100, 0, 0)), look),
            Camera("west", place_at((-100, 0, 2)), look, late_s=0.03),
        ]
        self.pairs = PairedAlerts()
        self.pairs.places = {camera.name: camera.place for camera in self.cameras}
        self.time_s = 0.0
        self.events: list[Event] = []
        self.labels: dict[tuple[str, str], str] = {}  # by camera and target
        self.sizes_m: dict[str, float] = {}
        self.newest: dict[str, list[Track]] = {}

    def step(self, targets: Mapping[str, Vector], hidden: Mapping[str, str] | None = None) -> None:
        """A frame of each camera; `hidden`: the target that a camera does not see."""
        self.time_s += PERIOD_S
        for camera in self.cameras:
            boxes = {
                name: box
                for name, where in targets.items()
                if (hidden or {}).get(camera.name) != name
                and (box := camera.box(place_at(where), self.sizes_m.get(name, 0.8)))
            }
            self._frame(camera, boxes)

    def fly(
        self, steps: int, paths: Mapping[str, tuple[Vector, Vector]], hidden: Mapping[str, str] | None = None
    ) -> None:
        """Targets at constant velocities: name -> place at time 0, m/s."""
        for _ in range(steps):
            now_s = self.time_s + PERIOD_S
            where = {
                name: tuple(at + now_s * v for at, v in zip(start, speed, strict=True))
                for name, (start, speed) in paths.items()
            }
            self.step(where, hidden)  # type: ignore[arg-type]

    def close(self, name: str) -> None:
        camera = next(each for each in self.cameras if each.name == name)
        ref = self._ref(camera)
        tracks = [self._lost(track) for track in camera.tracks.values()]
        self.events += self.pairs.close(ref, tracks, camera.alerting.close(ref, tracks))
        camera.tracks.clear()

    def _frame(self, camera: Camera, boxes: Mapping[str, tuple[float, float, float, float]]) -> None:
        camera.frame += 1
        ref = self._ref(camera)
        tracks = [self._seen(camera, ref, name, box) for name, box in boxes.items()]
        for name in camera.tracks.keys() - boxes.keys():
            track = camera.tracks[name]
            unseen_s = ref.pts_s - track.last_seen.pts_s
            if unseen_s > 1:
                tracks.append(self._lost(camera.tracks.pop(name)))
            elif track.state is not TrackState.TENTATIVE:
                tracks.append(_with(track, state=TrackState.COASTING))
        events = camera.alerting.update(ref, tracks)
        tracks, told = self.pairs.update(ref, tracks, events, camera.rad_per_px)
        self.newest[camera.name] = tracks
        self.events += told

    def _seen(self, camera: Camera, ref: FrameRef, name: str, box: tuple[float, float, float, float]) -> Track:
        before = camera.tracks.get(name)
        hits = before.hits + 1 if before else 1
        number = before.id if before else 1 + sum(1 for _ in camera.tracks) + 10 * camera.frame
        track = Track(
            id=number,
            ulid=before.ulid if before else f"{camera.name}-{name}-{number}",
            camera=camera.name,
            session=camera.session,
            state=TrackState.CONFIRMED if hits >= CONFIRM_FRAMES else TrackState.TENTATIVE,
            label=self.labels.get((camera.name, name), "uav"),
            evidence={},
            xyxy=box,
            velocity_px_s=(0.0, 0.0),
            score=0.9,
            hits=hits,
            first_seen=before.first_seen if before else ref,
            last_seen=ref,
            bearing=camera.orientation.bearing_of(box, SIZE_PX),
        )
        camera.tracks[name] = track
        return track

    @staticmethod
    def _lost(track: Track) -> Track:
        return _with(track, state=TrackState.LOST)

    def _ref(self, camera: Camera) -> FrameRef:
        time_ns = round((self.time_s + camera.late_s) * 1e9)
        return FrameRef(camera.name, camera.session, camera.frame, time_ns / 1e9, time_ns, START_NS + time_ns)


def _with(track: Track, state: TrackState) -> Track:
    return replace(track, state=state)
