"""What `dasnet check --connect` says of cameras that turn: where they look, by their own answer."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from pipeline.config.camera import Camera
from pipeline.redaction import redact

MAX_PARALLEL = 16


def check_poses(cameras: Iterable[Camera]) -> tuple[list[str], bool]:
    """Ask every camera that turns where it looks.

    Returns:
        A line for each, and whether all of them say so.
    """
    turning = [camera for camera in cameras if camera.onvif_url is not None]
    if not turning:
        return [], True
    with ThreadPoolExecutor(MAX_PARALLEL) as pool:
        answers = list(pool.map(_answer, turning))
    return [redact(line) for line, _ in answers], all(told for _, told in answers)


def _answer(camera: Camera) -> tuple[str, bool]:
    from pipeline.capture.onvif import OnvifDevice, OnvifError  # imports httpx
    from pipeline.capture.pose_poller import axis_of

    assert camera.pose is not None and camera.pose.onvif is not None and camera.onvif_url is not None
    try:
        device = OnvifDevice(camera.onvif_url, camera.pose.onvif.profile)
        try:
            status = device.status()
        finally:
            device.close()
        told = [f"profile {device.profile}", *_told(device.clock_ahead_s, status.is_moving)]
        unit = "°" if status.in_degrees else ""
        told.append(f"pan {status.pan:g}{unit}, tilt {status.tilt:g}{unit}")
        told.append("no zoom position" if status.zoom is None else f"zoom {status.zoom:g}")
        axis = axis_of(camera.id, camera.pose, camera.pose.onvif, status)
    except OnvifError as error:
        return f"  FAILED   pose of camera {camera.id}: {error}", False
    told.append(f"azimuth {axis.azimuth_deg:.1f}°, elevation {axis.elevation_deg:.1f}°, {axis.hfov_deg:.1f}° wide")
    return f"  ok       pose of camera {camera.id}: {', '.join(told)}", True


def _told(clock_ahead_s: float | None, is_moving: bool | None) -> Iterator[str]:
    if clock_ahead_s is None:
        yield "does not tell its clock"
    elif abs(clock_ahead_s) > 1:
        yield f"clock {abs(clock_ahead_s):.0f} s {'ahead' if clock_ahead_s > 0 else 'behind'}"
    if is_moving is None:
        yield "does not say whether it moves"
