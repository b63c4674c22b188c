"""Pretended live cameras: a procedural scene or recorded clips in; pictures out, paced as a live camera sends them.

They follow the monotonic clock.  What comes too late is left out: they never lag behind.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

from pipeline.capture.decoding import ASSUMED_FPS
from pipeline.capture.recordings import find_recordings, open_recording, split_stream
from pipeline.capture.source import DecodedFrame, FramePacer, Receipt, Recording
from pipeline.config.models import Camera
from pipeline.errors import SourceError
from pipeline.types import Band

SCENE_FPS = 15.0
ALLOWED = "demo:scene, demo:scene?seed=3&fps=15, demo:clips/FILE_OR_FOLDER, demo:clips/FOLDER?first=NAME"
SCENE_KEYS = ("seed", "fps", "look")


class Pace:
    """When pictures are due, from the first question on."""

    def __init__(self) -> None:
        self._start_ns = 0
        self.stopped = threading.Event()

    def start(self) -> None:
        self._start_ns = time.monotonic_ns()

    @property
    def elapsed_s(self) -> float:
        return (time.monotonic_ns() - self._start_ns) / 1e9

    def wait(self, pts_s: float) -> Receipt | None:
        """Until then.  None: it was stopped."""
        early_s = pts_s - self.elapsed_s
        if early_s > 0:
            self.stopped.wait(early_s)
        return None if self.stopped.is_set() else Receipt.at(self._start_ns + round(pts_s * 1e9))


class DemoScene:
    live = True
    codec = "rawvideo"
    lost = 0

    def __init__(self, camera: Camera, query: str) -> None:
        from pipeline.imaging.synthetic_scene import Look, Scene  # here, since other cameras need none of it

        given = dict(parse_qsl(query, keep_blank_values=True))
        unknown = sorted(set(given) - set(SCENE_KEYS))
        if unknown:
            raise SourceError(f"camera {camera.id}: unknown {unknown[0]!r}; allowed: {', '.join(SCENE_KEYS)}")
        look = Look.INFRARED_WHITE_HOT if camera.band is Band.INFRARED else Look.DAY
        try:
            self.fps = float(given.get("fps", SCENE_FPS))
            seed, look = int(given.get("seed", 0)), Look(given.get("look", look))
        except ValueError as error:
            looks = ", ".join(Look)
            raise SourceError(f"camera {camera.id}: {error}; allowed: whole seed, fps, look of {looks}") from None
        if not 0 < self.fps <= 1000 or seed < 0:
            raise SourceError(f"camera {camera.id}: seed {seed}, fps {self.fps:g}; allowed: seed >= 0, 0 < fps <= 1000")
        self._scene = Scene(seed, look=look)
        self._pace = Pace()

    def frames(self) -> Iterator[DecodedFrame]:
        self._pace.start()
        index = 0
        while (receipt := self._pace.wait(index / self.fps)) is not None:
            started_ns = time.perf_counter_ns()
            pixels, _ = self._scene.render(index / self.fps)
            decode_ns = time.perf_counter_ns() - started_ns
            yield DecodedFrame(pixels, index, index / self.fps, receipt.mono_ns, receipt.utc_ns, None, decode_ns)
            index = max(index + 1, int(self._pace.elapsed_s * self.fps))

    def close(self) -> None:
        self._pace.stopped.set()


class DemoClips:
    live = True
    lost = 0  # a clip that is broken ends it

    def __init__(self, place: str) -> None:
        """`PATH` or `PATH?first=NAME` (the clip to begin with, without suffix), also with `stream=1` at its end."""
        place, self._stream = split_stream(place)
        path, _, first = place.partition("?first=")
        self._paths = find_recordings(Path(path))
        if first:
            stems = [path.stem for path in self._paths]
            if first not in stems:
                raise SourceError(f"{path}: first={first!r} is no clip there; allowed: {', '.join(stems)}")
            start = stems.index(first)
            self._paths = self._paths[start:] + self._paths[:start]
        self._current: Recording | None = self._open(self._paths[0])
        self.fps, self.codec = self._current.fps, self._current.codec
        self._pace = Pace()

    def frames(self) -> Iterator[DecodedFrame]:
        """Round and round.  Raises SourceError at the end of a clip that is broken."""
        self._pace.start()
        start, start_s = 0, 0.0
        while True:
            round_start_s = start_s
            for path in self._paths:
                if self._pace.stopped.is_set():
                    return
                recording = self._current = self._current or self._open(path)
                for picture in recording.paced(self._gate(start_s, recording.fps)):
                    yield replace(picture, number=start + picture.number, pts_s=start_s + picture.pts_s)
                start, start_s = start + recording.count, start_s + recording.length_s
                recording.close()
                self._current = None
            if start_s == round_start_s:
                raise SourceError(f"{self._paths[0]}: holds no frame")

    def close(self) -> None:
        self._pace.stopped.set()
        current = self._current
        if current is not None:
            current.close()

    def _open(self, path: Path) -> Recording:
        return open_recording(path, one_by_one=True, stream=self._stream)

    def _gate(self, start_s: float, fps: float) -> FramePacer:
        period_s = 1 / (fps or ASSUMED_FPS)

        def wait(pts_s: float) -> Receipt | None:
            due_s = start_s + pts_s
            if self._pace.elapsed_s > due_s + period_s:  # a newer one is due
                return None
            return self._pace.wait(due_s)

        return wait
