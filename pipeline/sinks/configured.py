"""Build the sinks of a configuration."""

from pipeline.config.models import Config
from pipeline.config.sinks import (
    JsonlSinkConfig,
    MqttSinkConfig,
    NotifySinkConfig,
    PushSinkConfig,
    SinkConfig,
    WebhookSinkConfig,
)
from pipeline.config.tactical import CotSinkConfig, SapientSinkConfig
from pipeline.sinks.jsonl import KEPT, ROTATE_BYTES, JsonlSink
from pipeline.sinks.sink import Sink

JSONL_SHARE = 0.1  # of retention.max_gb, for all files of one JSONL sink


def configured_sinks(config: Config) -> list[Sink]:
    """Return one sink per entry of `sinks`."""
    return [_sink(config, entry) for entry in config.sinks]


def _sink(config: Config, entry: SinkConfig) -> Sink:
    # Each imports its own library, which a site without such a sink does not need.
    match entry:
        case JsonlSinkConfig():
            file_bytes = JSONL_SHARE * config.retention.max_gb * 1e9 / (KEPT + 1)
            return JsonlSink(config.sink_path(entry), round(min(ROTATE_BYTES, file_bytes)), entry)
        case WebhookSinkConfig():
            from pipeline.sinks.webhook import WebhookSink

            return WebhookSink(entry)
        case MqttSinkConfig():
            from pipeline.sinks.mqtt import MqttSink

            return MqttSink(entry, config)
        case NotifySinkConfig():
            from pipeline.sinks.notify import NotifySink

            return NotifySink(entry, config.snapshots_path)
        case PushSinkConfig():
            from pipeline.sinks.push import PushSink
            from pipeline.sinks.push_files import PushFiles

            return PushSink(entry, PushFiles(config.run_dir))
        case CotSinkConfig():
            from pipeline.sinks.cot import CotSink

            return CotSink(entry, config)
        case SapientSinkConfig():
            from pipeline.sinks.sapient import SapientSink

            return SapientSink(entry, config)
