"""`dasnet check --connect`: open every camera for a few seconds, as its capture worker would.

Takes the cameras, and a folder for images.  Returns a line per camera: codec, size, frame rates and a saved image, or
the reason for the failure.
"""

import threading
import time
from itertools import islice
from pathlib import Path

import cv2

from pipeline.capture.open import open_source
from pipeline.capture.source import DecodedFrame
from pipeline.config.camera import Camera
from pipeline.errors import SourceError
from pipeline.imaging.zones import draw_zones
from pipeline.redaction import redact

TIME_LIMIT_S = 15.0  # per camera, including opening, which may take 5 s
READ_LIMIT_S = 8.0  # once open
MEASURED_S = 3.0
SETTLING_S = 0.5  # cameras first send their buffered frames in a burst
MEASURED_FRAMES = 200
MAX_PARALLEL = 16


def check_cameras(cameras: list[Camera], folder: Path) -> tuple[str, bool]:
    """Check every camera, and write an image of each to `folder`.

    Returns:
        The report, and whether every camera delivered frames.
    """
    good: dict[str, str] = {}
    bad: dict[str, str] = {}

    def check(camera: Camera) -> None:
        try:
            good[camera.id] = _described(camera, folder)
        except SourceError as error:
            bad[camera.id] = str(error).removeprefix(f"camera {camera.id}").lstrip(": ")
        except Exception as error:  # noqa: BLE001 - any failure is a result of the check
            bad[camera.id] = f"{type(error).__name__}: {error}"

    for first in range(0, len(cameras), MAX_PARALLEL):
        # Daemon threads: a library call that never returns must not block the program's exit.
        threads = [
            threading.Thread(target=check, args=(c,), daemon=True) for c in cameras[first : first + MAX_PARALLEL]
        ]
        deadline_s = time.monotonic() + TIME_LIMIT_S
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
    lines = [_line(camera.id, dict(good), dict(bad)) for camera in cameras]
    lines.append(f"{len(good)} of {len(cameras)} cameras deliver frames")
    return redact("\n".join(lines)), len(good) == len(cameras)


def _line(camera: str, good: dict[str, str], bad: dict[str, str]) -> str:
    if camera in good:
        return f"  ok       camera {camera}: {good[camera]}"
    return f"  FAILED   camera {camera}: {bad.get(camera, f'no answer within {TIME_LIMIT_S:.0f} s')}"


def _described(camera: Camera, folder: Path) -> str:
    source = open_source(camera)
    limit = threading.Timer(READ_LIMIT_S, source.close)  # ends the loop below at the deadline
    limit.daemon = True
    limit.start()
    newest: DecodedFrame | None = None
    times_s: list[float] = []
    try:
        for newest in islice(source.frames(), MEASURED_FRAMES):
            times_s.append(newest.received_mono_ns / 1e9)
            if times_s[-1] - times_s[0] >= MEASURED_S:
                break
        codec, declared_fps = source.codec, source.fps
    finally:
        limit.cancel()
        source.close()
    if newest is None:
        raise SourceError(f"camera {camera.id}: is open, but delivered no frame within {READ_LIMIT_S:.0f} s")
    height, width = newest.pixels.shape[:2]
    rates = [f"{rate:.1f} frames/s measured" for rate in _rate_fps(times_s) if source.live]
    rates.append(f"{declared_fps:g} declared" if declared_fps else "none declared")
    beyond = camera.zones_beyond((width, height))
    rates += [f"zones that reach beyond the frame: {', '.join(beyond)}"] if beyond else []
    return f"{codec}, {width}x{height}, {', '.join(rates)}, image {_saved(newest, camera, folder)}"


def _rate_fps(times_s: list[float]) -> list[float]:
    """Return the measured frame rate, or an empty list where there are too few frames."""
    settled_s = [time_s for time_s in times_s if time_s - times_s[0] >= SETTLING_S]
    measured_s = settled_s if len(settled_s) > 1 else times_s
    duration_s = measured_s[-1] - measured_s[0]
    return [(len(measured_s) - 1) / duration_s] if duration_s > 0 else []


def _saved(decoded: DecodedFrame, camera: Camera, folder: Path) -> Path:
    """Write the image of a camera, with its zones drawn on it."""
    pixels = draw_zones(decoded.pixels, camera.zones) if camera.zones else decoded.pixels
    encoded = cv2.imencode(".png", pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1]
    path = folder / f"{camera.id}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())
    return path
