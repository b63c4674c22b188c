"""Simulated live cameras: a procedural scene or recorded clips in; frames out, paced like those of a live camera.

They follow the monotonic clock; frames that are late are skipped, so that a camera never lags behind.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from pipeline.capture.decoding import ASSUMED_FPS
from pipeline.capture.recordings import find_recordings, open_recording, split_stream
from pipeline.capture.source import (
    CodedPacket,
    CodedStream,
    DecodedFrame,
    FramePacer,
    PacketSink,
    Receipt,
    Recording,
)
from pipeline.config.camera import Camera
from pipeline.errors import SourceError
from pipeline.types import Band

SCENE_FPS = 15.0
ACCEPTED = "demo:scene, demo:scene?seed=3&fps=15, demo:clips/FILE_OR_FOLDER, demo:clips/FOLDER?first=NAME"
SCENE_KEYS = ("seed", "fps", "look")


class LiveClock:
    """Waits until frames are due, by the monotonic clock from `start` on."""

    def __init__(self) -> None:
        self._start_ns = 0
        self.stopped = threading.Event()

    def start(self) -> None:
        """Set the time to 0."""
        self._start_ns = time.monotonic_ns()

    @property
    def elapsed_s(self) -> float:
        """Return the time since `start`."""
        return (time.monotonic_ns() - self._start_ns) / 1e9

    def wait(self, pts_s: float) -> Receipt | None:
        """Wait until that time; return None if stopped meanwhile."""
        early_s = pts_s - self.elapsed_s
        if early_s > 0:
            self.stopped.wait(early_s)
        return None if self.stopped.is_set() else Receipt.at(self._start_ns + round(pts_s * 1e9))


class DemoScene:
    """A procedural scene as a live camera; its packets are JPEGs."""

    live = True
    codec = "rawvideo"
    lost = 0
    on_packet: PacketSink | None = None

    def __init__(self, camera: Camera, query: str) -> None:
        from pipeline.imaging.synthetic_scene import Look, Scene  # imported here: other cameras do not need it

        given = dict(parse_qsl(query, keep_blank_values=True))
        unknown = sorted(set(given) - set(SCENE_KEYS))
        if unknown:
            raise SourceError(
                f"camera {camera.id}: unknown parameter {unknown[0]!r}; must be one of {', '.join(SCENE_KEYS)}"
            )
        look = Look.INFRARED_WHITE_HOT if camera.band is Band.INFRARED else Look.DAY
        try:
            self.fps = float(given.get("fps", SCENE_FPS))
            seed, look = int(given.get("seed", 0)), Look(given.get("look", look))
        except ValueError as error:
            looks = ", ".join(Look)
            raise SourceError(
                f"camera {camera.id}: {error}; expected an integer seed, a number fps, and a look of {looks}"
            ) from None
        if not 0 < self.fps <= 1000 or seed < 0:
            raise SourceError(f"camera {camera.id}: seed {seed}, fps {self.fps:g}; must be seed >= 0, 0 < fps <= 1000")
        self._scene = Scene(seed, look=look)
        self._stream: CodedStream | None = None
        self._clock = LiveClock()

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield frames until closed."""
        self._clock.start()
        index = 0
        while (receipt := self._clock.wait(index / self.fps)) is not None:
            started_ns = time.perf_counter_ns()
            pixels, _ = self._scene.render(index / self.fps)
            decode_ns = time.perf_counter_ns() - started_ns
            pts_s = index / self.fps
            self._pass_on(pixels, pts_s)
            yield DecodedFrame(pixels, index, pts_s, receipt.mono_ns, receipt.utc_ns, None, decode_ns, stamp_s=pts_s)
            index = max(index + 1, int(self._clock.elapsed_s * self.fps))

    def close(self) -> None:
        """End `frames`, from any thread."""
        self._clock.stopped.set()

    def _pass_on(self, pixels: NDArray[np.uint8], pts_s: float) -> None:
        if self.on_packet is None:
            return
        from pipeline.transport.jpeg import jpeg_bytes  # imported here: OpenCV is large, and other cameras have packets

        self._stream = self._stream or CodedStream("mjpeg", (pixels.shape[1], pixels.shape[0]))
        self.on_packet(CodedPacket(self._stream, jpeg_bytes(pixels), pts_s, pts_s, True))


class DemoClips:
    """Recorded clips, played in a loop as a live camera."""

    live = True
    lost = 0  # a broken clip ends `frames`
    on_packet: PacketSink | None = None

    def __init__(self, place: str) -> None:
        """Open `PATH` or `PATH?first=NAME` (the stem of the first clip), also with `stream=1` at its end."""
        place, self._stream = split_stream(place)
        path, _, first = place.partition("?first=")
        self._paths = find_recordings(Path(path))
        if first:
            stems = [path.stem for path in self._paths]
            if first not in stems:
                raise SourceError(f"{path}: first={first!r}; must be one of {', '.join(stems)}")
            start = stems.index(first)
            self._paths = self._paths[start:] + self._paths[:start]
        self._current: Recording | None = self._open(self._paths[0])
        self.fps, self.codec = self._current.fps, self._current.codec
        self._clock = LiveClock()

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield the frames of all clips in a loop.  Raise SourceError at the end of a broken clip."""
        self._clock.start()
        start, start_s = 0, 0.0
        while True:
            loop_start_s = start_s
            for path in self._paths:
                if self._clock.stopped.is_set():
                    return
                recording = self._current = self._current or self._open(path)
                for frame in recording.paced(self._pacer(start_s, recording.fps)):
                    yield replace(frame, number=start + frame.number, pts_s=start_s + frame.pts_s)
                start, start_s = start + recording.count, start_s + recording.length_s
                recording.close()
                self._current = None
            if start_s == loop_start_s:
                raise SourceError(f"{self._paths[0]}: contains no frame")

    def close(self) -> None:
        """End `frames`, from any thread."""
        self._clock.stopped.set()
        current = self._current
        if current is not None:
            current.close()

    def _open(self, path: Path) -> Recording:
        recording = open_recording(path, low_delay=True, stream=self._stream)
        recording.on_packet = self._pass_on
        return recording

    def _pass_on(self, packet: CodedPacket) -> None:
        if self.on_packet is not None:
            self.on_packet(packet)

    def _pacer(self, start_s: float, fps: float) -> FramePacer:
        period_s = 1 / (fps or ASSUMED_FPS)

        def wait(pts_s: float) -> Receipt | None:
            due_s = start_s + pts_s
            if self._clock.elapsed_s > due_s + period_s:  # a newer frame is due
                return None
            return self._clock.wait(due_s)

        return wait
