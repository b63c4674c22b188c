"""What `dasnet check` says of the sinks: what they are, without secrets, and what they lack on this machine."""

import importlib.util
import ssl
from collections.abc import Iterator
from pathlib import Path

from pipeline.config.console import LOOPBACK
from pipeline.config.models import Config
from pipeline.config.sink import ClientTls
from pipeline.config.sinks import MqttSinkConfig, NotifySinkConfig, PushSinkConfig, SinkConfig, WebhookSinkConfig
from pipeline.config.tactical import CotSinkConfig, SapientSinkConfig
from pipeline.redaction import redact
from pipeline.sinks.connection import connected
from pipeline.sinks.push_files import PushFiles
from pipeline.sinks.sink import SinkError

_PACKAGES = {
    "notify": ("apprise", "Apprise"),
    "push": ("py_vapid", "py-vapid"),
    "cot": ("pytak", "PyTAK"),
    "sapient": ("sapient_msg_pydantic", "sapient-pydantic"),
}


def describe_sink(config: Config, entry: SinkConfig) -> str:
    """Return a line about a sink: its destination, its filter, and the cameras of which it can say little."""
    what = entry.type if entry.name is None else f"{entry.name}, {entry.type}"
    details = [what, *_destination(entry)]
    if isinstance(entry, PushSinkConfig):
        details.append(f"to {len(PushFiles(config.run_dir).subscriptions())} browsers")
        if config.console.tls is None and config.console.host not in LOOPBACK:
            details.append("browsers can subscribe only over TLS: set console.tls, or use a proxy that has it")
    if entry.kinds is not None:
        details.append(f"kinds {' '.join(entry.kinds)}")
    if entry.min_severity is not None:
        details.append(f"from severity {entry.min_severity}")
    if entry.cameras is not None:
        details.append(f"cameras {' '.join(entry.cameras)}")
    if entry.labels is not None:
        details.append(f"labels {' '.join(entry.labels)}")
    unplaced = _unplaced(config, entry)
    if unplaced and isinstance(entry, CotSinkConfig):
        details.append(f"NOT of cameras without a pose: {' '.join(unplaced)}")
    if unplaced and isinstance(entry, SapientSinkConfig):
        details.append(f"no detections of cameras without a pose: {' '.join(unplaced)}")
    return f"  sink {', '.join(details)}"


def _unplaced(config: Config, entry: SinkConfig) -> list[str]:
    """Return the cameras of a sink that have no pose."""
    watched = (camera for camera in config.cameras if entry.cameras is None or camera.id in entry.cameras)
    return [camera.id for camera in watched if camera.pose is None]


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
        case CotSinkConfig():
            return [f"to {entry.scheme}://{entry.host}{'' if entry.scheme == 'tls' else ', NOT encrypted'}"]
        case SapientSinkConfig():
            return [f"to {entry.host}, NOT encrypted"]
        case _:
            return []


def sink_faults(config: Config) -> Iterator[str]:
    """Yield a fault for each sink that cannot work on this machine."""
    for number, entry in enumerate(config.sinks):
        for key, fault in _faults(config, entry):
            yield f"sinks[{number}].{key}: {fault}"


def check_sinks(config: Config) -> tuple[list[str], bool]:
    """Connect to TAK servers and SAPIENT middleware, without a message.

    Returns:
        A line for each, and whether all are there.
    """
    lines, healthy = [], True
    for entry in config.sinks:
        if not isinstance(entry, CotSinkConfig | SapientSinkConfig):
            continue
        try:
            connected(entry).close()
            found = "is there" if entry.scheme != "udp" else "has a route; nobody answers datagrams"
        except SinkError as error:
            found, healthy = f"FAILED: {redact(str(error))}", False
        lines.append(f"  sink {entry.name or entry.type}: {entry.host} {found}")
    return lines, healthy


def _faults(config: Config, entry: SinkConfig) -> Iterator[tuple[str, str]]:
    module, package = _PACKAGES.get(entry.type, (None, None))
    if module is not None and importlib.util.find_spec(module) is None:
        yield "type", f'{entry.type} needs {package}; install it with: pip install "dasnet[{entry.type}]"'
        return
    match entry:
        case NotifySinkConfig():
            yield from _notify_faults(entry)
        case WebhookSinkConfig() if entry.ca is not None:
            yield from _ca_faults("ca", entry.ca)
        case PushSinkConfig() if entry.ca is not None:
            yield from _ca_faults("ca", entry.ca)
        case MqttSinkConfig() if entry.tls is not None:
            yield from _tls_faults(entry.tls)
        case CotSinkConfig():
            if entry.tls is not None:
                yield from _tls_faults(entry.tls)
            cameras = entry.cameras or [camera.id for camera in config.cameras]
            if set(_unplaced(config, entry)) == set(cameras):
                yield "type", f"cot needs a camera with a pose; none of {', '.join(cameras)} has one"


def _tls_faults(tls: ClientTls) -> Iterator[tuple[str, str]]:
    if tls.ca is not None:
        yield from _ca_faults("tls.ca", tls.ca)
    if tls.certificate is not None:
        try:
            ssl.create_default_context().load_cert_chain(tls.certificate, tls.key, password="")
        except OSError as error:  # SSLError is one
            yield "tls.certificate", f"{tls.certificate}: cannot be used with tls.key ({_reason(error)})"


def _ca_faults(key: str, path: Path) -> Iterator[tuple[str, str]]:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:
        yield key, f"{path}: must be a PEM file of certificates ({_reason(error)})"


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__


def _notify_faults(entry: NotifySinkConfig) -> Iterator[tuple[str, str]]:
    from pipeline.sinks.notify import is_known

    if not is_known(entry.url):
        scheme = entry.url.partition(":")[0]
        yield "url", f"must be an address that Apprise knows, complete for its service (given: '{scheme}://***')"
