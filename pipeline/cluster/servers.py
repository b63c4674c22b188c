"""The NATS servers of a site: connections, and the streams that hosts share, created where they are missing."""

import asyncio
import ssl

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from pipeline.config.hosts import NatsConfig, login_of, place_of
from pipeline.errors import ClusterError

CONNECT_TIMEOUT_S = 2
CLOSE_TIMEOUT_S = 0.5
REQUEST_TIMEOUT_S = 1.0  # of one request; a lost packet delays it by some tenths of a second
DUPLICATE_WINDOW_S = 120
MAX_EVENTS_BYTES = 1 << 30
FAILURES = (nats.errors.Error, OSError, TimeoutError, ValueError)


async def connected(server: str, config: NatsConfig, client_name: str) -> Client:
    """Return a connection, which does not connect again by itself.  Raise ClusterError."""
    user, password = login_of(server)
    client = Client()
    try:
        connecting = client.connect(
            place_of(server),
            user=user,
            password=password,
            name=client_name,
            error_cb=_ignore,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=CONNECT_TIMEOUT_S,
            tls=_context(config) if server.startswith("tls:") else None,
        )
        await asyncio.wait_for(connecting, CONNECT_TIMEOUT_S + 0.5)
    except FAILURES as error:
        await close(client)  # a server that accepts connections but does not answer would use up the descriptors
        raise ClusterError(reason_of(error)) from None
    return client


async def close(client: Client) -> None:
    """Close a connection; where the server is gone, without waiting until all was sent."""
    try:
        await asyncio.wait_for(client.close(), CLOSE_TIMEOUT_S)
    except FAILURES:
        return


def stream_names(site: str) -> tuple[str, str, str]:
    """Return the names of the buckets of leases and of tracks, and of the stream of events."""
    return f"{site}-leases", f"{site}-tracks", f"{site}-events"


async def create_streams(client: Client, site: str, keep_days: float, replicas: int) -> None:
    """Create what is missing.  Raise ClusterError, and close the connection."""
    stream = client.jetstream(timeout=REQUEST_TIMEOUT_S)
    *buckets, events = stream_names(site)
    try:
        for bucket in buckets:
            if not await _exists(stream, f"KV_{bucket}"):
                config = api.KeyValueConfig(bucket=bucket, storage=api.StorageType.FILE, direct=True, replicas=replicas)
                await stream.create_key_value(config)
        if not await _exists(stream, events):
            await stream.add_stream(
                api.StreamConfig(
                    name=events,
                    subjects=[f"{site}.events.*"],
                    storage=api.StorageType.FILE,
                    num_replicas=replicas,
                    max_age=keep_days * 86400,
                    max_bytes=MAX_EVENTS_BYTES,
                    duplicate_window=DUPLICATE_WINDOW_S,
                )
            )
    except (nats.js.errors.NoStreamResponseError, nats.js.errors.ServiceUnavailableError):
        await close(client)
        raise ClusterError("has no JetStream; start nats-server with -js") from None
    except FAILURES as error:
        await close(client)
        raise ClusterError(f"streams cannot be created ({reason_of(error)})") from None


async def _exists(stream: JetStreamContext, name: str) -> bool:
    try:
        await stream.stream_info(name)
    except nats.js.errors.NotFoundError:
        return False
    return True


def reason_of(error: BaseException) -> str:
    """Return a failure in words, without logins."""
    text = str(error)
    if "Authorization" in text or isinstance(error, nats.errors.AuthorizationError):
        return "user or password rejected"
    if isinstance(error, TimeoutError | nats.errors.TimeoutError):
        return "no answer"
    if isinstance(error, nats.errors.NoServersError | ConnectionRefusedError):
        return "cannot connect"
    return text or type(error).__name__


def _context(config: NatsConfig) -> ssl.SSLContext:
    tls = config.tls
    context = ssl.create_default_context(cafile=tls.ca if tls is not None else None)
    if tls is not None and tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


async def _ignore(_: Exception) -> None:
    """Failures are raised by the requests that they end."""
