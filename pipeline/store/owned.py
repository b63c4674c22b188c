"""The cameras that one of several inference hosts processes now: a file of its run folder, for console and `status`.

Those that another host processes are none of this host's business: it knows neither their state nor their frames.
"""

from collections.abc import Iterable
from contextlib import suppress

from pipeline.config.camera import Camera
from pipeline.config.models import Config

FILE = "cameras.owned"


def write_owned(config: Config, cameras: Iterable[str]) -> None:
    """Write the cameras of this host, in place of those before; nothing where that fails."""
    path = config.run_dir / FILE
    with suppress(OSError):
        made = path.with_name(f"{path.name}.new")
        made.write_text("".join(f"{camera}\n" for camera in cameras), encoding="utf-8")
        made.replace(path)


def processed_here(config: Config) -> list[Camera]:
    """Return the cameras that this host processes: all, or of several inference hosts those that it owns."""
    if config.inference_host is None:
        return config.cameras
    try:
        owned = (config.run_dir / FILE).read_text(encoding="utf-8").split()
    except OSError:  # not written yet
        owned = []
    return [camera for camera in config.cameras if camera.id in owned]
