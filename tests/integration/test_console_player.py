"""The page of one alert as a person uses it: its clip with boxes at the right frame, its review, its events."""

import base64
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect
from support.clips import FPS, SIZE_PX, video
from support.console_site import Process, browser, faultless_page, picture, site_config, until
from support.events import CONFIRMED, ESCALATED, event, gone, raised, ref, track

from pipeline.capture.clip_file import ClipFile
from pipeline.capture.packet_ring import TimedPacket
from pipeline.capture.source import CodedPacket, CodedStream
from pipeline.config.models import Config
from pipeline.evidence.leaves import Program
from pipeline.evidence.sidecars import Sidecar
from pipeline.evidence.track_paths import BoxAt, TrackPath
from pipeline.store.clips import ClipRecord, record_path, video_path
from pipeline.store.store import Store
from pipeline.types import TrackState

__all__ = ["browser"]  # a fixture
FRAMES = 44  # before the target of the clip jumps back
ZERO_S = 100.0  # of the clip, in its session
FIRST, CONFIRMING, ESCALATING = 10, 14, 20  # frames
WIDTH, HEIGHT = 16, 12  # of the target
MARKUP = "<img src=x onerror=\"document.body.innerHTML='taken'\">"
BLUE = (247, 151, 47)  # BGR, of a bird on an image


@dataclass
class Site:
    """A console with a store, and alerts with a clip."""

    console: Process
    config: Config
    store: Store
    alerts: dict[int, str]  # by number of B-frames


def corner(frame: int) -> tuple[float, float]:
    return frame * 3 % 140, 10 + frame % 90


def packets_of(stream: CodedStream, packets: list[Any]) -> list[TimedPacket]:
    """The packets with the times of a session that begins at ZERO_S, as its first decoding does."""
    unit_s = float(stream.parameters.time_base)
    found = []
    for packet in packets:
        pts_s, dts_s = (ZERO_S + (ticks - packets[0].dts) * unit_s for ticks in (packet.pts, packet.dts))
        found.append(TimedPacket(CodedPacket(stream, bytes(packet), pts_s, dts_s, packet.is_keyframe), pts_s, dts_s))
    return found


def add_alert(store: Store, config: Config, number: int, b_frames: int) -> str:
    """An alert whose target is the square of the clip, with a box for every other frame."""
    path = video(config.run_dir / "clip.mp4", frames=FRAMES, b_frames=b_frames)
    with av.open(str(path)) as container:
        source: Any = container.streams.video[0]
        stream = CodedStream("h264", SIZE_PX, parameters=source)
        packets = packets_of(stream, [packet for packet in container.demux(source) if packet.size])
        pts_s = sorted(packet.pts_s for packet in packets)
        alert = store_events(store, number, pts_s)
        record = ClipRecord(alert, "north", "s1", pts_s[FIRST], "h264", SIZE_PX, ZERO_S)
        clip = ClipFile(config.clips_path, record, stream)
        for packet in packets:
            clip.write(packet)
        clip.finish("post_s")
    boxes = [
        BoxAt(frame, pts_s[frame], 0, x, y, x + WIDTH, y + HEIGHT, 0.9, TrackState.CONFIRMED)
        for frame in range(FIRST, FRAMES, 2)
        for x, y in [corner(frame)]
    ]
    sidecar = Sidecar(
        alert=alert,
        camera="north",
        program=Program("1", "", ""),
        configuration="",
        events=[msgspec.Raw(msgspec.json.encode(event(CONFIRMED)))],
        tracks=[TrackPath("01K", number, "bird", boxes)],
        files={},
    )
    config.evidence_path.mkdir(exist_ok=True)
    (config.evidence_path / f"{alert}.json").write_bytes(msgspec.json.encode(sidecar))
    return alert


