"""Camera states, axes and ledgers from edge hosts, on the inference host.

In: authenticated messages from capture workers on other hosts.  Out: copies of their ledgers in the run folder, and one
authenticated socket that the track worker reads.
"""

import structlog
import zmq

from pipeline.config.hosts import Link
from pipeline.config.models import Config
from pipeline.errors import WireError
from pipeline.store.ledger import LedgerCopies
from pipeline.telemetry.metrics import TrackingMetrics
from pipeline.tracking.edge_clips import EdgeClips
from pipeline.transport.link import HostAuthenticator
from pipeline.transport.rejects import RejectLog
from pipeline.transport.sockets import Socket
from pipeline.transport.wire import LedgerCopy, Message, camera_of
from pipeline.types import AxisSample, CameraState


class EdgeHosts:
    """The sockets that edge hosts connect to, copies of their cameras' ledgers, and clips."""

    def __init__(self, config: Config, link: Link, metrics: TrackingMetrics) -> None:
        self._authenticator = HostAuthenticator(config, link, RejectLog("link", metrics.refused))
        self._listener = self._authenticator.listener(zmq.PULL, link.results_port, 64, metrics.listening)
        self.clips = EdgeClips(config, link, self._authenticator, metrics)
        self._copies = LedgerCopies()
        self._ledger_path = config.ledger_path
        self._log = structlog.get_logger()

    @property
    def socket(self) -> Socket:
        """The socket that camera states and ledgers arrive at."""
        return self._listener.socket

    def bind(self) -> None:
        """Bind the socket to its address as soon as it is free."""
        self._listener.bind()

    def watch(self, config: Config, removed: frozenset[str]) -> None:
        """Apply a new configuration; stop copying the ledgers of removed and of local cameras."""
        local = {camera.id for camera in config.cameras if camera.host is None}
        for camera in local | removed:
            self._copies.release(self._ledger_path(camera))
        self._authenticator.watch(config)
        self.clips.watch(config)

    def check(self, message: Message, part: zmq.Frame) -> None:
        """Raise WireError unless this host may send the message for this camera."""
        self._authenticator.check(camera_of(message), part)
        if not isinstance(message, CameraState | AxisSample | LedgerCopy):
            raise WireError(
                f"{type(message).__name__} from an edge host; must be CameraState, AxisSample or LedgerCopy"
            )

    def copy_ledger(self, copy: LedgerCopy) -> None:
        """Write a camera's ledger to this host's run folder.  Raise WireError where it is not a valid ledger."""
        try:
            self._copies.write(self._ledger_path(copy.camera), copy.words)
        except OSError as error:  # the next copy comes within a second
            self._log.warning("ledger copy not written", camera=copy.camera, reason=str(error))

    def close(self) -> None:
        """Close the sockets, the copies and the authenticator."""
        self.clips.close()
        self.socket.close()
        self._copies.close()
        self._authenticator.close()
