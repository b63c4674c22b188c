"""The report of a replay as a person uses it: from its file, without a server, its player moved by a click."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from support.clips import FPS, SIZE_PX, video
from support.console_site import browser, faultless_page
from support.events import ref, track

from pipeline.replay.outputs import EventsWriter
from pipeline.replay.report import write_report
from pipeline.replay.stills import Stills
from pipeline.replay.summary import ModelSummary, Summary, TrackSummary
from pipeline.replay.thumbnails import Thumbnails
from pipeline.replay.track_table import TrackTableWriter
from pipeline.types import Band, Detections, Event, EventKind, Frame, Severity, TrackState

__all__ = ["browser"]  # a fixture
NAME = "<img src=x onerror=\"document.body.innerHTML='taken'\">"
FIRST, CONFIRMED, LAST = 30, 40, 80  # frames
ALERT = "01K0000000000000000000000A"


def alert_event(kind: EventKind, seq: int) -> Event:
    seen = track(1, seq, label="uav", xyxy=(100.0, 60.0, 116.0, 72.0))
    return Event(ALERT, kind, Severity.ALARM, "north", 0, seq / FPS, seq, "s1", seen, ALERT, rule=NAME)


def nothing(frame: Frame) -> Detections:
    none = np.zeros(0, np.float32)
    return Detections(
        frame.ref, frame.band, SIZE_PX, ("uav",), np.zeros((0, 4), np.float32), none, none, none, none,
        np.zeros((0, 1), np.float32), none, np.zeros((0, 2), np.float32),
    )  # fmt: skip


def recording(folder: Path, source: str, start: str | None) -> tuple[Summary, Thumbnails]:
    folder.mkdir()
    video(folder / "annotated.mp4", frames=100)
    with TrackTableWriter(folder / "tracks.csv") as writer:
        for seq in range(FIRST, LAST):
            state = TrackState.TENTATIVE if seq < CONFIRMED else TrackState.CONFIRMED
            box = (20.0 + seq, 60.0, 36.0 + seq, 72.0)
            writer.write(ref(seq), None, [track(1, seq, label="uav", state=state, xyxy=box)])
    opened = alert_event(EventKind.ALERT_OPENED, CONFIRMED)
    with EventsWriter(folder / "events.jsonl") as events:
        events.write(opened)
    pixels = np.full((SIZE_PX[1], SIZE_PX[0], 3), 90, np.uint8)
    frame = Frame(ref(CONFIRMED), Band.VISIBLE, pixels)
    Stills(folder).update(frame, nothing(frame), [opened.track] if opened.track else [], [opened])
    seen = TrackSummary(1, "uav", CONFIRMED + 1, LAST, CONFIRMED / FPS, LAST / FPS, 50, 0.9)
    seen = msgspec.structs.replace(seen, first_sighting_s=FIRST / FPS, first_sighting_frame=FIRST + 1)
    summary = Summary(
        source=source, frames=100, tracks=1, alerts=1, first_detection_s=1.0, latency_ms={}, complete=True,
        model=ModelSummary("das_net", "ab" * 32, ("uav",)), engine="torch-cpu", end_s=100 / FPS, fps=FPS,
        size_px=SIZE_PX, per_track=(seen,), start_time_utc=start,
    )  # fmt: skip
    return summary, Thumbnails(folder)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    return write_report(
        out,
        [
            recording(out / "we#st%", NAME, "2026-05-04T03:02:01.000Z"),
            recording(out / "east", "east.mp4", "2026-05-04T03:02:31.000Z"),
        ],
    )


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    with faultless_page(browser) as page:
        page.goto(report.as_uri())
        yield page


def shown_s(page: Page, number: int) -> float:
    player = page.locator(f'video[data-input="{number}"]')
    page.wait_for_function("v => v.readyState >= 2 && !v.seeking", arg=player.element_handle())
    return float(player.evaluate("v => v.currentTime"))


def test_a_click_on_the_time_line_moves_the_player(page: Page, report: Path, tmp_path: Path) -> None:
    bar = page.locator('#i1 .time a[data-input="1"]')
    bar.click()
    assert shown_s(page, 1) == pytest.approx(FIRST / FPS, abs=0.01), "to the first sighting"
    assert page.url == report.as_uri()
    page.locator("#clock .time a").last.click()
    assert shown_s(page, 2) == pytest.approx(FIRST / FPS, abs=0.01)
    page.locator("#i2 .alerts a").click()
    assert shown_s(page, 2) == pytest.approx(CONFIRMED / FPS, abs=0.01), "to the alert"
    page.locator("#i1 svg.time").scroll_into_view_if_needed()
    box = page.locator("#i1 svg.time").bounding_box()
    assert box
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 8)  # beside the track
    page.wait_for_function("s => Math.abs(document.querySelector('video').currentTime - s) < .1", arg=0.9 * 100 / FPS)
    bar.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("s => Math.abs(document.querySelector('video').currentTime - s) < .1", arg=FIRST / FPS)
    page.screenshot(path=tmp_path / "report.png", full_page=True)


@pytest.mark.parametrize("size", [(1366, 768), (3840, 2160), (390, 844)])
def test_paths_and_pictures_are_there_at_any_size(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    expect(page.locator("#i1 polyline")).to_have_count(2)  # on the still and on the alert's
    assert page.locator("#i1 polyline").first.get_attribute("stroke") == "#ff4d4f"
    for image in page.locator("#i1 .still img").all():
        image.scroll_into_view_if_needed()
        page.wait_for_function("i => i.naturalWidth > 0", arg=image.element_handle())
        drawn = image.locator("xpath=../*[name()='svg']").bounding_box()
        under = image.bounding_box()
        assert (
            drawn and under and abs(drawn["width"] - under["width"]) < 1 and abs(drawn["height"] - under["height"]) < 2
        )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("h2").nth(1).inner_text().startswith(NAME) and page.locator("body").inner_text() != "taken"


def test_without_scripts_links_open_the_video(browser: Browser, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    href = page.locator('#i1 .time a[data-input="1"]').get_attribute("href")
    context.close()
    assert href == f"./we%23st%25/annotated.mp4#t={FIRST / FPS:.3f}"


def test_the_still_of_an_alert_replaces_that_of_a_track_and_all_are_cleared(tmp_path: Path) -> None:
    stills = Stills(tmp_path)
    for shade, kind in ((40, EventKind.TRACK_LABELLED), (200, EventKind.ALERT_OPENED), (90, EventKind.ALERT_OPENED)):
        event = msgspec.structs.replace(alert_event(kind, 1), alert=f"A{shade}")
        pixels = np.full((SIZE_PX[1], SIZE_PX[0]), shade, np.uint8)
        frame = Frame(ref(1), Band.INFRARED, pixels)
        stills.update(frame, nothing(frame), [], [event])
    still = cv2.imread(str(tmp_path / "still.jpg"))
    assert still is not None and abs(int(still[0, 0, 0]) - 200) < 4
    assert sorted(file.name for file in (tmp_path / "alerts").iterdir()) == ["A200.jpg", "A90.jpg"]
    Stills(tmp_path).clear()
    assert json.dumps([str(file) for file in tmp_path.iterdir()]) == "[]"
