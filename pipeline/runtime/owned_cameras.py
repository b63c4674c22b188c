"""Which cameras the supervisor captures in a site whose cameras several inference hosts share.

    inference host    those that its track worker owns
    edge host         its own, each for the host that owns it: a capture worker is replaced when its camera moves

On an inference host the track worker starts once the segmentation worker has loaded the network: a host that joined
earlier would be given cameras that it cannot process yet.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import structlog

from pipeline.config.models import Config
from pipeline.runtime.process_table import WorkerProcess, capture_name
from pipeline.timeouts import WORKER_SILENCE_TIMEOUT_S

SEGMENTATION, TRACKING = "segmentation", "tracking"


class SharedCapture(ABC):
    """A container of the ids of the cameras to capture now."""

    @abstractmethod
    def __contains__(self, camera: object) -> bool:
        """Return whether a camera is to be captured."""

    def must_wait(self, process: WorkerProcess) -> bool:  # noqa: ARG002
        """Return whether a process is not to be started yet; `due` yields it later."""
        return False

    def due(self, table: Sequence[WorkerProcess]) -> Iterator[WorkerProcess]:  # noqa: ARG002
        """Yield the processes that waited, when they are to be started."""
        yield from ()

    def follow(self, table: Sequence[WorkerProcess]) -> list[WorkerProcess]:  # noqa: ARG002
        """Take over what is known now; return the processes to be replaced."""
        return []

    def config_of(self, process: WorkerProcess, config: Config) -> Config:  # noqa: ARG002
        """Return the configuration that a process starts with."""
        return config

    def watched(self, config: Config) -> Config:
        """Return the configuration with only the cameras to capture: the others are those of another host."""
        return config.model_copy(update={"cameras": [camera for camera in config.cameras if camera.id in self]})

    def close(self) -> None:  # noqa: B027
        """End what follows the owners."""


class OwnedCameras(SharedCapture):
    """Of an inference host."""

    def __init__(self) -> None:
        self._cameras: frozenset[str] = frozenset()
        self._inferring_s = math.inf  # when the segmentation worker was last seen; inf: not yet

    def __contains__(self, camera: object) -> bool:
        """Return whether this host owns a camera."""
        return camera in self._cameras

    def must_wait(self, process: WorkerProcess) -> bool:
        """Let the track worker wait."""
        if process.name == TRACKING:
            process.restart_s = math.inf
        return process.name == TRACKING

    def due(self, table: Sequence[WorkerProcess]) -> Iterator[WorkerProcess]:
        """Yield the track worker once the segmentation worker is there, and is not silent."""
        named = {process.name: process for process in table}
        tracking, heartbeat_s = named.get(TRACKING), named[SEGMENTATION].heartbeat_s
        is_there = heartbeat_s > 0 and time.monotonic() - heartbeat_s < WORKER_SILENCE_TIMEOUT_S
        if tracking is not None and math.isinf(tracking.restart_s) and is_there:
            tracking.restart_s = 0.0
            yield tracking

    def follow(self, table: Sequence[WorkerProcess]) -> list[WorkerProcess]:
        """Take over what the track worker reported last; replace it where nothing has been inferred for too long.

        It then hands the cameras over, and waits as at the start.
        """
        named = {process.name: process for process in table}
        segmentation, tracking = named[SEGMENTATION], named.get(TRACKING)
        self._cameras = tracking.captures if tracking is not None else frozenset()
        now_s = time.monotonic()
        if segmentation.child is not None and segmentation.heartbeat_s:
            self._inferring_s = segmentation.heartbeat_s
        if tracking is None or tracking.child is None or now_s - self._inferring_s < WORKER_SILENCE_TIMEOUT_S:
            return []
        if not tracking.leaving:
            structlog.get_logger().error("no inference on this host: its cameras are handed over")
        return [tracking]


class LinkedCameras(SharedCapture):
    """Of an edge host.

    Args:
        cameras: of this host.
        owner_of: the host that owns a camera; None: not known yet.
        close: ends what follows the owners.
    """

    def __init__(
        self, cameras: Sequence[str], owner_of: Callable[[str], str | None], close: Callable[[], None]
    ) -> None:
        self._names = {capture_name(camera): camera for camera in cameras}
        self._owner_of, self._close = owner_of, close
        self._linked: dict[str, str] = {}  # process -> the host that it sends to

    def __contains__(self, camera: object) -> bool:
        """Return whether the owner of a camera is known."""
        return isinstance(camera, str) and self._owner_of(camera) is not None

    def follow(self, table: Sequence[WorkerProcess]) -> list[WorkerProcess]:
        """Return the capture workers whose cameras have moved."""
        return [
            process
            for process in table
            if process.name in self._linked and self._owner_of(self._names[process.name]) != self._linked[process.name]
        ]

    def config_of(self, process: WorkerProcess, config: Config) -> Config:
        """Return the configuration with the link to the camera's owner."""
        owner = self._owner_of(self._names[process.name])
        entry = config.hosts.get(owner or "")
        if owner is None or entry is None or config.link is None:
            return config
        self._linked[process.name] = owner
        return config.model_copy(update={"link": config.link.at(entry)})

    def close(self) -> None:
        """End what follows the owners."""
        self._close()


def shared_capture(config: Config, edge_host: str | None) -> SharedCapture | None:
    """Return what to capture on a host, or None in a site with one inference host."""
    if config.nats is None:
        return None
    if edge_host is None:
        return OwnedCameras()
    from pipeline.cluster.owners import Owners  # imports nats

    owners = Owners(config.nats, edge_host, config.retention.days)
    return LinkedCameras([camera.id for camera in config.cameras], owners.of, owners.close)
