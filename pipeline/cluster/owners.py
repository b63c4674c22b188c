"""Which host owns which camera, for an edge host: it reads the keys of all hosts, and writes none."""

from pipeline.cluster.connection import Connection
from pipeline.cluster.jetstream import JetStream
from pipeline.cluster.leases import RENEW_PERIOD_S, View
from pipeline.config.hosts import NatsConfig

CLOSE_TIMEOUT_S = 2.0


class Owners:
    """Follows the owners in a thread.  While no server answers, they are those that were last known.

    Args:
        nats: the servers.
        host: this one.
        keep_days: how long events are kept.
    """

    def __init__(self, nats: NatsConfig, host: str, keep_days: float) -> None:
        self._owners: dict[str, str] = {}
        self._connection = Connection(nats, host, keep_days)
        self._connection.start([self._follow])

    def of(self, camera: str) -> str | None:
        """Return the host that owns a camera, or owned it last; None: not known yet."""
        return self._owners.get(camera)

    def close(self) -> None:
        """End the thread."""
        self._connection.close(CLOSE_TIMEOUT_S)

    async def _follow(self, stream: JetStream) -> float:
        self._owners |= owners_of(await stream.view())
        return RENEW_PERIOD_S


def owners_of(view: View) -> dict[str, str]:
    """Return the cameras whose owner has a session, and that host."""
    sessions = {record.session for record in view.hosts.values()} - {""}
    return {name: record.host for name, record in view.cameras.items() if record.session in sessions}