def store_events(store: Store, number: int, pts_s: list[float]) -> str:
    now_ns = time.time_ns()
    subject = track(number, label="bird", last_seen=ref(5))
    opened = raised(subject, pts_s=pts_s[CONFIRMING], time_utc_ns=now_ns, snapshot="shot.jpg")
    alert = opened[0].id
    later = [
        event(CONFIRMED, track(number + 50), pts_s=pts_s[30]),
        event(ESCALATED, subject, pts_s=pts_s[ESCALATING], rule=MARKUP),
    ]
    changes = {"alert": alert, "time_utc_ns": now_ns}
    store.append([*opened, *(msgspec.structs.replace(each, **changes) for each in later)])
    store.append(gone(subject, alert, time_utc_ns=now_ns + 9_000_000_000))
    return alert


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="player") as folder:
        config = site_config(Path(folder) / "run", "north", "south")
        config.snapshots_path.mkdir(parents=True)
        cv2.imwrite(str(config.snapshots_path / "shot.jpg"), picture(0))
        with Store(config.store_path) as store:
            alerts = {b_frames: add_alert(store, config, 10 + b_frames, b_frames) for b_frames in (0, 2)}
            process = Process(config, f"ipc://{config.run_dir}/nobody.sock")
            yield Site(process, config, store, alerts)
            process.stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with faultless_page(browser) as page:
        yield page


def canvas(page: Page) -> NDArray[np.int32]:
    """BGR."""
    text = page.locator("#player canvas").evaluate("c => c.toDataURL()")
    content = np.frombuffer(base64.b64decode(text.partition(",")[2]), np.uint8)
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.int32)


def target(pixels: NDArray[np.int32]) -> tuple[float, float, float]:
    """Where the red square is, and its width, in frame pixels at no zoom."""
    blue, green, red = (pixels[..., i] for i in range(3))
    found = np.argwhere((red > 180) & (green < 110) & (blue < 170) & (red - blue > 60))
    scale = pixels.shape[1] / SIZE_PX[0]
    (top, left), (_, right) = found.min(0), found.max(0)
    return left / scale, top / scale, (right - left + 1) / scale


def box_share(pixels: NDArray[np.int32], frame: float) -> float:
    """How much of the left and right edges of the box of a frame is drawn."""
    scale = pixels.shape[1] / SIZE_PX[0]
    x, y = frame * 3, 10 + frame
    rows = np.linspace(y + 1, y + HEIGHT - 1, 30) * scale
    shares = []
    for edge in (x * scale - 3, (x + WIDTH) * scale + 3):
        near = np.stack([pixels[rows.astype(int), round(edge) + across] for across in (-2, -1, 0, 1, 2)])
        shares.append(np.mean((np.abs(near - BLUE).max(-1) < 40).any(0)))
    return float(min(shares))


def at_frame(page: Page, frame: int, site: Site, b_frames: int) -> None:
    record = httpx.get(site.console.url(f"/api/v1/alerts/{site.alerts[b_frames]}/clip.json")).json()["clip"]
    time_s = record["first_pts_s"] - ZERO_S + frame / FPS
    shown = page.locator("#player canvas")
    until(lambda: abs(float(shown.get_attribute("data-time") or -1) - time_s) < 0.01)


@pytest.mark.parametrize("b_frames", [0, 2])
def test_boxes_are_drawn_at_the_frame_that_is_shown(page: Page, site: Site, b_frames: int, tmp_path: Path) -> None:
    page.goto(site.console.url(f"/alert/{site.alerts[b_frames]}"))
    at_frame(page, FIRST, site, b_frames)  # where the target was first seen
    page.screenshot(path=tmp_path / "alert.png")
    for frame in (FIRST, FIRST + 1, FIRST + 2):
        at_frame(page, frame, site, b_frames)
        expect(page.locator("#player canvas")).to_have_attribute("data-boxes", "1")
        assert box_share(canvas(page), frame) > 0.7, frame
        page.locator("#boxes").uncheck()
        x, y, _ = target(canvas(page))
        assert abs(x - corner(frame)[0]) < 1.6 and abs(y - corner(frame)[1]) < 1.6, "it is that frame"
        page.locator("#boxes").check()
        page.keyboard.press(".")
    page.get_by_role("button", name="◂ Frame").click()
    at_frame(page, FIRST + 2, site, b_frames)
    page.keyboard.press(",")
    at_frame(page, FIRST + 1, site, b_frames)


