"""The capture worker: one camera in, Frames on the credit channel out.  It imports no torch.

It reconnects to its camera after each loss, without end, and is the only writer of the camera's ledger.
"""

import math
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import structlog

from pipeline.capture.camera_health import CameraHealth
from pipeline.capture.clip_recorder import recorded
from pipeline.capture.frame_sequence import FrameSequence
from pipeline.capture.open import open_source
from pipeline.capture.packet_ring import PacketRing
from pipeline.capture.reports import CameraReports
from pipeline.capture.source import Source
from pipeline.capture.starvation import Blindness
from pipeline.config.camera import Camera
from pipeline.config.console import Address
from pipeline.errors import CredentialsError, SourceError
from pipeline.runtime.control import Control
from pipeline.runtime.heartbeat import HeartbeatSender
from pipeline.runtime.process import finish_startup
from pipeline.store.ledger import Ledger
from pipeline.telemetry.metrics import CaptureMetrics
from pipeline.timeouts import CAPTURE_WATCHDOG_TIMEOUT_S, RECORDING_DRAIN_TIMEOUT_S
from pipeline.transport.channel import Channel
from pipeline.transport.credit import MAX_IN_FLIGHT
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.link import Uplink, uplink
from pipeline.transport.wire import Stamps
from pipeline.types import CameraState, Cause, Frame

BACKOFF_S = (0.25, 0.5, 1.0, 2.0, 5.0)
CREDENTIALS_BACKOFF_S = 30.0  # cameras lock accounts after too many failed logins
BRIDGE_SHARE = 0.5  # of the latency objective: how long frames may wait while segmentation is late


def run(control: Control, camera: Camera, stop: threading.Event, served: Address | None = None) -> None:
    """Capture until `stop`, or to the end of a recording, which is reported to the supervisor.

    However else the worker ends, the supervisor starts another.
    """
    config = control.config
    link = uplink(config, camera)
    metrics, session = CaptureMetrics(camera.id), secrets.token_hex(8)
    with (
        Ledger(config.ledger_path(camera.id), MAX_IN_FLIGHT) as ledger,
        recorded(config, camera, session, link, metrics) as ring,
    ):
        # A recording waits until its frames are taken.
        timeout_s = CAPTURE_WATCHDOG_TIMEOUT_S if camera.is_live else math.inf
        sender = HeartbeatSender(Endpoints.heartbeat, metrics, served, timeout_s, control.run)
        bridge_s = BRIDGE_SHARE * config.objective.capture_to_track_ms / 1e3
        worker = _CaptureWorker(camera, session, link, ledger, metrics, stop, sender.progress, bridge_s, ring)
        finish_startup(stop)
        with sender, _pose_polled(camera, link, metrics, lambda: worker.offset_ns):
            try:
                finished = worker.run()
            except SourceError:
                control.finished(broken=True)
                raise
            if finished:
                control.finished(broken=False)


def _pose_polled(
    camera: Camera, link: Uplink, metrics: CaptureMetrics, offset_ns: Callable[[], int | None]
) -> AbstractContextManager[None]:
    if camera.onvif_url is None:
        return nullcontext()
    from pipeline.capture.pose_poller import polled  # imports httpx, which cameras that do not turn do without

    return polled(camera, link, metrics.pose, offset_ns)


