"""Reports of `dasnet check` and `dasnet doctor`: the meaning of a configuration, and the state of the installation."""

import importlib.metadata
import platform
import re
from pathlib import Path

from model.native.processor import FEATURES, cpuinfo, features
from pipeline import __version__
from pipeline.checkpoints import SHIPPED, checkpoint_path
from pipeline.config.console import Tls
from pipeline.config.models import Config
from pipeline.console import certificate
from pipeline.diagnostics.sink_check import describe_sink
from pipeline.diagnostics.system import describe_machine
from pipeline.store.daily_cost import describe_cost, describe_recording, describe_retention
from pipeline.tracking.camera_settings import places_of

DECODERS = ("h264", "hevc", "mjpeg", "ffv1", "tiff")
FORMATS = ("rtsp", "video4linux2,v4l2", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2")  # FFmpeg's names


def describe(path: Path, config: Config) -> str:
    """Return a summary of a valid configuration, without its secrets.

    Raises:
        ConfigError: A file that it names cannot be used.
    """
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
            details.append(f"decoded by {camera.decode} (hardware decoding: experimental)")
        if camera.region:
            details.append("region of interest {}, {} to {}, {}".format(*camera.region))
        if camera.ignore:
            details.append(f"{len(camera.ignore)} privacy masks")
        if camera.zones or camera.sectors:
            details.append(f"zones {', '.join((*camera.zones, *camera.sectors))}")
        lines.append(f"  camera {camera.id}: {', '.join(details)}")
    if config.link:
        how = f"keys in {config.link.keys}" if config.link.keys else "NOT encrypted"
        host = config.link.host or "the host that owns their camera"
        place = f"{host}:{config.link.port} to {config.link.clips_port}"
        lines.append(f"  edge hosts connect to {place}, {config.link.pixels} frames, {how}")
    for name, entry in config.hosts.items():
        lines.append(f"  inference host {name}: {entry.address}, capacity {entry.capacity:g}")
    if config.nats is not None:
        lines.append(f"  hosts share cameras over {config.nats.places}")
    if len(paired := places_of(config)) > 1:
        lines.append(f"  cameras that share the alert of a target that they both see: {', '.join(paired)}")
    if config.rules:
        named = (f"{rule.name} (record)" if rule.action == "record" else rule.name for rule in config.rules)
        lines.append(f"  rules, in order: {', '.join(named)}; all else: alert")
    lines += [
        f"  checkpoint: {checkpoint_path(config.model.checkpoint)}",
        f"  engine: {config.model.engine} on {config.model.device}",
        f"  objective: capture to track within {config.objective.capture_to_track_ms:g} ms",
        f"  store: {config.store_path}",
        f"  recording: {describe_recording(config)}",
        f"  retention: {describe_retention(config)}",
        f"  storage: {describe_cost(config)}",
        f"  metrics: {config.metrics.host}:{config.metrics.port or 'any free port'}",
        f"  console: {config.console.host}:{config.console.port or 'any free port'}{_tls(config.console.tls)}",
        *(describe_sink(config, entry) for entry in config.sinks),
        f"  log: {config.log_path}, {config.log.format} on stderr",
        f"  run folder: {config.run_dir}",
    ]
    return config.redactor("\n".join(lines))


def _tls(tls: Tls | None) -> str:
    """Return a description of TLS; raise ConfigError where the certificate or its key cannot be used."""
    if tls is None:
        return ""
    reason = certificate.browser_objection(certificate.load(tls), tls.certificate)
    return f", TLS with {tls.certificate}" + (f", which browsers reject: {reason}" if reason else "")


def examine(folder: Path) -> tuple[str, bool]:
    """Examine the installation and this machine.

    Args:
        folder: Where a run would write.

    Returns:
        The report, and whether every requirement is met.
    """
    lines = [f"dasnet {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    sections = (_packages, _processor, _devices, _media, _checkpoint)
    results = [section() for section in sections]
    lines += [line for found, _ in results for line in found]
    lines += describe_machine(folder)
    healthy = all(good for _, good in results)
    lines.append("all requirements are met" if healthy else "requirements are missing, see above")
    return "\n".join(lines), healthy


def requirements() -> list[str]:
    """Return the names of the packages that dasnet requires, without extras.

    Raises:
        PackageNotFoundError: dasnet is not installed.
    """
    declared = importlib.metadata.requires("dasnet") or []
    return [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in declared if "extra ==" not in line]


def _packages() -> tuple[list[str], bool]:
    lines, healthy = [], True
    try:
        wanted = requirements()
    except importlib.metadata.PackageNotFoundError:
        return ["  MISSING  dasnet is not installed, so its requirements are unknown; run: pip install ."], False
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
    return [f"processor: {name}, {torch.get_num_threads()} threads", f"  features: {found}"], True


def _devices() -> tuple[list[str], bool]:
    import torch

    if not torch.cuda.is_available():
        return ["device: no usable CUDA device; inference runs on the CPU"], True
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
        f"engine on the CPU: {choice.kind} in {choice.precision} ({choice.reason})",
        f"checkpoint: {SHIPPED.name}, {metadata.network}, {', '.join(metadata.classes)}",
    ], True
