"""What `dasnet check` and `dasnet doctor` say."""

import importlib.metadata
import os
import platform
from pathlib import Path

from model.processor import FEATURES, cpuinfo, features
from pipeline import __version__
from pipeline.checkpoints import SHIPPED, checkpoint_path
from pipeline.config import Config

PACKAGES = ("torch", "opencv-python-headless", "av", "numpy", "pyzmq", "prometheus-client", "PyYAML", "scipy")
CODECS = ("h264", "hevc", "mjpeg", "ffv1", "tiff")


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
        if camera.ignore:
            details.append(f"{len(camera.ignore)} ignored areas")
        lines.append(f"  camera {camera.id}: {', '.join(details)}")
    lines += [
        f"  checkpoint: {checkpoint_path(config.model.checkpoint)}",
        f"  engine: {config.model.engine} on {config.model.device}",
        f"  objective: capture to track within {config.objective.capture_to_track_ms:g} ms",
        f"  store: {config.store_path}",
        f"  metrics: {config.metrics.host}:{config.metrics.port or 'any free port'}",
        f"  console: {config.console.host}:{config.console.port or 'any free port'}",
        f"  sinks: {', '.join(sink.type for sink in config.sinks) or 'none'}",
        f"  run folder: {config.run_dir}",
    ]
    return "\n".join(lines)


def examine() -> tuple[str, bool]:
    """The report, and whether everything that is needed is there."""
    import av.codec
    import torch

    from model import load
    from model.choice import choose
    from model.errors import ModelError

    lines = [f"dasnet {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    healthy = True
    for name in PACKAGES:
        try:
            lines.append(f"  ok       {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"  MISSING  {name}")
            healthy = False
    processor = cpuinfo("model name") or platform.processor() or "unknown"
    lines.append(f"processor: {processor}, {os.cpu_count()} cores visible, {torch.get_num_threads()} threads used")
    lines.append(f"  features: {', '.join(sorted(features())) or 'none of ' + ', '.join(FEATURES)}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            lines.append(f"device: cuda:{index} {torch.cuda.get_device_name(index)}")
    else:
        lines.append("device: no CUDA device is usable; the network runs on the processor")
    missing = [codec for codec in CODECS if codec not in av.codec.codecs_available]
    lines.append(f"decoders: {', '.join(codec for codec in CODECS if codec not in missing)}")
    if missing:
        lines.append(f"  MISSING  {', '.join(missing)}")
        healthy = False
    try:
        loaded = load(SHIPPED)
        metadata = loaded.metadata
        choice = choose(loaded.network, 128, None)
        lines.append(f"engine on the processor: {choice.kind} in {choice.precision} ({choice.reason})")
        lines.append(f"checkpoint: {SHIPPED.name}, {metadata.network}, {', '.join(metadata.classes)}")
    except ModelError as error:
        lines.append(f"  MISSING  {error}")
        healthy = False
    lines.append("all that is needed is there" if healthy else "something is missing, see above")
    return "\n".join(lines), healthy