class _CaptureWorker:
    def __init__(
        self,
        camera: Camera,
        session: str,
        link: Uplink,
        ledger: Ledger,
        metrics: CaptureMetrics,
        stop: threading.Event,
        progress: Callable[[], None],
        bridge_s: float,
        ring: PacketRing | None,
    ) -> None:
        """Prepare to capture; `progress` is called regularly: see WATCHDOG_TIMEOUT_S."""
        started_ns = time.monotonic_ns()
        self._camera = camera
        self._link = link
        self._ledger = ledger
        self._metrics = metrics
        self._stop = stop
        self._progress = progress
        self._bridge_s = bridge_s
        self._ring = ring
        self._sequence = FrameSequence(camera.id, session, camera.band, camera.rate_fps, started_ns)
        self._blind_since_ns = started_ns
        self._health: CameraHealth | None = None  # of the current connection, from its first frame on
        self._reported_cause: Cause | None = None
        self._loss_reason = ""  # why the connection was lost; empty while it is up
        self._channel: Channel | None = None  # from the first frame on, for as long as the worker lives
        self._log = structlog.get_logger().bind(camera=camera.id)
        self._reports = CameraReports(link, camera.id, session)

    @property
    def offset_ns(self) -> int | None:
        """By which the clock of the sent frames is ahead of this host's; None: not known yet."""
        return self._channel.offset_ns if self._channel is not None else None

    def run(self) -> bool:
        """Capture; return True after a recording was read to its end."""
        if self._ledger.updated_utc_ns:  # nothing watched the camera between the previous worker's end and now
            self._ledger.blind(Cause.OFFLINE, max(0, time.time_ns() - self._ledger.updated_utc_ns))
        attempt = 0
        try:
            while not self._stop.is_set():
                self._progress()
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
                        raise  # a broken recording stays broken
                    attempt = 0 if self._ledger.is_up else attempt + 1
                    self._connection_lost(error)
                    self._back_off(error, attempt)
        finally:
            if self._channel is not None:
                self._channel.close()
            self._ledger.connection(up=False)
            self._reports.close()
        return False

    def _stream(self, source: Source) -> bool:
        """Offer the source's frames to the channel until the source is lost; return True at a recording's end."""
        if self._channel is None:
            self._channel = Channel(
                self._link,
                self._camera.id,
                self._sequence.session,
                live=source.live,
                max_age_s=self._bridge_s,
                ledger=self._ledger,
                rejected=self._metrics.refused,
            )
        channel = self._channel
        for frame, stamps, intact in self._frames(source):
            if not self._ledger.is_up:
                self._connected(channel, reconnect=frame.ref.seq > 0)
            if not intact:
                channel.count(partial(Ledger.dropped, cause=Cause.CORRUPT))
            if source.live:
                self._check_health(channel, frame, intact)
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

    def _connected(self, channel: Channel, *, reconnect: bool) -> None:
        self._loss_reason = ""
        channel.count(partial(Ledger.connection, up=True, reconnect=reconnect))
        channel.count(self._count_offline)
        self._report(up=True)

    def _check_health(self, channel: Channel, frame: Frame, intact: bool) -> None:
        """Count blind time and report its cause.  Frames that show nothing are segmented all the same."""
        now_s = frame.ref.received_mono_ns / 1e9
        channel.count(partial(self._count_starvation, overdue=channel.overdue, now_s=now_s))
        health = self._health
        assert health is not None
        if intact:  # a damaged frame says nothing about the camera
            channel.count(partial(_add_blindness, blindness=health.update_image(frame.pixels, frame.ref.pts_s)))
        if health.cause is not self._reported_cause:
            self._reported_cause = health.cause
            self._report(up=True)
            self._log.warning("camera blind" if health.cause else "camera recovered", cause=health.cause)

    def _count_starvation(self, ledger: Ledger, overdue: float, now_s: float) -> None:
        lost = ledger.lost()
        if self._health is None:
            self._health = CameraHealth(now_s, lost)
        _add_blindness(ledger, self._health.update_segmentation(ledger.segmented_ns / 1e9, lost, overdue, now_s))

    def _finish(self) -> None:
        """Wait until the frames that were read of a recording are segmented."""
        if self._channel is not None and not self._channel.finish(RECORDING_DRAIN_TIMEOUT_S):
            self._log.warning("the last frames were not segmented in time")

    def _count_offline(self, ledger: Ledger) -> None:
        """Count the time since the camera was lost, or since the last call, as blind."""
        now_ns = time.monotonic_ns()
        ledger.blind(Cause.OFFLINE, now_ns - self._blind_since_ns)
        ledger.touch(time.time_ns())
        self._blind_since_ns = now_ns

    def _frames(self, source: Source) -> Iterator[tuple[Frame, Stamps, bool]]:
        """Yield the source's frames as frames of this session, and whether each is intact."""
        self._sequence.reconnect()
        counted = 0
        if self._ring is not None:
            self._ring.disconnected()
            source.on_packet = self._ring.append
        try:
            for decoded in source.frames():
                self._progress()
                counted = self._count_lost(source.lost, counted)
                frame = self._sequence.frame(decoded, live=source.live)
                if frame is not None:
                    if self._ring is not None:
                        self._ring.locate(decoded.stamp_s, frame.ref.pts_s)
                    self._metrics.captured(frame.ref)
                    yield frame, Stamps(decode_ns=decoded.decode_ns), decoded.intact
        finally:
            self._count_lost(source.lost, counted)

    def _count_lost(self, lost: int, counted: int) -> int:
        """Count further frames that could not be decoded; return how many are counted now."""
        new = lost - counted
        if new:
            self._sequence.skip(new)
            self._count(partial(Ledger.dropped, cause=Cause.CORRUPT, frames=new))
        return lost

    def _connection_lost(self, error: SourceError) -> None:
        if self._ledger.is_up:
            self._blind_since_ns = time.monotonic_ns()
            self._health = self._reported_cause = None
            self._count(lambda ledger: ledger.connection(up=False))
            self._report(up=False)
        self._log_loss(error)

    def _log_loss(self, error: SourceError) -> None:
        """Log a new reason as a warning, and repeats of it at debug level."""
        reason, before = str(error), self._loss_reason
        self._loss_reason = reason
        if reason == before:
            self._log.debug("camera still lost", reason=reason)
        elif isinstance(error, CredentialsError):
            self._log.error("camera lost: its user or password must be corrected", reason=reason)
        else:
            self._log.warning("camera lost", reason=reason)

    def _back_off(self, error: SourceError, attempt: int) -> None:
        """Wait before the next attempt, with jitter, so that a site's cameras do not all reconnect at one moment."""
        pause_s = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
        if isinstance(error, CredentialsError):
            pause_s = CREDENTIALS_BACKOFF_S
        self._stop.wait(pause_s * random.uniform(0.75, 1.25))
        self._count(self._count_offline)
        self._copy_ledger()

    def _count(self, change: Callable[[Ledger], None]) -> None:
        if self._channel is None:
            change(self._ledger)
        else:
            self._channel.count(change)

    def _copy_ledger(self) -> None:
        if self._reports.is_ledger_due:
            words: list[bytes] = []
            self._count(lambda ledger: words.append(ledger.words))
            self._reports.send_ledger(words[0])

    def _report(self, *, up: bool) -> None:
        sequence = self._sequence
        cause = self._reported_cause if up else None
        self._reports.send_state(
            CameraState(
                self._camera.id,
                sequence.session,
                up,
                cause,
                time.time_ns(),
                sequence.last_pts_s,
                sequence.last_number,
            )
        )


def _add_blindness(ledger: Ledger, blindness: Iterable[Blindness]) -> None:
    for one in blindness:
        ledger.blind(one.cause, round(one.duration_s * 1e9))