def test_marks_lead_to_confirmation_and_escalation(page: Page, site: Site) -> None:
    page.goto(site.console.url(f"/alert/{site.alerts[0]}"))
    assert page.locator("#marks button").all_inner_texts() == []
    for mark, frame in (("Confirmed", CONFIRMING), ("Escalated", ESCALATING), ("First sighting", FIRST)):
        page.locator("#marks").get_by_role("button", name=mark).click()
        at_frame(page, frame, site, 0)
    expect(page.locator("#marks button")).to_have_count(3)


def test_a_clip_is_played_slowly_and_enlarged(page: Page, site: Site, tmp_path: Path) -> None:
    page.goto(site.console.url(f"/alert/{site.alerts[0]}"))
    at_frame(page, FIRST, site, 0)
    page.locator("#boxes").uncheck()
    width = target(canvas(page))[2]
    page.locator("#zoom").select_option("4")
    until(lambda: target(canvas(page))[2] > 3.5 * width)
    page.screenshot(path=tmp_path / "zoom.png")
    page.locator("#speed").select_option("0.25")
    page.locator("#play").click()
    expect(page.locator("#play")).to_have_text("Pause")
    began_s = float(page.locator("#player canvas").get_attribute("data-time") or 0)
    until(lambda: float(page.locator("#player canvas").get_attribute("data-time") or 0) > began_s + 3 / FPS)
    page.keyboard.press("Space")
    assert page.locator("#player video").evaluate("v => v.playbackRate") == 0.25
    expect(page.locator("#play")).to_have_text("Play")


def test_an_alert_is_reviewed_on_its_page_and_hostile_text_is_text(page: Page, site: Site) -> None:
    page.goto(site.console.url(f"/alert/{site.alerts[2]}"))
    expect(page.locator("#details-list")).to_contain_text(MARKUP)
    page.locator("#note").fill(MARKUP)
    page.get_by_role("button", name="Bird", exact=True).click()
    expect(page.locator("#events")).to_contain_text("Verdict Bird")
    expect(page.locator("#events")).to_contain_text(MARKUP)
    expect(page.locator("#events li")).to_have_count(8)
    assert page.locator("main img").count() == 1
    page.get_by_role("button", name="Show the camera").click()
    expect(page.locator('.card.large[data-camera="north"]')).to_be_visible()


def test_an_alert_that_is_not_there_is_told(page: Page, site: Site) -> None:
    page.goto(site.console.url("/alert/nothing"))
    expect(page.locator("#problem")).to_have_text("no alert 'nothing'")
    lost = raised(track(99), time_utc_ns=time.time_ns())
    site.store.append(lost)
    page.goto(site.console.url(f"/alert/{lost[0].id}"))
    expect(page.locator("#no-clip")).to_have_text("The clip is not here yet.")


def test_a_clip_that_comes_later_is_shown_when_it_is_there(page: Page, site: Site) -> None:
    opened = raised(track(98), time_utc_ns=time.time_ns())
    site.store.append(opened)
    page.goto(site.console.url(f"/alert/{opened[0].id}"))
    expect(page.locator("#no-clip")).to_have_text("The clip is not here yet.")
    expect(page.locator("#details-list")).to_contain_text("when the alert has ended")
    site.store.append(gone(track(98), opened[0].id, time_utc_ns=time.time_ns()))
    for path in (video_path, record_path):
        shutil.copy(*(path(site.config.clips_path, alert) for alert in (site.alerts[0], opened[0].id)))
    expect(page.locator("#player")).to_be_visible(timeout=15_000)
    expect(page.locator("#no-clip")).to_be_hidden()
    expect(page.locator("#details-list")).not_to_contain_text("when the alert has ended")
    expect(page.locator("#details-list a[href$=clip]")).to_be_visible()
