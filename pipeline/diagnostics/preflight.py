"""Check before the start whether a site can run on this machine: its files exist, its folders can be written."""

import importlib.util
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from model.metadata import Role
from pipeline.capture.recordings import find_recordings
from pipeline.checkpoints import checkpoint_file
from pipeline.config.calibration import read_calibration
from pipeline.config.camera import Camera
from pipeline.config.models import Config
from pipeline.config.sinks import JsonlSinkConfig
from pipeline.config.uri import public_uri
from pipeline.config.users import read_users
from pipeline.diagnostics.sink_check import sink_faults
from pipeline.errors import ConfigError, SourceError
from pipeline.transport.keys import client_keys, server_keys

CLIPS = "demo:clips/"


def check_machine(path: Path, config: Config, host: str | None = None, *, outputs: bool = False) -> None:
    """Check the files and folders that a site needs.

    Args:
        path: The configuration file, named in messages.
        config: Its content.
        host: The edge host whose cameras run here, or one of several inference hosts; None: the only one.
        outputs: Also check the folders of log, store and sinks.  A site starts without them: events wait, and the log
            file is opened when it can be.

    Raises:
        ConfigError: With one line for each fault.
    """
    site = config
    config, host = _of_host(site, host)
    keys = {"run_dir": config.run_dir}
    if outputs:
        keys |= {"log.file": config.log_path.parent, "store.path": config.store_path.parent}
        files = ((n, sink) for n, sink in enumerate(config.sinks) if isinstance(sink, JsonlSinkConfig))
        keys |= {f"sinks[{n}].path": config.sink_path(sink).parent for n, sink in files}
    faults = [*_camera_faults(site, _captured(config, host)), *_file_faults(config, host), *_folder_faults(keys)]
    faults += sink_faults(config) if host is None else []
    _raise(path, config, faults)


def check_cameras(path: Path, config: Config, host: str | None, names: Collection[str]) -> None:
    """Check the files of these cameras.  Raise ConfigError with one line for each fault."""
    _raise(path, config, list(_camera_faults(config, _captured(*_of_host(config, host)), names)))


def _of_host(config: Config, host: str | None) -> tuple[Config, str | None]:
    """Return the configuration of a host, and its name where it is an edge host."""
    return config.for_host(host), None if host in config.hosts else host


def _captured(config: Config, edge_host: str | None) -> list[str]:
    """Return the cameras that a host may capture."""
    return [camera.id for camera in config.cameras if camera.host == edge_host]


def _raise(path: Path, config: Config, faults: Sequence[str]) -> None:
    if faults:
        raise ConfigError("\n".join(config.redactor(f"{path}: {fault}") for fault in faults))


def _camera_faults(config: Config, captured: Collection[str], names: Collection[str] | None = None) -> Iterator[str]:
    """Yield the faults of these cameras of a site; their files are checked where they are captured."""
    for number, camera in enumerate(config.cameras):
        if names is not None and camera.id not in names:
            continue
        fault = _source_fault(camera) if camera.id in captured else None
        if fault is not None:
            yield f"cameras[{number}].uri: {fault} (given: {public_uri(camera.uri)!r})"
        fault = _calibration_fault(camera, config.model.role)
        if fault is not None:
            yield f"cameras[{number}].calibration: {fault}"


def _calibration_fault(camera: Camera, role: Role) -> str | None:
    if camera.calibration is None:
        return None
    try:
        calibration = read_calibration(camera.calibration)
        fault = calibration.camera_fault(camera) or calibration.role_fault(role)
    except ConfigError as error:
        return str(error)
    return fault and f"{camera.calibration}: {fault}"


def _source_fault(camera: Camera) -> str | None:
    uri = camera.uri
    if uri.startswith("sdp:"):
        return _file_fault(Path(uri.removeprefix("sdp:")), "a session description (.sdp)")
    if not uri.startswith(("file:", CLIPS)):
        return None
    place = Path(uri.removeprefix("file:").removeprefix(CLIPS).partition("?first=")[0])
    try:
        recordings = find_recordings(place)
    except SourceError as error:
        return str(error).removeprefix(f"{place}: ")
    except OSError as error:
        return f"cannot be read ({error.strerror}); must be a readable recording or folder"
    unreadable = [recording for recording in recordings if not os.access(recording, os.R_OK)]
    return f"{len(unreadable)} of {len(recordings)} recordings cannot be read; must be readable" if unreadable else None


def _file_faults(config: Config, host: str | None) -> Iterator[str]:
    image = config.console.map.image
    files = {
        "model.checkpoint": (
            checkpoint_file(config.model.checkpoint),
            "a .safetensors or .pth file, or dasnet-s",
        ),
        "console.password_file": (config.console.password_file, "a file written by `dasnet password FILE`"),
        "console.map.pmtiles": (config.console.map.pmtiles, "a PMTiles file"),
        "console.map.image.file": (None if image is None else image.file, "a PNG, JPEG or WebP file"),
    }
    for key, (file, expected) in files.items() if host is None else ():
        fault = file and _file_fault(file, expected)
        if fault:
            yield f"{key}: {fault} (given: '{file}')"
    if config.console.users_file is not None and host is None:
        try:
            read_users(config.console.users_file, [camera.id for camera in config.cameras])
        except ConfigError as error:
            yield str(error)
    if config.nats is not None and importlib.util.find_spec("nats") is None:
        yield 'nats: needs nats-py; install it with: pip install "dasnet[nats]"'
    if config.link is not None and config.link.keys is not None:
        try:
            _ = server_keys(config.link.keys) if host is None else client_keys(config.link.keys, host)
        except ConfigError as error:
            yield str(error)


def _file_fault(path: Path, expected: str) -> str | None:
    try:
        if path.is_file():
            return None if os.access(path, os.R_OK) else f"cannot be read; must be {expected}"
    except OSError as error:
        return f"cannot be read ({error.strerror}); must be {expected}"
    return f"no such file; must be {expected}"


def _folder_faults(keys: dict[str, Path]) -> Iterator[str]:
    """Yield a fault for each folder that cannot be written, under the first key that names it."""
    folders = {folder: key for key, folder in reversed(keys.items())}
    for folder, key in reversed(folders.items()):
        fault = _writing_fault(folder)
        if fault is not None:
            yield f"{key}: cannot be written ({fault}); must be in a writable folder (given: '{folder}')"


def _writing_fault(folder: Path) -> str | None:
    """Try to write, and leave nothing behind: permission bits say nothing about root or a read-only disk."""
    made: list[Path] = []
    try:
        for place in reversed([folder, *folder.parents]):
            if not place.exists():
                place.mkdir()
                made.append(place)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror
    finally:
        for place in reversed(made):
            with suppress(OSError):
                place.rmdir()
