"""Zones and masks drawn on a camera's frame: with the mouse, with the keyboard, saved into the site's file."""

import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest
import zmq
from playwright.sync_api import Browser, Locator, Page, Route, expect
from support.accessibility import assert_accessible, assert_fits_phone
from support.console_site import HEIGHT, WIDTH, Feed, Process, browser, faultless_page, until
from support.events import raised, track

from pipeline.runtime.reload import Reply
from pipeline.store.store import Store

__all__ = ["browser"]  # a fixture
SITE = """\
# our site
cameras:
  - id: north  # the tower
    uri: "rtsp://user:hunter2@192.0.2.1/north"
    band: infrared
    zones:
      roof: [[60, 40], [260, 40], [260, 220], [60, 220]]  # hangar
      fence: [[0, 240], [320, 240]]
  - {id: south, uri: "demo:", ignore: [[[0, 0], [40, 0], [40, 40]]]}
rules:
  - {name: over-roof, when: inside, zones: [roof], severity: alarm}
run_dir: RUN
"""


class Supervisor(threading.Thread):
    """Its part in a reload: replies what it is told to."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._endpoint = f"ipc://{run_dir}/reload.sock"
        self.reply = Reply(lines=["zones changed: north"])
        self.requests = 0
        self.stop = threading.Event()

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.REP) as socket:
            socket.bind(self._endpoint)
            while not self.stop.is_set():
                if socket.poll(50):
                    socket.recv()
                    self.requests += 1
                    socket.send(msgspec.json.encode(self.reply))


class YamlProcess(Process):
    """A console of a site's file, in the run folder, as the supervisor starts it."""

    def __init__(self, path: Path, endpoint: str) -> None:
        self._limits = {}
        self._file = path
        self._endpoint = endpoint
        self._metrics = "http://127.0.0.1:9/metrics"
        self.port = 0
        self.start()


@dataclass
class Site:
    file: Path
    console: Process
    supervisor: Supervisor

    def reset(self) -> None:
        self.file.write_text(SITE.replace("RUN", str(self.file.parent / "run")))
        self.supervisor.reply = Reply(lines=["zones changed: north"])

    @property
    def text(self) -> str:
        return self.file.read_text()


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="zones") as folder:
        run_dir, file = Path(folder) / "run", Path(folder) / "site.yaml"
        run_dir.mkdir()
        file.write_text(SITE.replace("RUN", str(run_dir)))
        file.chmod(0o640)
        feed, supervisor = Feed(f"ipc://{run_dir}/live.sock"), Supervisor(run_dir)
        feed.start()
        supervisor.start()
        console = YamlProcess(file, feed.endpoint)
        yield Site(file, console, supervisor)
        console.stop()
        feed.stop.set()
        supervisor.stop.set()
        feed.join()
        supervisor.join()


@pytest.fixture
def site(served: Site) -> Site:
    served.reset()
    return served


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with faultless_page(browser) as page:
        page.on("dialog", lambda dialog: dialog.accept())  # unsaved changes
        opened(page, site, "north")
        yield page


