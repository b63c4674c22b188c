"""What `dasnet check --connect` says of the NATS servers of a site with several inference hosts."""

import asyncio

from pipeline.config.hosts import NatsConfig, place_of
from pipeline.config.models import Config
from pipeline.errors import ClusterError


def check_nats(config: Config) -> tuple[list[str], bool]:
    """Connect to every NATS server, and read what hosts share there.

    Returns:
        A line for each, and whether any is there.
    """
    if config.nats is None:
        return [], True
    answers = asyncio.run(_answers(config.nats, config.retention.days))
    return [line for line, _ in answers], any(there for _, there in answers)


async def _answers(nats: NatsConfig, keep_days: float) -> list[tuple[str, bool]]:
    """Return a line for each server, and whether it is there."""
    from pipeline.cluster.jetstream import JetStream  # imports nats

    answers = []
    for server in nats.servers:
        try:
            stream = await JetStream.connect(nats, "dasnet check", keep_days, only=server)
            hosts = (await stream.view()).hosts.items()
            await stream.close()
        except ClusterError as error:
            answers.append((f"  nats FAILED: {error}", False))
            continue
        running = sorted(f"{name} ({record.version})" for name, record in hosts if record.session)
        answers.append((f"  nats {place_of(server)} is there; hosts: {', '.join(running) or 'none'}", True))
    return answers
