"""Request handlers of a camera's zones and privacy masks: what the site's file has, a preview, and saving.

Saved zones are written into the site's file, and applied by a reload as `dasnet reload` does it.  Where the running
program rejects the file, the file is put back as it was.
"""

import asyncio
import difflib
from collections.abc import Callable
from typing import Annotated, ParamSpec, TypeVar

import msgspec
from msgspec import Meta
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pipeline.config.camera import Camera
from pipeline.config.file import rule_conflicts
from pipeline.config.zone_text import Areas, areas_in, with_areas
from pipeline.console.audit import record_action
from pipeline.console.parameters import body_of, json_response
from pipeline.console.rules_test import tested
from pipeline.console.security import user_of
from pipeline.console.site import Site
from pipeline.console.site_file import ChangedError, SiteFile
from pipeline.console.view import actor_of
from pipeline.errors import ConfigError, DasnetError
from pipeline.geometry import Point, polygon_fault
from pipeline.redaction import redact
from pipeline.runtime.reload import request_reload
from pipeline.store.actions import ActionKind

P = ParamSpec("P")
T = TypeVar("T")
MAX_EDIT_BYTES = 256 << 10
MAX_MASKS = 64

Points = Annotated[list[Point], Meta(min_length=2, max_length=100)]
MaskPoints = Annotated[list[Point], Meta(min_length=3, max_length=100)]


class ZoneSettings(msgspec.Struct, frozen=True):
    """Reply with a camera's zones and privacy masks, in frame pixels, as the site's file has them.

    `size_px`: of the newest frame; null: there was none.  `version`: of the file.  `fault`: why the file cannot be
    changed by the console; empty: it can.
    """

    camera: str
    zones: dict[str, list[Point]]
    ignore: list[list[Point]]
    size_px: tuple[int, int] | None
    version: str
    fault: str


class ZoneEdit(msgspec.Struct, frozen=True):
    """Request to preview or save a camera's zones and privacy masks; `version`: of the file that was edited."""

    version: str
    zones: dict[str, Points]
    ignore: Annotated[list[MaskPoints], Meta(max_length=MAX_MASKS)]


class ZonePreview(msgspec.Struct, frozen=True):
    """Reply with the difference to the site's file, as a unified diff, and what is wrong with the edit."""

    difference: str
    faults: list[str]


class ZonesSaved(msgspec.Struct, frozen=True):
    """Reply with what has changed; `problem`: why the file was written but not applied, or empty."""

    changes: list[str]
    problem: str


class RulesTest(msgspec.Struct, frozen=True):
    """Reply with what `dasnet rules test` says of the edit, on what the store holds of the last day."""

    report: str


