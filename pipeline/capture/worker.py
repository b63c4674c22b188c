"""The capture worker: one camera -> Frames on the credit channel.  It imports no torch.

It opens the camera again and again, without end, after each loss, and is the only writer of the camera's ledger.
"""

import math
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import structlog
import zmq

from pipeline.capture.image_health import ImageHealthMonitor
from pipeline.capture.open import open_source
from pipeline.capture.source import Picture, Source
from pipeline.capture.starvation import StarvationMonitor
from pipeline.capture.timestamps import SMALLEST_STEP_S
from pipeline.config.models import Address, Camera
from pipeline.errors import CredentialsError, SourceError
from pipeline.runtime.control import Control
from pipeline.runtime.heartbeat import HeartbeatSender
from pipeline.runtime.process import finish_startup
from pipeline.store.ledger import Ledger
from pipeline.telemetry.metrics import CaptureMetrics
from pipeline.transport.channel import CREDITS, Channel
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.link import Uplink, uplink
from pipeline.transport.wire import LedgerCopy, Stamps, encode
from pipeline.types import CameraState, Cause, Frame, FrameRef

BACKOFF_S = (0.25, 0.5, 1.0, 2.0, 5.0)
CREDENTIALS_BACKOFF_S = 30.0  # cameras lock accounts that are tried too often
PATIENCE_S = 60.0  # longer than any pause and time limit here: a library that takes longer never comes back
FINISH_S = 60.0
BRIDGE_SHARE = 0.5  # of the objective: frames may wait so long while segmentation is late
COPY_S = 1.0  # how often another host is told what the ledger says


def run(control: Control, camera: Camera, stop: threading.Event, served: Address | None = None) -> None:
    """Until `stop`, or until a recording has ended, which the supervisor is told: whatever else ends it, another
    worker takes its place.
    """
    config = control.config
    link = uplink(config, camera)
    metrics = CaptureMetrics(camera.id)
    with Ledger(config.ledger_path(camera.id), CREDITS) as ledger:
        watchdog_timeout_s = PATIENCE_S if camera.is_live else math.inf  # a recording waits until its frames are taken
        heart = HeartbeatSender(Endpoints.heartbeat, metrics, served, watchdog_timeout_s, control.run)
        bridge_s = BRIDGE_SHARE * config.objective.capture_to_track_ms / 1e3
        worker = _CaptureWorker(camera, link, ledger, metrics, stop, heart.moved, bridge_s)
        finish_startup(stop)
        with heart:
            try:
                finished = worker.run()
            except SourceError:
                control.finished(broken=True)
                raise
            if finished:
                control.finished(broken=False)


