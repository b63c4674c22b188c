"""The map of the site: where its cameras stand and look, and what lies under them; and request handlers of that."""

from pathlib import Path

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from pipeline.config.camera import Camera, Pose
from pipeline.config.console import MAP_IMAGE_TYPES, MapSettings
from pipeline.console.directions import Directions, field_of_view, sector_directions, seen_directions
from pipeline.console.frames import LiveFrames
from pipeline.console.parameters import json_response
from pipeline.console.security import user_of
from pipeline.console.site import Site
from pipeline.types import Band

REVALIDATED = {"cache-control": "private, no-cache"}  # the file may be replaced


class MapPose(msgspec.Struct, frozen=True):
    """Where a camera stands and looks."""

    lat: float
    lon: float
    height_m: float | None  # above the ellipsoid; null: not configured
    azimuth_deg: float
    elevation_deg: float
    hfov_deg: float
    view: Directions  # of the newest frame; before there is one, of the row in its middle


class MapCamera(msgspec.Struct, frozen=True):
    """A camera on the map; `pose` is null where it is not configured."""

    id: str
    band: Band
    pose: MapPose | None
    zones: dict[str, Directions]  # none before the first frame, and without a pose
    sectors: dict[str, Directions]


class BaseLayer(msgspec.Struct, frozen=True):
    """What lies under the cameras; `image` has its upper left, upper right and lower left corner (lat, lon)."""

    pmtiles: bool
    image: tuple[tuple[float, float], tuple[float, float], tuple[float, float]] | None
    attribution: str


class SiteMap(msgspec.Struct, frozen=True):
    """Reply with the map of the site."""

    base: BaseLayer
    cameras: list[MapCamera]


def map_camera(camera: Camera, size_px: tuple[int, int] | None) -> MapCamera:
    """Return a camera as the map shows it.

    Args:
        camera: of the site.
        size_px: width and height of its newest frame; None: there was none.
    """
    pose = camera.pose
    zones = {}
    if pose is not None and size_px is not None:
        zones = {name: seen_directions(pose, points, size_px) for name, points in camera.zones.items()}
    sectors = {name: sector_directions(sector) for name, sector in camera.sectors.items()}
    return MapCamera(camera.id, camera.band, None if pose is None else _map_pose(pose, size_px), zones, sectors)


def _map_pose(pose: Pose, size_px: tuple[int, int] | None) -> MapPose:
    height_m = pose.height_m if "height_m" in pose.model_fields_set else None
    return MapPose(
        pose.lat,
        pose.lon,
        height_m,
        pose.azimuth_deg,
        pose.elevation_deg,
        pose.hfov_deg,
        field_of_view(pose, size_px),
    )


def _size_px(frames: LiveFrames, camera: str) -> tuple[int, int] | None:
    known = frames.cameras.get(camera)
    return (known.newest.width, known.newest.height) if known is not None and known.newest is not None else None


def _base_layer(settings: MapSettings) -> BaseLayer:
    image = settings.image
    return BaseLayer(settings.pmtiles is not None, None if image is None else image.corners, settings.attribution)


class MapHandlers:
    """Handlers of the endpoints `/map`, `/map/image` and `/map/tiles.pmtiles`."""

    _site: Site

    async def site_map(self, request: Request) -> Response:
        """Return where the cameras that the user sees stand and look."""
        site, user = self._site, user_of(request)
        cameras = [camera for camera in site.config.cameras if user.sees(camera.id)]
        mapped = [map_camera(camera, _size_px(site.frames, camera.id)) for camera in cameras]
        return json_response(SiteMap(_base_layer(site.config.console.map), mapped))

    async def map_image(self, _: Request) -> Response:
        """Return the image that lies on the map."""
        image = self._site.config.console.map.image
        file = None if image is None else image.file
        kind = "" if file is None else MAP_IMAGE_TYPES[file.suffix.lower()]
        return await _file("console.map.image.file", file, kind)

    async def map_tiles(self, _: Request) -> Response:
        """Return the PMTiles file, or the range of bytes that is requested."""
        tiles = self._site.config.console.map.pmtiles
        return await _file("console.map.pmtiles", tiles, "application/vnd.pmtiles")


async def _file(key: str, path: Path | None, media_type: str) -> Response:
    if path is None:
        raise HTTPException(404, f"{key} is not set")
    if not await run_in_threadpool(path.is_file):
        raise HTTPException(404, f"{key}: no such file")
    return FileResponse(path, media_type=media_type, headers=REVALIDATED)
