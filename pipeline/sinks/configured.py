"""Build the sinks of a configuration."""

from pipeline.config.models import Config
from pipeline.sinks.jsonl import KEPT, ROTATE_BYTES, JsonlSink
from pipeline.sinks.sink import Sink

JSONL_SHARE = 0.1  # of retention.max_gb, for all files of one JSONL sink


def configured_sinks(config: Config) -> list[Sink]:
    """Return one sink per entry of `sinks`."""
    file_bytes = JSONL_SHARE * config.retention.max_gb * 1e9 / (KEPT + 1)
    return [JsonlSink(config.sink_path(entry), round(min(ROTATE_BYTES, file_bytes))) for entry in config.sinks]