class _CaptureWorker:
    def __init__(
        self,
        camera: Camera,
        link: Uplink,
        ledger: Ledger,
        metrics: CaptureMetrics,
        stop: threading.Event,
        moved: Callable[[], None],
        bridge_s: float,
    ) -> None:
        self._camera = camera
        self._link = link
        self._ledger = ledger
        self._metrics = metrics
        self._stop = stop
        self._moved = moved  # called while it goes on: see PATIENCE_S
        self._bridge_s = bridge_s
        self._session = secrets.token_hex(8)
        self._started_ns = time.monotonic_ns()
        self._seq = 0
        self._lost = 0  # frames of this connection that could not be decoded
        self._last_pts_s = -1.0
        self._blind_since_ns = self._started_ns
        self._condition = ImageHealthMonitor()
        self._fault: Cause | None = None  # of the camera, as it was last told
        self._picture: Cause | None = None  # of its picture
        self._blind_until_s = 0.0  # counted so far, while there is one
        self._search: StarvationMonitor | None = None  # from the first picture of a connection on
        self._reason = ""  # for which it was lost, until it is up again
        self._channel: Channel | None = None  # from the first picture on, for as long as the worker lives
        self._copied_s = 0.0  # when another host was last told of the ledger
        self._log = structlog.get_logger().bind(camera=camera.id)
        self._states = link.connected(zmq.PUSH, link.results, high_water=16, linger_ms=500, patient=True)

    def run(self) -> bool:
        """True: a recording was read to its end."""
        if self._ledger.updated_utc_ns:  # what passed while no worker was there was not watched
            self._ledger.blind(Cause.OFFLINE, max(0, time.time_ns() - self._ledger.updated_utc_ns))
        attempt = 0
        try:
            while not self._stop.is_set():
                self._moved()
                try:
                    source = open_source(self._camera)
                    try:
                        if self._stream(source):
                            return True
                    finally:
                        source.close()
                except SourceError as error:
                    if not self._camera.is_live:
                        self._finish()
                        raise  # a recording does not heal
                    attempt = 0 if self._ledger.is_up else attempt + 1
                    self._down(error)
                    self._pause(error, attempt)
        finally:
            if self._channel is not None:
                self._channel.close()
            self._ledger.connection(up=False)
            self._states.close()
        return False

    def _stream(self, source: Source) -> bool:
        """Send the source's pictures on until it is lost.  True: it was a recording and is finished."""
        if self._channel is None:
            self._channel = Channel(
                self._link,
                self._camera.id,
                self._session,
                live=source.live,
                bridge_s=self._bridge_s,
                ledger=self._ledger,
                refused=self._metrics.refused,
            )
        channel = self._channel
        for frame, stamps, intact in self._frames(source):
            if not self._ledger.is_up:
                again, self._reason = frame.ref.seq > 0, ""
                channel.count(partial(Ledger.connection, up=True, reconnect=again))
                channel.count(self._count_blind)
                self._tell(up=True)
            if not intact:
                channel.count(partial(Ledger.dropped, cause=Cause.CORRUPT))
            if source.live:
                self._look(frame, intact)
            if intact:
                channel.offer(frame, stamps, self._stop.is_set)
            channel.count(lambda ledger: ledger.touch(time.time_ns()))
            self._copy_ledger()
            if self._stop.is_set():
                return False
        if source.live:
            raise SourceError(f"camera {self._camera.id}: the stream ended")
        self._finish()
        return True

    def _look(self, frame: Frame, intact: bool) -> None:
        """Tell, and count as blind, when pictures come that show nothing, which are searched all the same, or when
        they are not searched."""
        self._count(partial(self._count_unsearched, now_s=frame.ref.received_mono_ns / 1e9))
        if intact:  # what another shows says nothing of the camera
            self._look_at_picture(frame)
        cause = self._picture or (self._search.cause if self._search else None)
        if cause is not self._fault:
            self._fault = cause
            self._tell(up=True)
            self._log.warning("the camera sees nothing" if cause else "the camera sees again", cause=cause)

    def _look_at_picture(self, frame: Frame) -> None:
        pts_s = frame.ref.pts_s
        fault = self._condition.update(frame.pixels, pts_s)
        picture = fault.cause if fault else None
        if picture is not self._picture:
            self._blind_until_s = fault.since_s if fault else pts_s
            self._picture = picture
        if picture is not None:
            self._count(partial(Ledger.blind, cause=picture, duration_ns=round((pts_s - self._blind_until_s) * 1e9)))
            self._blind_until_s = pts_s

    def _count_unsearched(self, ledger: Ledger, now_s: float) -> None:
        lost = ledger.lost()
        if self._search is None:
            self._search = StarvationMonitor(now_s, lost)
        for blindness in self._search.update(ledger.segmented_ns / 1e9, lost, now_s):
            ledger.blind(blindness.cause, round(blindness.duration_s * 1e9))

    def _finish(self) -> None:
        """A recording ended, or is broken from here on: what was read is still searched."""
        if self._channel is not None and not self._channel.finish(FINISH_S):
            self._log.warning("the last frames were not segmented in time")

    def _count_blind(self, ledger: Ledger) -> None:
        """Add the time since the camera was lost, or since this was last called, to the account."""
        now_ns = time.monotonic_ns()
        ledger.blind(Cause.OFFLINE, now_ns - self._blind_since_ns)
        ledger.touch(time.time_ns())
        self._blind_since_ns = now_ns

    def _frames(self, source: Source) -> Iterator[tuple[Frame, Stamps, bool]]:
        """Pictures as frames of this session: numbered, in rising time also across reconnections, not too many.

        A recording's frames keep its numbers.  True: intact.
        """
        offset_s: float | None = None
        next_s, self._lost = 0.0, 0
        period_s = 1 / self._camera.rate_fps if self._camera.rate_fps else 0.0
        try:
            for picture in source.pictures():
                self._moved()
                self._count_lost(source)
                if offset_s is None:
                    elapsed_s = (picture.received_mono_ns - self._started_ns) / 1e9 if source.live else 0.0
                    offset_s = max(elapsed_s, self._last_pts_s + SMALLEST_STEP_S) - picture.pts_s
                pts_s = picture.pts_s + offset_s
                if pts_s < next_s - period_s / 2:
                    continue
                next_s = max(next_s + period_s, pts_s)
                self._seq = self._seq if source.live else picture.number
                yield *self._frame(picture, pts_s), picture.intact
        finally:
            self._count_lost(source)

    def _count_lost(self, source: Source) -> None:
        """Frames that cannot be decoded, since this was last called."""
        lost, self._lost = source.lost - self._lost, source.lost
        self._seq += lost
        if lost:
            self._count(partial(Ledger.dropped, cause=Cause.CORRUPT, frames=lost))

    def _frame(self, picture: Picture, pts_s: float) -> tuple[Frame, Stamps]:
        ref = FrameRef(
            camera=self._camera.id,
            session=self._session,
            seq=self._seq,
            pts_s=pts_s,
            received_mono_ns=picture.received_mono_ns,
            received_utc_ns=picture.received_utc_ns,
            ntp_ns=picture.ntp_ns,
        )
        self._metrics.captured(ref)
        self._seq += 1
        self._last_pts_s = pts_s
        return Frame(ref, self._camera.band, picture.pixels), Stamps(decode_ns=picture.decode_ns)

    def _down(self, error: SourceError) -> None:
        if self._ledger.is_up:
            self._blind_since_ns = time.monotonic_ns()
            self._condition, self._search = ImageHealthMonitor(), None
            self._fault = self._picture = None
            self._count(lambda ledger: ledger.connection(up=False))
            self._tell(up=False)
        self._log_loss(error)

    def _log_loss(self, error: SourceError) -> None:
        """Loud once; the tries that fail for the same reason are for those who look closer."""
        reason, before = str(error), self._reason
        self._reason = reason
        if reason == before:
            self._log.debug("camera still lost", reason=reason)
        elif isinstance(error, CredentialsError):
            self._log.error("camera lost until its user or password is put right", reason=reason)
        else:
            self._log.warning("camera lost", reason=reason)

    def _pause(self, error: SourceError, attempt: int) -> None:
        """Jittered, so that a site's cameras do not all come back at one moment."""
        pause_s = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
        if isinstance(error, CredentialsError):
            pause_s = CREDENTIALS_BACKOFF_S
        self._stop.wait(pause_s * random.uniform(0.75, 1.25))
        self._count(self._count_blind)
        self._copy_ledger()

    def _count(self, change: Callable[[Ledger], None]) -> None:
        if self._channel is None:
            change(self._ledger)
        else:
            self._channel.count(change)

    def _copy_ledger(self) -> None:
        """To the host that searches, so that it can account for all cameras of the site."""
        now_s = time.monotonic()
        if not self._link.away or now_s - self._copied_s < COPY_S:
            return
        self._copied_s = now_s
        words: list[bytes] = []
        self._count(lambda ledger: words.append(ledger.words))
        with suppress(zmq.Again):  # the next one says it all again
            self._states.send_multipart(
                encode(LedgerCopy(self._camera.id, self._session, words[0])), flags=zmq.DONTWAIT
            )

    def _tell(self, *, up: bool) -> None:
        fault = self._fault if up else None
        number = max(0, self._seq - 1)
        state = CameraState(self._camera.id, self._session, up, fault, time.time_ns(), self._last_pts_s, number)
        try:
            self._states.send_multipart(encode(state), flags=zmq.DONTWAIT)
        except zmq.Again:
            self._log.warning("the track worker takes no camera states")
