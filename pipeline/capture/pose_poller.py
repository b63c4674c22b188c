"""Where a camera that turns looks: asked by ONVIF in a thread beside its frames, passed on to the track worker.

Whatever the camera answers, its frames go on: without a pose, tracks have no bearing.  A reason is logged once.
"""

import math
import random
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import zmq

from pipeline.capture.onvif import OnvifDevice, OnvifError, PtzStatus
from pipeline.config.camera import Camera, Pose
from pipeline.config.onvif import Line, OnvifPose
from pipeline.telemetry.pose import PoseMetrics
from pipeline.transport.link import Uplink
from pipeline.transport.sockets import Socket
from pipeline.transport.wire import encode
from pipeline.types import AxisSample

POLL_S = 0.2
BACKOFF_S = (1.0, 2.0, 5.0, 10.0)
CREDENTIALS_BACKOFF_S = 30.0  # cameras lock accounts after too many failed logins
CLOCK_OFF_S = 5.0  # what is further off is told
EXIT_S = 1.0


def axis_of(camera: str, pose: Pose, onvif: OnvifPose, status: PtzStatus, offset_ns: int = 0) -> AxisSample:
    """Return where a camera looks that answered so.

    Args:
        camera: its id.
        pose: of the camera at pan and tilt of 0 degrees.
        onvif: what its positions mean.
        status: its answer.
        offset_ns: by which the clock of the frames' references is ahead of this host's.

    Raises:
        OnvifError: Its field of view is not known.
    """
    pan_deg = status.pan if status.in_degrees else _on(onvif.pan, status.pan)
    tilt_deg = status.tilt if status.in_degrees else _on(onvif.tilt, status.tilt)
    return AxisSample(
        camera=camera,
        mono_ns=status.mono_ns + offset_ns,
        error_ns=status.error_ns,
        azimuth_deg=(pose.azimuth_deg + pan_deg) % 360,
        elevation_deg=pose.elevation_deg + tilt_deg,
        hfov_deg=_hfov_deg(pose.hfov_deg, onvif.zoom, status.zoom),
        is_moving=status.is_moving,
    )


def _on(line: Line, position: float) -> float:
    (first, first_deg), (second, second_deg) = line
    return first_deg + (position - first) / (second - first) * (second_deg - first_deg)


def _hfov_deg(widest_deg: float, further: list[tuple[float, float]], zoom: float | None) -> float:
    """Return the field of view at a zoom position; between known ones the focal length grows exponentially."""
    if zoom is None and not further:
        return widest_deg
    points = [(0.0, widest_deg), *further]
    if zoom is None or not points[0][0] - 1e-3 <= zoom <= points[-1][0] + 1e-3:
        told = "no zoom position" if zoom is None else f"zoom position {zoom:g}"
        raise OnvifError("zoom", f"{told}: must be 0 to {points[-1][0]:g}, where pose.onvif.zoom has a field of view")
    at = min(max(1, bisect_left(points, (zoom,))), len(points) - 1)
    if at == 0:  # there is only one
        return widest_deg
    (first, wide_deg), (second, narrow_deg) = points[at - 1], points[at]
    share = min(1.0, max(0.0, (zoom - first) / (second - first)))
    wide, narrow = (math.log(math.tan(math.radians(hfov_deg) / 2)) for hfov_deg in (wide_deg, narrow_deg))
    return math.degrees(2 * math.atan(math.exp(wide + share * (narrow - wide))))


@contextmanager
def polled(camera: Camera, link: Uplink, metrics: PoseMetrics, offset_ns: Callable[[], int | None]) -> Iterator[None]:
    """Ask a camera that turns where it looks, from entry to exit.

    Args:
        camera: one with `pose.onvif`.
        link: where the track worker is.
        metrics: of the camera.
        offset_ns: by which the clock of the frames' references is ahead of this host's; None: not known yet.
    """
    stop = threading.Event()
    poller = PosePoller(camera, metrics, offset_ns, stop)
    thread = threading.Thread(target=poller.run, args=(link,), name="pose", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(EXIT_S)  # it may wait for an answer, which the process does not wait for


class PosePoller:
    """Ask one camera until `stop`, in the thread that calls `run`."""

    def __init__(
        self, camera: Camera, metrics: PoseMetrics, offset_ns: Callable[[], int | None], stop: threading.Event
    ) -> None:
        assert camera.pose is not None and camera.pose.onvif is not None
        self._camera, self._pose, self._onvif = camera, camera.pose, camera.pose.onvif
        self._metrics = metrics
        self._offset_ns = offset_ns
        self._stop = stop
        self._cause: str | None = ""  # why the pose is unknown; None: it is known
        self._log = structlog.get_logger().bind(camera=camera.id)

    def run(self, link: Uplink) -> None:
        """Ask and pass on; whatever fails is tried again."""
        self._metrics.start()
        socket = link.connected(zmq.PUSH, link.results, high_water=16, patient=True)
        failures = 0
        try:
            while not self._stop.is_set():
                try:
                    for status in self._statuses():
                        failures = 0
                        self._pass_on(socket, status)
                except Exception as error:  # noqa: BLE001 - the thread's top level: the next try may succeed
                    self._stop.wait(self._pause_s(error, failures) * random.uniform(0.75, 1.25))
                    failures += 1
        finally:
            socket.close()
            self._metrics.known(False)

    def _pause_s(self, error: Exception, failures: int) -> float:
        """Take note of a failure; return how long to wait after it."""
        known = error if isinstance(error, OnvifError) else OnvifError("answer", f"{type(error).__name__}: {error}")
        self._unknown(known)
        return CREDENTIALS_BACKOFF_S if known.cause == "credentials" else BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]

    def _statuses(self) -> Iterator[PtzStatus]:
        """Connect, and yield the camera's answers until it gives none.  Raise OnvifError."""
        assert self._camera.onvif_url is not None
        device = OnvifDevice(self._camera.onvif_url, self._onvif.profile)
        try:
            ahead_s = device.clock_ahead_s
            if ahead_s is not None and abs(ahead_s) > CLOCK_OFF_S:
                self._log.info("clock of the camera is off", ahead_s=round(ahead_s))
            while not self._stop.is_set():
                asked_s = time.monotonic()
                yield device.status()
                self._stop.wait(max(0.0, POLL_S - (time.monotonic() - asked_s)))
        finally:
            device.close()

    def _pass_on(self, socket: Socket, status: PtzStatus) -> None:
        offset_ns = self._offset_ns()
        if offset_ns is None:
            return
        try:
            sample = axis_of(self._camera.id, self._pose, self._onvif, status, offset_ns)
            socket.send_multipart(encode(sample), flags=zmq.DONTWAIT)
        except OnvifError as error:
            self._unknown(error)
        except zmq.Again:
            self._metrics.failed("queue")
        else:
            if self._cause is not None:
                azimuth_deg, elevation_deg = round(sample.azimuth_deg, 1), round(sample.elevation_deg, 1)
                self._log.info("camera pose known", azimuth_deg=azimuth_deg, elevation_deg=elevation_deg)
            self._cause = None
            self._metrics.known(True)

    def _unknown(self, error: OnvifError) -> None:
        """Count it, and log a new cause as a warning, repeats of it at debug level."""
        self._metrics.known(False)
        self._metrics.failed(error.cause)
        log = self._log.debug if error.cause == self._cause else self._log.warning
        self._cause = error.cause
        log("camera pose unknown, its tracks have no bearing", reason=str(error))
