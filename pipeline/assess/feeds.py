"""Cameras in, frames out: each camera is decoded in a thread of its own.

A live camera's queue holds one frame, the newest, and its thread reconnects until told to stop.  A recording's queue
holds two and blocks: every frame is processed.
"""

import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from pipeline.capture.frame_sequence import FrameSequence
from pipeline.capture.open import open_source
from pipeline.capture.source import Source
from pipeline.config.camera import Camera
from pipeline.errors import CredentialsError, SourceError
from pipeline.types import Frame

RECONNECT_S = 5.0
CREDENTIALS_RECONNECT_S = 30.0  # cameras lock accounts after too many failed logins
RECORDING_QUEUE = 2  # frames
JOIN_S = 6.0  # a read that waits for its camera takes up to 4 s


class Item(NamedTuple):
    """A frame, or None where the camera was lost, so that its tracks end."""

    camera: str
    frame: Frame | None


class Feed:
    """One camera's thread and queue.  Attributes may be read at any time.

    Attributes:
        camera: its configuration.
        ended: True after the last frame of a recording, or after an unexpected error.
        error: why the camera could not be opened or was lost last.
        dropped: frames that a newer one replaced.
    """

    def __init__(self, camera: Camera, changed: threading.Condition) -> None:
        self.camera = camera
        self.ended = False
        self.error: str | None = None
        self.dropped = 0
        self._changed = changed
        self._queue: deque[Item] = deque()
        self._stop = threading.Event()
        self._source: Source | None = None
        self._thread = threading.Thread(target=self._run, name=f"decode-{camera.id}", daemon=True)
        self._thread.start()

    @property
    def is_finished(self) -> bool:
        """Return whether no further frame comes.  The condition must be held."""
        return self.ended and not self._queue

    def take(self) -> Item | None:
        """Return the next frame, or None where there is none yet.  The condition must be held."""
        return self._queue.popleft() if self._queue else None

    def stop(self) -> None:
        """Tell the thread to end, and drop what is queued.  The condition must be held."""
        self._stop.set()
        self.ended = True
        self._queue.clear()
        self._changed.notify_all()

    def join(self, deadline_s: float) -> None:
        """Close the source and wait for the thread, until a time of the monotonic clock at the latest."""
        source = self._source
        if source is not None:
            threading.Thread(target=source.close, daemon=True).start()  # may wait for a read to finish
        self._thread.join(max(0.0, deadline_s - time.monotonic()))

    def _run(self) -> None:
        try:
            self._read()
        except SourceError as error:
            self.error = str(error)
        except Exception as error:  # noqa: BLE001 - the thread's top level: the other cameras are assessed all the same
            self.error = f"camera {self.camera.id}: {type(error).__name__}: {error}"
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _read(self) -> None:
        """Read until told to stop; a recording once, and raise its error."""
        camera = self.camera
        sequence = FrameSequence(camera.id, secrets.token_hex(8), camera.band, camera.rate_fps, time.monotonic_ns())
        while not self._stop.is_set():
            pause_s = RECONNECT_S
            try:
                with closing(open_source(camera)) as source:
                    self._source = source
                    self._pass_on(source, sequence)
                if not camera.is_live:
                    return
                raise SourceError(f"camera {camera.id}: the stream ended")
            except SourceError as error:
                if self._stop.is_set():  # by `join`, which closes the source
                    return
                if not camera.is_live:
                    raise
                pause_s = CREDENTIALS_RECONNECT_S if isinstance(error, CredentialsError) else RECONNECT_S
                self.error = str(error)
            finally:
                self._source = None
            self._offer(Item(camera.id, None))
            self._stop.wait(pause_s)

    def _pass_on(self, source: Source, sequence: FrameSequence) -> None:
        sequence.reconnect()
        for decoded in source.frames():
            if self._stop.is_set():
                return
            frame = sequence.frame(decoded, live=source.live)
            if frame is not None and decoded.intact:
                self._offer(Item(self.camera.id, frame))

    def _offer(self, item: Item) -> None:
        with self._changed:
            if not self.camera.is_live:
                self._changed.wait_for(lambda: len(self._queue) < RECORDING_QUEUE or self._stop.is_set())
            elif self._queue and (item.frame is None) == (self._queue[-1].frame is None):
                self.dropped += self._queue.pop().frame is not None
            if not self._stop.is_set():
                self._queue.append(item)
            self._changed.notify_all()


class Feeds:
    """The feeds of all cameras of a site."""

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self._changed = threading.Condition()
        self.by_camera = {camera.id: Feed(camera, self._changed) for camera in cameras}

    def take(self, timeout_s: float) -> list[Item]:
        """Return at most one item of each camera; none where nothing came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready, timeout_s)
            items = [item for feed in self.by_camera.values() if (item := feed.take()) is not None]
            self._changed.notify_all()
        return items

    @property
    def _is_ready(self) -> bool:
        return any(feed._queue for feed in self.by_camera.values()) or self.are_finished

    @property
    def are_finished(self) -> bool:
        """Return whether no further frame of any camera comes."""
        return all(feed.is_finished for feed in self.by_camera.values())

    def stop(self, camera: str) -> None:
        """End one camera's feed."""
        with self._changed:
            self.by_camera[camera].stop()

    def close(self) -> None:
        """End all feeds and wait for their threads; one that hangs in a library call is left to the process's end."""
        for camera in self.by_camera:
            self.stop(camera)
        deadline_s = time.monotonic() + JOIN_S
        for feed in self.by_camera.values():
            feed.join(deadline_s)