class ZoneHandlers:
    """Handlers of the endpoints `/cameras/{camera}/zones`."""

    _site: Site

    def __init__(self) -> None:
        self._saving, self._testing = asyncio.Lock(), asyncio.Lock()

    async def zones(self, request: Request) -> Response:
        """Return the zones and masks of a camera."""
        camera = self._zoned_camera(request)
        file = await _done(SiteFile.read, self._site.config.path)
        areas = await _done(areas_in, file.text, str(file.path), camera.id)
        zones = {name: list(points) for name, points in areas.zones.items()}
        masks = [list(points) for points in areas.ignore]
        size_px = self._frame_size_px(camera)
        return json_response(ZoneSettings(camera.id, zones, masks, size_px, file.version, redact(file.fault)))

    async def preview_zones(self, request: Request) -> Response:
        """Return what saving would change, and what is wrong with it."""
        camera, edit = self._zoned_camera(request), await self._edit(request)
        file = await self._file_of(edit)
        text = await _done(with_areas, file.text, str(file.path), camera.id, Areas(edit.zones, edit.ignore))
        return json_response(ZonePreview(_difference(file.text, text), self._faults(camera, edit)))

    async def test_zones(self, request: Request) -> Response:
        """Return which alerts of the last day would be others."""
        camera, edit = self._zoned_camera(request), await self._edit(request)
        file = await self._file_of(edit)
        text = await _done(with_areas, file.text, str(file.path), camera.id, Areas(edit.zones, edit.ignore))
        if self._testing.locked():
            raise HTTPException(409, "the rules are being tested for somebody else; try again in a minute")
        async with self._testing:
            try:
                return json_response(RulesTest(await tested(file, text, self._site.config.store_path)))
            except ConfigError as error:
                raise HTTPException(503, redact(str(error))) from error

    async def save_zones(self, request: Request) -> Response:
        """Write the zones into the site's file and apply it."""
        camera, edit = self._zoned_camera(request), await self._edit(request)
        faults = self._faults(camera, edit)
        if faults:
            raise HTTPException(422, "; ".join(faults))
        async with self._saving:
            file = await self._file_of(edit)
            text = await _done(with_areas, file.text, str(file.path), camera.id, Areas(edit.zones, edit.ignore))
            written = await _done(file.write, text)
            try:
                changes = await run_in_threadpool(request_reload, file.path)
            except ConfigError as error:
                await _done(written.write, file.text)
                raise HTTPException(422, f"rejected, the file is as before: {redact(str(error))}") from error
            except DasnetError as error:
                changes, said = [], redact(str(error))
            else:
                said = ""
        by = actor_of(request)
        await record_action(self._site, by, ActionKind.CONFIGURE, f"zones of {camera.id}", camera.id)
        return json_response(ZonesSaved(changes, said))

    def _zoned_camera(self, request: Request) -> Camera:
        name = request.path_params["camera"]
        for camera in self._site.config.cameras:
            if camera.id == name and user_of(request).sees(name):
                return camera
        raise HTTPException(404, f"no camera {name[:100]!r}")

    async def _edit(self, request: Request) -> ZoneEdit:
        return await body_of(request, ZoneEdit, "version, zones and ignore", MAX_EDIT_BYTES)

    async def _file_of(self, edit: ZoneEdit) -> SiteFile:
        file = await _done(SiteFile.read, self._site.config.path)
        if file.version != edit.version:
            raise HTTPException(409, f"{file.path}: was changed meanwhile; load this page again")
        if file.fault:
            raise HTTPException(503, redact(file.fault))
        return file

    def _frame_size_px(self, camera: Camera) -> tuple[int, int] | None:
        frames = self._site.frames.cameras.get(camera.id)
        newest = frames.newest if frames else None
        return (newest.width, newest.height) if newest else None

    def _faults(self, camera: Camera, edit: ZoneEdit) -> list[str]:
        """Return what is wrong with the edit: its shapes, its names, and rules that name a zone that is gone."""
        shapes = [(f"zone {name!r}", points) for name, points in edit.zones.items()]
        shapes += [(f"mask {number}", points) for number, points in enumerate(edit.ignore, 1)]
        faults = []
        size_px = self._frame_size_px(camera)
        for name, points in shapes:
            crossing = polygon_fault(points) if len(points) > 2 else None
            if crossing:
                faults.append(f"{name}: {crossing}")
            if size_px and not all(0 <= x <= size_px[0] and 0 <= y <= size_px[1] for x, y in points):
                faults.append(f"{name}: reaches beyond the frame; must be within {size_px[0]}x{size_px[1]} pixels")
        return faults or self._conflicts(camera, edit)

    def _conflicts(self, camera: Camera, edit: ZoneEdit) -> list[str]:
        changed = camera.model_dump() | {"zones": edit.zones, "ignore": edit.ignore}
        try:
            edited = Camera.model_validate(changed)
        except ValidationError as error:
            return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
        config = self._site.config
        cameras = [edited if each.id == camera.id else each for each in config.cameras]
        with_edit = config.model_copy(update={"cameras": cameras})
        return [f"rule {config.rules[int(key[1])].name!r}: {fault}" for key, fault in rule_conflicts(with_edit)]


async def _done(work: Callable[P, T], *arguments: P.args, **keys: P.kwargs) -> T:
    """Do blocking work in a thread; its faults become replies."""
    try:
        return await run_in_threadpool(work, *arguments, **keys)
    except ChangedError as error:
        raise HTTPException(409, redact(str(error))) from error
    except ConfigError as error:
        raise HTTPException(503, redact(str(error))) from error


def _difference(before: str, after: str) -> str:
    """Return only the changed lines: others may hold secrets that this program does not know yet."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return redact("\n".join([*lines][2:]))
