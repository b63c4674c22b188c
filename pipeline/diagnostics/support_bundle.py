"""`dasnet support-bundle`: diagnostic information in one zip file that is safe to share.

Collects a site's configuration, the files of its run folder, and the metrics of a running program.  Every text is
redacted; there are no images; each part is bounded.  A part that cannot be collected is a line in `missing.txt`, not a
failure.
"""

import importlib.metadata
import json
import math
import os
import platform
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import msgspec
import yaml

from pipeline import __version__
from pipeline.config.models import Config
from pipeline.config.yaml_file import read_yaml
from pipeline.console.status import public
from pipeline.diagnostics.doctor import describe, examine
from pipeline.errors import DasnetError
from pipeline.runtime.logs import files
from pipeline.store import ledger
from pipeline.store.reader import StoreReader
from pipeline.telemetry import health

MAX_PART_BYTES = 4_000_000  # of longer parts the end is kept
EVENTS = 1000  # the newest
METRICS_TIMEOUT_S = 5.0


def write(path: Path, config: Config, out: Path) -> str:
    """Write the bundle for the configuration read from `path`.

    Returns:
        A summary to print.

    Raises:
        DasnetError: The file cannot be written.
    """
    redact = config.redactor
    missing: list[str] = []
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, collect in _parts(path, config):
                try:
                    text = collect()
                except Exception as error:  # noqa: BLE001 - the bundle must not fail on the fault it reports
                    missing.append(f"{name}: {type(error).__name__}: {error}")
                else:
                    bundle.writestr(name, _end(redact(text)))
            bundle.writestr("missing.txt", _end(redact("".join(f"{line}\n" for line in missing))))
        partial.replace(out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DasnetError(f"{out}: cannot be written ({error.strerror})") from error
    size = out.stat().st_size
    lines = [f"{out}: {size / 1e6:.1f} MB, secrets redacted, no images; review it before sharing it"]
    return redact("\n".join(lines + [f"  not included: {line}" for line in missing]))


def _parts(path: Path, config: Config) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "versions.json", _versions
    yield "config.yaml", lambda: _yaml(config, read_yaml(path).value)
    yield "config-with-defaults.yaml", lambda: _yaml(config, config.model_dump(mode="json"))
    yield "check.txt", lambda: describe(path, config)
    yield "doctor.txt", lambda: examine(config.run_dir)[0]
    yield "metrics.txt", lambda: _metrics(config)
    yield "ledgers.json", lambda: _ledgers(config)
    yield "events.jsonl", lambda: _events(config)
    yield "run-folder.txt", lambda: _listing(config.run_dir)
    for log in files(config.log_path):
        yield f"log/{log.name}", lambda log=log: _tail(log)  # type: ignore[misc]


def _yaml(config: Config, settings: object) -> str:
    """Return YAML without comments, which may hold old passwords, and without line breaks within strings."""
    shown = config.redactor.every(public(settings, config.references))
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=math.inf)


def _versions() -> str:
    installed = {entry.name: entry.version for entry in importlib.metadata.distributions()}
    about = {
        "dasnet": __version__,
        "python": sys.version,
        "system": platform.platform(),
        "made": time.strftime("%FT%T%z"),
    }
    return json.dumps(about | {"packages": dict(sorted(installed.items()))}, indent=1)


def _metrics(config: Config) -> str:
    url = health.published(config.metrics_address_path)
    if url is None:
        raise DasnetError("dasnet is not running")
    with urllib.request.urlopen(url, timeout=METRICS_TIMEOUT_S) as answer:
        return str(answer.read().decode(errors="replace"))


def _ledgers(config: Config) -> str:
    accounts: dict[str, object] = {}
    for camera in config.cameras:
        try:
            accounts[camera.id] = asdict(ledger.read(config.ledger_path(camera.id)))
        except (OSError, ValueError, DasnetError) as error:
            accounts[camera.id] = f"cannot be read: {error}"
    return json.dumps(accounts, indent=1)


def _events(config: Config) -> str:
    with StoreReader(config.store_path) as reader:
        return "".join(msgspec.json.encode(stored.event).decode() + "\n" for stored in reader.events(EVENTS))


def _listing(folder: Path) -> str:
    """Return sizes and times of the entries of the run folder; of its folders number and total size of the files."""
    lines = []
    for path in sorted(folder.iterdir()):
        inside = [entry.stat().st_size for entry in path.iterdir()] if path.is_dir() else []
        about = path.stat()
        size = f"{len(inside)} files, {sum(inside)} bytes" if path.is_dir() else f"{about.st_size} bytes"
        lines.append(f"{time.strftime('%FT%T%z', time.localtime(about.st_mtime))} {path.name}: {size}\n")
    return "".join(lines)


def _tail(path: Path) -> str:
    """Return the file's last complete lines: a truncated secret would not be redacted."""
    with path.open("rb") as file:
        start = max(0, os.fstat(file.fileno()).st_size - MAX_PART_BYTES)
        file.seek(start)
        text = file.read(MAX_PART_BYTES).decode(errors="replace")
    return text.partition("\n")[2] if start else text


def _end(text: str) -> bytes:
    """Return the last complete lines, up to MAX_PART_BYTES; truncated after redaction."""
    data = text.encode(errors="replace")
    if len(data) <= MAX_PART_BYTES:
        return data
    return data[-MAX_PART_BYTES:].partition(b"\n")[2]
