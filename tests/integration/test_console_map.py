"""The console's map: cameras and bearings as a person sees them, base layers of this host, nothing from elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from argon2 import PasswordHasher
from msgspec.structs import replace
from playwright.sync_api import Browser, Page, expect
from pydantic import ValidationError
from support.accessibility import assert_accessible, assert_fits_phone
from support.console_site import Process, browser, faultless_page
from support.mapped_site import MapFeed, flown, mapped_config
from support.pmtiles_file import MVT, PNG, pmtiles, water_tile
from support.served_console import login, serving

from pipeline.config.models import Config
from pipeline.config.users import User, UserRole
from pipeline.console.users_file import add_user
from pipeline.diagnostics.preflight import check_machine
from pipeline.errors import ConfigError
from pipeline.store.store import Store

__all__ = ["browser"]  # a fixture
PASSWORD = "correct horse battery"
HASH = PasswordHasher(1, 8, parallelism=1).hash(PASSWORD)  # a real one takes long, on purpose
HOSTILE = "<img src=x onerror=alert(1)>"
CORNERS = [[48.106, 11.594], [48.105, 11.606], [48.098, 11.593]]


@contextmanager
def watched(folder: Path, **base: Any) -> Iterator[Process]:
    """A console whose cameras see two targets, one of them with a hostile name."""
    scene = flown()
    scene.newest = {
        name: [replace(track, label=HOSTILE) if track.label == "unknown" else track for track in tracks]
        for name, tracks in scene.newest.items()
    }
    config = mapped_config(folder / "run", scene, **base)
    config.run_dir.mkdir()
    with Store(config.store_path) as store:
        store.append(scene.events)
    feed = MapFeed(f"ipc://{config.run_dir}/live.sock", scene)
    feed.start()
    console = Process(config, feed.endpoint)
    try:
        yield console
    finally:
        feed.stop.set()
        feed.join()
        console.stop()


@contextmanager
def offline_page(browser: Browser, console: Process) -> Iterator[Page]:
    """A page that asks nobody but the console."""
    asked: list[str] = []
    with faultless_page(browser) as page:
        page.on("request", lambda request: asked.append(request.url))
        yield page
    assert asked and all(url.startswith((console.url("/"), "blob:", "data:")) for url in asked)


def test_the_map_shows_cameras_bearings_and_positions_of_this_host_alone(browser: Browser, tmp_path: Path) -> None:
    with watched(tmp_path, attribution="© <b>us</b>") as console, offline_page(browser, console) as page:
        page.goto(console.url("/map"))
        plot, words = page.locator("#map"), page.locator("#shown")
        expect(plot.locator(".map-camera")).to_have_count(2)
        expect(plot.locator("path.map-view")).to_have_count(2)
        expect(plot.locator("path.map-sector")).to_have_count(1)
        expect(plot.locator("path.map-zone")).to_have_count(1, timeout=20_000)  # with the first frame
        expect(plot.locator("path.map-ring")).to_have_count(4)
        expect(plot.locator("path.map-bearing")).to_have_count(3)
        expect(plot.locator("path.map-bearing.severity-alarm")).to_have_count(2)
        expect(plot.locator("path.map-error")).to_have_count(3)
        expect(plot.locator("path.map-ellipse")).to_have_count(1)
        expect(plot.locator(".target span").filter(has_text=HOSTILE).first).to_be_visible()
        expect(page.locator("#attribution")).to_have_text("© <b>us</b>")
        expect(page.locator("#grid")).to_have_text("Grid 500 m")

        east = words.locator('[data-camera="east"]')
        expect(east).to_contain_text("looks N (0°, 10.0° up), 60° wide")
        expect(east).to_contain_text("Zones: roof 333° to 353° · Sectors: gatehouse 350° to 10°")
        expect(east).to_contain_text("bearing 345.8° ± 0.3° (N), elevation 11.7°")
        expect(east).to_contain_text("m high, 433 m away")
        expect(east.get_by_role("link", name="UAV #")).to_have_attribute("href", "/alert/" + alert_of(console))
        expect(words.locator('[data-camera="north"]')).to_contain_text("no pose")
        assert_accessible(page)

        plot.focus()
        before = page.locator(".map-camera").first.bounding_box()
        page.keyboard.press("+")
        assert before != page.locator(".map-camera").first.bounding_box()
        west = plot.get_by_role("button", name="Camera west, Starting, Alarm")
        west.focus()
        page.keyboard.press("Enter")
        expect(words.locator('[data-camera="west"]')).to_be_focused()
        expect(page.get_by_label("Rings around")).to_have_value("west")

        page.get_by_role("button", name="Polar").click()
        expect(page.locator("#sky [data-ulid]")).to_have_count(3)
        expect(page.locator('#planes figure[data-camera="north"] [data-ulid]')).to_have_count(1)
        assert_fits_phone(page)


def alert_of(console: Process) -> str:
    alerts = httpx.get(console.url("/api/v1/alerts")).json()["alerts"]
    return next(each["id"] for each in alerts if each["severity"] == "alarm")


def plain_site(tmp_path: Path, **console: Any) -> Config:
    return Config.model_validate(
        {"cameras": [{"id": "north", "uri": "demo:scene"}], "run_dir": tmp_path / "run", "console": console}
    )


@pytest.mark.slow
def test_without_a_pose_directions_in_the_images_are_shown(browser: Browser, tmp_path: Path) -> None:
    with watched(tmp_path) as console, offline_page(browser, console) as page:
        page.route("**/api/v1/map", lambda route: route.fulfill(json=without_poses(console)))
        page.goto(console.url("/map"))
        expect(page.locator("#no-pose")).to_be_visible()
        expect(page.locator("#map")).to_be_hidden()
        expect(page.locator("#planes svg")).to_have_count(3)
        expect(page.get_by_role("img", name="north, directions in the image: Bird")).to_be_visible()
        expect(page.locator('#shown [data-camera="north"]')).to_contain_text("from the middle")
        assert_accessible(page)


@pytest.mark.slow
def test_a_failure_is_told_until_the_map_is_there(browser: Browser, tmp_path: Path) -> None:
    with watched(tmp_path) as console, faultless_page(browser) as page:
        page.clock.install()
        page.route("**/api/v1/map", lambda route: route.abort())
        page.goto(console.url("/map"))
        expect(page.locator("#problem")).to_have_text("dasnet does not respond")
        page.unroute("**/api/v1/map")
        page.route("**/vendor/leaflet.js", lambda route: route.abort())
        page.clock.fast_forward(15_000)
        expect(page.locator("#problem")).to_have_text("leaflet.js cannot be loaded")
        page.unroute("**/vendor/leaflet.js")
        page.clock.fast_forward(15_000)
        expect(page.locator("#problem")).to_be_hidden()
        expect(page.locator("#map .map-camera")).to_have_count(2)


def without_poses(console: Process) -> Any:
    answer = httpx.get(console.url("/api/v1/map")).json()
    return answer | {"cameras": [camera | {"pose": None, "zones": {}, "sectors": {}} for camera in answer["cameras"]]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [PNG, MVT])
def test_tiles_of_a_file_lie_under_the_cameras(browser: Browser, tmp_path: Path, kind: int) -> None:
    tile = np.full((256, 256, 3), (90, 140, 60), np.uint8)
    content = cv2.imencode(".png", tile)[1].tobytes() if kind == PNG else water_tile()
    (tmp_path / "site.pmtiles").write_bytes(pmtiles(content, kind))
    with watched(tmp_path, pmtiles=tmp_path / "site.pmtiles") as console, offline_page(browser, console) as page:
        page.goto(console.url("/map"))
        painted = "canvas => canvas.width > 0 && [...canvas.getContext('2d').getImageData(9, 9, 1, 1).data].join()"
        canvas = page.locator("#map canvas.leaflet-tile").first
        expect(canvas).to_be_attached()
        page.wait_for_function(f"() => ({painted})(document.querySelector('#map canvas.leaflet-tile'))[0] !== '0'")
        colour = canvas.evaluate(painted)
        assert colour == "60,140,90,255" or kind == MVT
        expect(page.locator("#problem")).to_be_hidden()


@pytest.mark.slow
def test_an_image_lies_at_its_corners_and_a_missing_file_is_told(browser: Browser, tmp_path: Path) -> None:
    plan = tmp_path / "plan.png"
    cv2.imwrite(str(plan), np.full((400, 600, 3), 180, np.uint8))
    base = {"image": {"file": plan, "corners": CORNERS}, "pmtiles": tmp_path / "none.pmtiles"}
    with watched(tmp_path, **base) as console, offline_page(browser, console) as page:
        page.goto(console.url("/map"))
        image = page.locator("#map img.map-image")
        expect(image).to_be_visible()
        page.wait_for_function("document.querySelector('.map-image').style.transform.startsWith('matrix')")
        box, camera = image.bounding_box(), page.locator(".map-camera").first.bounding_box()
        assert box is not None and camera is not None
        assert box["x"] < camera["x"] < box["x"] + box["width"] and box["y"] < camera["y"] < box["y"] + box["height"]
        expect(page.locator("#problem")).to_have_text("The map's PMTiles file (console.map.pmtiles) cannot be read.")


def test_files_of_the_map_are_served_by_ranges(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    content = pmtiles(b"tile", PNG)
    (tmp_path / "site.pmtiles").write_bytes(content)
    corners = {"file": tmp_path / "plan.png", "corners": CORNERS}
    with serving(plain_site(tmp_path, map={"pmtiles": tmp_path / "site.pmtiles", "image": corners})) as url:
        part = httpx.get(f"{url}/api/v1/map/tiles.pmtiles", headers={"range": "bytes=0-7"})
        assert (part.status_code, part.content) == (206, b"PMTiles\x03") and part.headers["etag"]
        assert httpx.get(f"{url}/api/v1/map/image").json() == {"error": "console.map.image.file: no such file"}
        base = httpx.get(f"{url}/api/v1/map").json()["base"]
        assert base == {"pmtiles": True, "image": CORNERS, "attribution": ""}
    with serving(plain_site(tmp_path)) as url:
        answer = httpx.get(f"{url}/api/v1/map/tiles.pmtiles")
        assert (answer.status_code, answer.json()) == (404, {"error": "console.map.pmtiles is not set"})


def test_the_check_before_a_start_names_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"console\.map\.pmtiles: no such file; must be a PMTiles file"):
        check_machine(tmp_path / "site.yaml", plain_site(tmp_path, map={"pmtiles": tmp_path / "none.pmtiles"}))


def test_a_user_sees_the_poses_of_their_cameras_only(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for user in (User("otto", UserRole.VIEWER, None, HASH), User("eva", UserRole.VIEWER, frozenset({"east"}), HASH)):
        add_user(tmp_path / "users.yaml", user)
    given = mapped_config(tmp_path / "run", flown(1)).model_dump(mode="json", exclude_unset=True)
    given["console"] = {"host": "0.0.0.0", "users_file": tmp_path / "users.yaml"}
    with serving(Config.model_validate(given)) as url:
        assert httpx.get(f"{url}/api/v1/map").status_code == 401
        for name, cameras in {"otto": {"east", "west", "north"}, "eva": {"east"}}.items():
            cookie = login(url, PASSWORD, user=name).headers["set-cookie"].partition(";")[0]
            answer = httpx.get(f"{url}/api/v1/map", headers={"cookie": cookie}).json()
            assert {each["id"] for each in answer["cameras"]} == cameras


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ({"image": {"file": "plan.svg", "corners": CORNERS}}, "must end in one of .png, .jpg, .jpeg, .webp"),
        ({"image": {"file": "plan.png", "corners": [[48, 11], [48, 12], [48, 13]]}}, "not on one line"),
        ({"image": {"file": "plan.png", "corners": [[48, 11], [48, 12]]}}, "corners"),
        ({"image": {"file": "plan.png", "corners": [[48, 11], [48, 12], [91, 11]]}}, "less than or equal to 85"),
        ({"tiles": "https://example.org/{z}/{x}/{y}.png"}, "not permitted"),
    ],
)
def test_a_base_layer_that_cannot_be_is_rejected(tmp_path: Path, base: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        plain_site(tmp_path, map=base)
