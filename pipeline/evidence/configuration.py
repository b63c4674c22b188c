"""The configuration that was in use, without secrets, as a file of its own that the log has the digest of."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config.models import Config
from pipeline.evidence.leaves import CONFIGURATIONS
from pipeline.evidence.log import EvidenceError
from pipeline.store.folders import write_whole

PLACE = ("lat", "lon", "height_m")
DIGITS = 16  # of the digest, in the file's name


def configuration_json(config: Config) -> bytes:
    """Return a configuration with its secrets replaced, the same at every start."""
    redacted = config.redactor.every(config.model_dump(mode="json"))
    return json.dumps(redacted, indent=1, sort_keys=True, ensure_ascii=False).encode()


def configuration_name(sha256: str) -> str:
    """Return the name of a configuration's file in the run folder."""
    return f"{CONFIGURATIONS}/{sha256[:DIGITS]}.json"


def write_configuration(config: Config) -> str:
    """Write the configuration unless it is there; return its digest.  Raise EvidenceError."""
    data = configuration_json(config)
    sha256 = hashlib.sha256(data).hexdigest()
    write_once(config.run_dir / configuration_name(sha256), data)
    return sha256


class _Camera(msgspec.Struct):
    id: str
    pose: dict[str, Any] | None = None


class _Cameras(msgspec.Struct):
    cameras: list[_Camera]


def pose_of(camera: str, path: Path) -> dict[str, float] | None:
    """Return the pose of a camera in the configuration of a file, of one that turns its place alone, or None."""
    try:
        cameras = msgspec.json.decode(path.read_bytes(), type=_Cameras).cameras
    except (OSError, msgspec.DecodeError):
        return None
    pose = next((each.pose for each in cameras if each.id == camera), None)
    if pose is None:
        return None
    if pose.pop("onvif", None) is not None:
        pose = {key: pose.get(key) for key in PLACE}
    return {key: value for key, value in pose.items() if isinstance(value, int | float)}


def write_once(path: Path, data: bytes) -> None:
    """Write a file, at once or not at all, unless it exists.  Raise EvidenceError."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror}") from error