def opened(page: Page, site: Site, camera: str) -> None:
    page.goto(site.console.url(f"/camera/{camera}/zones"))
    until(lambda: page.locator("#frame img").evaluate("image => image.naturalWidth > 0"))
    expect(page.locator("#frame svg")).to_have_attribute("viewBox", f"0 0 {WIDTH} {HEIGHT}")


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a point of the frame is on the screen."""
    box = page.locator("#frame svg").bounding_box()
    assert box
    return box["x"] + x * box["width"] / WIDTH, box["y"] + y * box["height"] / HEIGHT


def corner(page: Page, label: str) -> Locator:
    return page.locator(f'#frame circle[aria-label^="{label}"]')


def saved(page: Page, text: str = "Applied: zones changed: north") -> None:
    save = page.get_by_role("button", name="Save and apply")
    expect(save).to_be_enabled()
    save.click()
    expect(page.locator("#saved")).to_have_text(text)


def test_a_zone_is_drawn_moved_and_saved_with_comments_kept(page: Page, site: Site, tmp_path: Path) -> None:
    expect(page.locator("#frame polygon.zone")).to_have_count(1)
    expect(page.locator("#frame polyline.zone")).to_have_count(1)
    arrow = page.locator("#frame polyline.arrow").get_attribute("points") or ""
    points = [float(point.split(",")[1]) for point in arrow.split()]
    assert points[0] < 240 < points[1], "from the left of the line, seen from its first point, to its right: down"
    page.get_by_role("button", name="Draw zone").click()
    for x, y in ((20, 20), (50, 20), (50, 30)):
        page.mouse.click(*at(page, x, y))
    page.keyboard.press("Enter")
    page.get_by_label("Name of zone zone1").fill("yard")
    expect(page.locator("#difference")).to_contain_text("yard: [[20, 20], [50, 20], [50, 30]]")
    page.mouse.move(*at(page, 260, 40))
    page.mouse.down()
    page.mouse.move(*at(page, 250, 50), steps=4)
    page.mouse.up()
    expect(page.locator("#difference .removed")).to_contain_text("[260, 40]")
    page.screenshot(path=tmp_path / "zones.png", full_page=True)
    assert "yard" not in site.text, "a preview only"
    before = site.text
    saved(page)
    expected = before.replace("[260, 40]", "[250, 50]").replace(
        "    zones:\n", "    zones:\n      yard: [[20, 20], [50, 20], [50, 30]]\n"
    )
    assert site.text == expected, "comments too"
    assert site.file.with_name("site.yaml.bak").read_text() == before
    assert {stat.S_IMODE(file.stat().st_mode) for file in site.file.parent.glob("site.yaml*")} == {0o640}
    expect(page.get_by_role("button", name="Save and apply")).to_be_disabled()
    assert site.supervisor.requests


def test_the_rules_are_tested_on_the_last_day(page: Page, site: Site) -> None:
    with Store(site.file.parent / "run" / "store.sqlite") as store:
        for hours, x in ((1, 150.0), (30, 150.0)):  # within the roof
            time_utc_ns = time.time_ns() - hours * 3_600_000_000_000
            subject = track(hours, xyxy=(x, 100.0, x + 20, 120.0), session=f"s{hours}")
            store.append(raised(subject, time_utc_ns=time_utc_ns, session=f"s{hours}"))
    page.get_by_role("button", name="Delete line fence").click()
    page.get_by_role("button", name="Test the rules").click()
    expect(page.locator("#report")).to_contain_text("alerts: 1 before", timeout=120_000)
    assert not list(site.file.parent.glob(".*"))


def test_everything_can_be_done_by_keyboard(page: Page, site: Site) -> None:
    corner(page, "zone roof, point 2 of 4").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    expect(corner(page, "zone roof, point 2 of 4: 259, 50")).to_be_focused()
    page.keyboard.press("Enter")
    expect(corner(page, "zone roof, point 3 of 5")).to_be_focused()
    page.keyboard.press("Delete")
    page.get_by_role("button", name="line fence: move all of it").focus()
    page.keyboard.press("ArrowUp")
    page.get_by_role("button", name="Draw privacy mask").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(corner(page, "mask 1, point 1 of 4: 80, 64")).to_be_focused()
    saved(page)
    assert "roof: [[60, 40], [259, 50], [260, 220], [60, 220]]  # hangar" in site.text
    assert "fence: [[0, 239], [320, 239]]" in site.text
    assert "    ignore:\n      - [[80, 64], [240, 64], [240, 192], [80, 192]]\n" in site.text
    page.get_by_role("button", name="Delete mask 1").click()
    saved(page)
    assert "ignore:\n" not in site.text


def test_faults_are_told_before_anything_is_written(page: Page, site: Site) -> None:
    before = site.text
    corner(page, "zone roof, point 1 of 4").focus()
    for _ in range(25):
        page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#faults")).to_contain_text("zone 'roof': edges")
    expect(page.get_by_role("button", name="Save and apply")).to_be_disabled()
    page.get_by_role("button", name="Discard changes").click()
    expect(page.locator("#faults li")).to_have_count(0)
    page.get_by_label("Name of zone roof").fill("<b>roof</b>")
    expect(page.locator("#faults")).to_contain_text("<b>roof</b>")
    page.get_by_label("Name of zone <b>roof</b>").fill("top")
    expect(page.locator("#faults")).to_contain_text("rule 'over-roof': no polygon or sector 'roof'")
    page.get_by_role("button", name="Delete line fence").click()
    expect(page.locator("#faults")).to_contain_text("over-roof")
    edit = httpx.get(site.console.url("/api/v1/cameras/north/zones")).json()
    edit["zones"]["fence"] = [[0, 240], [321, 240]]
    answer = httpx.post(site.console.url("/api/v1/cameras/north/zones"), json=edit)
    assert answer.status_code == 422 and "zone 'fence': reaches beyond the frame" in answer.json()["error"]
    foreign = httpx.post(
        site.console.url("/api/v1/cameras/north/zones"), json=edit, headers={"origin": "http://x.test"}
    )
    assert foreign.status_code == 403
    assert site.text == before


def test_what_is_discarded_is_not_previewed_any_more(page: Page, site: Site) -> None:
    held: list[Route] = []
    page.route("**/zones/preview", lambda route: held.append(route))
    with page.expect_request("**/zones/preview"):
        page.get_by_role("button", name="Delete line fence").click()
    page.get_by_role("button", name="Discard changes").click()
    expect(page.get_by_label("Name of line fence")).to_be_visible()
    with page.expect_event("requestfinished", lambda request: request.url.endswith("/preview")):
        held[0].continue_()
    page.evaluate("fetch('/healthz').then((answer) => answer.text())")  # the answer before it is shown by then
    expect(page.get_by_role("button", name="Save and apply")).to_be_disabled()
    assert page.locator("#difference").inner_text().strip() == ""


def test_what_the_program_rejects_is_put_back(page: Page, site: Site) -> None:
    site.supervisor.reply, before = Reply(rejected="no such thing"), site.text
    page.get_by_role("button", name="Delete line fence").click()
    page.get_by_role("button", name="Save and apply").click()
    expect(page.locator("#problem")).to_have_text("Not saved: rejected, the file is as before: no such thing")
    assert site.text == before


def test_a_file_that_was_changed_meanwhile_is_not_overwritten(page: Page, site: Site) -> None:
    page.get_by_role("button", name="Delete line fence").click()
    expect(page.get_by_role("button", name="Save and apply")).to_be_enabled()
    site.file.write_text(changed := site.text + "# a colleague was here\n")
    page.get_by_role("button", name="Save and apply").click()
    expect(page.locator("#problem")).to_contain_text("was changed meanwhile")
    assert site.text == changed


def test_a_camera_in_one_line_and_other_screens(page: Page, site: Site, tmp_path: Path) -> None:
    opened(page, site, "south")
    expect(page.locator("#frame polygon.mask")).to_have_count(1)
    page.get_by_role("button", name="Draw line").click()
    page.mouse.click(*at(page, 10, 100))
    page.mouse.click(*at(page, 300, 120))
    saved(page)
    assert '"demo:", ignore: [[[0, 0], [40, 0], [40, 40]]], zones: {line1: [[10, 100], [300, 120]]}}' in site.text
    assert_accessible(page)
    page.set_viewport_size({"width": 3840, "height": 2160})
    page.screenshot(path=tmp_path / "zones_4k.png")
    assert_fits_phone(page)
    page.screenshot(path=tmp_path / "zones_phone.png", full_page=True)


def test_an_unknown_camera_is_told(page: Page, site: Site) -> None:
    page.goto(site.console.url("/camera/west/zones"))
    expect(page.locator("#problem")).to_have_text("no camera 'west'")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_file_is_told(page: Page, site: Site) -> None:
    site.file.chmod(0o440)
    page.reload()
    expect(page.locator("#problem")).to_contain_text("read-only")
    expect(page.get_by_role("button", name="Draw zone")).to_be_disabled()
    site.file.chmod(0o640)
