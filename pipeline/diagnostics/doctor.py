"""What `dasnet check` and `dasnet doctor` say.

In: a configuration; this machine.  Out: text for people, and whether all that is needed is there.
"""

import importlib.metadata
import platform
import re
from pathlib import Path

from model.native.processor import FEATURES, cpuinfo, features
from pipeline import __version__
from pipeline.checkpoints import SHIPPED, checkpoint_path
from pipeline.config.models import Config, Tls
from pipeline.console import certificate
from pipeline.diagnostics.system import machine
from pipeline.store.daily_cost import describe_cost, describe_retention

DECODERS = ("h264", "hevc", "mjpeg", "ffv1", "tiff")
FORMATS = ("rtsp", "video4linux2,v4l2", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2")  # FFmpeg's names


def describe(path: Path, config: Config) -> str:
    """A valid configuration in words, without its secrets.  Raises ConfigError where a file it names is missing."""
    lines = [f"{path}: valid"]
    for camera in config.cameras:
        details = [camera.band, camera.public_uri]
        if camera.uri.startswith("rtsp"):
            details.append(f"over {camera.transport}")
        if camera.rate_fps:
            details.append(f"at most {camera.rate_fps:g} frames/s")
        if camera.scale:
            details.append(f"scale {camera.scale:g}")
        if camera.host:
            details.append(f"on host {camera.host}")
        if camera.decode != "cpu":
            details.append(f"decoded by {camera.decode}")
        if camera.region:
            details.append("searched within {}, {} to {}, {}".format(*camera.region))
        if camera.ignore:
            details.append(f"{len(camera.ignore)} ignored areas")
        lines.append(f"  camera {camera.id}: {', '.join(details)}")
    if config.link:
        how = f"keys in {config.link.keys}" if config.link.keys else "NOT encrypted"
        place = f"{config.link.host}:{config.link.port} and {config.link.results_port}"
        lines.append(f"  other hosts send to {place}, {config.link.pixels} pixels, {how}")
    lines += [
        f"  checkpoint: {checkpoint_path(config.model.checkpoint)}",
        f"  engine: {config.model.engine} on {config.model.device}",
        f"  objective: capture to track within {config.objective.capture_to_track_ms:g} ms",
        f"  store: {config.store_path}",
        f"  retention: {describe_retention(config)}",
        f"  storage: {describe_cost(config)}",
        f"  metrics: {config.metrics.host}:{config.metrics.port or 'any free port'}",
        f"  console: {config.console.host}:{config.console.port or 'any free port'}{_tls(config.console.tls)}",
        f"  sinks: {', '.join(sink.type for sink in config.sinks) or 'none'}",
        f"  log: {config.log_path}, {config.log.format} on stderr",
        f"  run folder: {config.run_dir}",
    ]
    return config.redactor("\n".join(lines))


def _tls(tls: Tls | None) -> str:
    """Raise ConfigError where the certificate or its key cannot be used."""
    if tls is None:
        return ""
    reason = certificate.concern(certificate.load(tls), tls.certificate)
    return f", TLS with {tls.certificate}" + (f", which browsers refuse: {reason}" if reason else "")


def examine(folder: Path) -> tuple[str, bool]:
    """The report, and whether everything that is needed is there.  `folder` is where a run writes."""
    lines = [f"dasnet {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    sections = (_packages, _processor, _devices, _media, _checkpoint)
    results = [section() for section in sections]
    lines += [line for found, _ in results for line in found]
    lines += machine(folder)
    healthy = all(good for _, good in results)
    lines.append("all that is needed is there" if healthy else "something is missing, see above")
    return "\n".join(lines), healthy


def requirements() -> list[str]:
    """The packages that dasnet declares, without extras and versions.  Raises PackageNotFoundError."""
    declared = importlib.metadata.requires("dasnet") or []
    return [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in declared if "extra ==" not in line]


def _packages() -> tuple[list[str], bool]:
    lines, healthy = [], True
    try:
        wanted = requirements()
    except importlib.metadata.PackageNotFoundError:
        return ["  MISSING  dasnet itself is not installed, so that what it needs is not known: pip install ."], False
    for name in wanted:
        try:
            lines.append(f"  ok       {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"  MISSING  {name}")
            healthy = False
    return lines, healthy


def _processor() -> tuple[list[str], bool]:
    import torch

    name = cpuinfo("model name") or platform.processor() or "unknown"
    found = ", ".join(sorted(features())) or "none of " + ", ".join(FEATURES)
    return [f"processor: {name}, {torch.get_num_threads()} threads used", f"  features: {found}"], True


def _devices() -> tuple[list[str], bool]:
    import torch

    if not torch.cuda.is_available():
        return ["device: no CUDA device is usable; the network runs on the processor"], True
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [f"device: cuda:{index} {name}" for index, name in enumerate(names)], True


def _media() -> tuple[list[str], bool]:
    import av.codec
    import av.format

    lines, healthy = [], True
    wanted = {
        "decoders": (DECODERS, av.codec.codecs_available),
        "formats": (FORMATS, av.format.formats_available),
        "encoders": (("libx264",), av.codec.codecs_available),
    }
    for kind, (names, available) in wanted.items():
        missing = [name for name in names if name not in available]
        lines.append(f"{kind}: {', '.join(name.partition(',')[0] for name in names if name not in missing)}")
        if missing:
            lines.append(f"  MISSING  {', '.join(missing)}")
            healthy = False
    return lines, healthy


def _checkpoint() -> tuple[list[str], bool]:
    from model import load
    from model.engine.autotune import select_engine
    from model.errors import ModelError

    try:
        loaded = load(SHIPPED)
        choice = select_engine(loaded.network, 128, None)
    except ModelError as error:
        return [f"  MISSING  {error}"], False
    metadata = loaded.metadata
    return [
        f"engine on the processor: {choice.kind} in {choice.precision} ({choice.reason})",
        f"checkpoint: {SHIPPED.name}, {metadata.network}, {', '.join(metadata.classes)}",
    ], True
