"""What `dasnet check` says of the sinks: what they are, without secrets, and what they lack on this machine."""

import importlib.util
import ssl
from collections.abc import Iterator
from pathlib import Path

from pipeline.config.models import Config
from pipeline.config.sinks import MqttSinkConfig, NotifySinkConfig, SinkConfig, WebhookSinkConfig


def describe_sink(entry: SinkConfig) -> str:
    """Return a line about a sink: its destination and its filter."""
    what = entry.type if entry.name is None else f"{entry.name}, {entry.type}"
    details = [what, *_destination(entry)]
    if entry.kinds is not None:
        details.append(f"kinds {' '.join(entry.kinds)}")
    if entry.min_severity is not None:
        details.append(f"from severity {entry.min_severity}")
    if entry.cameras is not None:
        details.append(f"cameras {' '.join(entry.cameras)}")
    if entry.labels is not None:
        details.append(f"labels {' '.join(entry.labels)}")
    return f"  sink {', '.join(details)}"


def _destination(entry: SinkConfig) -> list[str]:
    match entry:
        case WebhookSinkConfig():
            encrypted = "" if entry.url.startswith("https:") else ", NOT encrypted"
            return [f"to {entry.host}{encrypted}", "signed" if entry.secret is not None else "not signed"]
        case MqttSinkConfig():
            encrypted = "" if entry.tls is not None else ", NOT encrypted"
            return [f"to {entry.host}{encrypted}", f"topics {entry.topic}/#"]
        case NotifySinkConfig():
            return [f"by {entry.url.partition(':')[0]}"]
        case _:
            return []


def sink_faults(config: Config) -> Iterator[str]:
    """Yield a fault for each sink that cannot work on this machine."""
    for number, entry in enumerate(config.sinks):
        for key, fault in _faults(entry):
            yield f"sinks[{number}].{key}: {fault}"


def _faults(entry: SinkConfig) -> Iterator[tuple[str, str]]:
    if isinstance(entry, NotifySinkConfig):
        yield from _notify_faults(entry)
    if isinstance(entry, WebhookSinkConfig) and entry.ca is not None:
        yield from _ca_faults("ca", entry.ca)
    if isinstance(entry, MqttSinkConfig) and entry.tls is not None:
        if entry.tls.ca is not None:
            yield from _ca_faults("tls.ca", entry.tls.ca)
        if entry.tls.certificate is not None:
            try:
                ssl.create_default_context().load_cert_chain(entry.tls.certificate, entry.tls.key, password="")
            except OSError as error:  # SSLError is one
                yield "tls.certificate", f"{entry.tls.certificate}: cannot be used with tls.key ({_reason(error)})"


def _ca_faults(key: str, path: Path) -> Iterator[tuple[str, str]]:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:
        yield key, f"{path}: must be a PEM file of certificates ({_reason(error)})"


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__


def _notify_faults(entry: NotifySinkConfig) -> Iterator[tuple[str, str]]:
    if importlib.util.find_spec("apprise") is None:
        yield "type", 'notify needs Apprise; install it with: pip install "dasnet[notify]"'
        return
    from pipeline.sinks.notify import is_known

    if not is_known(entry.url):
        scheme = entry.url.partition(":")[0]
        yield "url", f"must be an address that Apprise knows, complete for its service (given: '{scheme}://***')"
