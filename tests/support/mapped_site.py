"""A site on the map: two cameras with poses that see targets, one without a pose, and its live feed."""

import threading
import time
from pathlib import Path
from typing import Any

import zmq

from pipeline.config.models import Config
from pipeline.transport.live import LiveFrame, encode
from pipeline.types import Event
from support.console_site import live_message
from support.two_cameras import SIZE_PX, Scene

SECTORS = {"gatehouse": {"azimuth_deg": [350, 10], "elevation_deg": [0, 30]}}
ZONES = {"roof": [[100, 300], [500, 300], [500, 600], [100, 600]]}
TARGETS = {"drone": ((-30.0, 420.0, 90.0), (4.0, 0.0, 0.0)), "other": ((160.0, 300.0, 60.0), (0.0, 3.0, 0.0))}


def mapped_config(run_dir: Path, scene: Scene, **base: Any) -> Config:
    cameras: list[dict[str, object]] = [
        {
            "id": camera.name,
            "uri": "demo:scene",
            "pose": {
                "lat": camera.place.lat,
                "lon": camera.place.lon,
                "height_m": camera.place.height_m,
                "azimuth_deg": camera.orientation.azimuth_deg,
                "elevation_deg": camera.orientation.elevation_deg,
                "hfov_deg": camera.orientation.hfov_deg,
                "sigma_deg": camera.orientation.sigma_deg,
            },
        }
        for camera in scene.cameras
    ]
    cameras[0] |= {"sectors": SECTORS, "zones": ZONES}
    cameras.append({"id": "north", "uri": "demo:scene", "band": "infrared"})
    return Config.model_validate({"cameras": cameras, "run_dir": run_dir, "console": {"map": base}})


def flown(steps: int = 60) -> Scene:
    """Two targets that both cameras have seen for a while; that of the first is one alert of both."""
    scene = Scene()
    scene.labels = {(camera.name, "other"): "unknown" for camera in scene.cameras}
    scene.fly(steps, TARGETS)
    return scene


def messages(scene: Scene, seq: int) -> list[list[bytes]]:
    """A live message of each camera, as of now."""
    frames = [
        LiveFrame(camera, "s1", seq, seq / 10, time.time_ns(), *SIZE_PX, tracks)
        for camera, tracks in scene.newest.items()
    ]
    return [*(encode(frame) for frame in frames), live_message("north", seq, "bird", picture_too=False)]


class MapFeed(threading.Thread):
    """Sends what a scene's cameras see, ten times a second; the scene stands still."""

    def __init__(self, endpoint: str, scene: Scene) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.scene = scene
        self.stop = threading.Event()

    @property
    def events(self) -> list[Event]:
        return self.scene.events

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
            publisher.linger = 0
            publisher.bind(self.endpoint)
            seq = 0
            while not self.stop.wait(0.1):
                for message in messages(self.scene, seq):
                    publisher.send_multipart(message)
                seq += 1
