"""A site is armed and disarmed on the command line, through the API and on the page; at once, and across restarts."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from argon2 import PasswordHasher
from playwright.sync_api import Browser, expect
from support.console_site import Process, browser, faultless_page
from support.program import CLIPS, Running, dasnet_in_process

from pipeline.config.models import Config
from pipeline.runtime.arming import is_armed

__all__ = ["browser"]  # a fixture

PASSWORD = "correct horse battery"
RULES = [{"name": "armed", "needs_arming": True}, {"name": "rest", "action": "record"}]
DRONE = {"id": "north", "uri": f"demo:clips/{CLIPS / 'IR_DRONE_015.mp4'}", "band": "infrared", "rate_fps": 10}


@pytest.fixture(scope="module")
def config() -> Iterator[Config]:
    with tempfile.TemporaryDirectory(prefix="arming") as folder:
        yield Config.model_validate({"cameras": [DRONE], "rules": RULES, "run_dir": folder})


@pytest.fixture(scope="module")
def console(config: Config) -> Iterator[Process]:
    process = Process(config, f"ipc://{config.run_dir}/live.sock")
    yield process
    process.stop()


def test_through_the_api(config: Config, console: Process) -> None:
    for path, armed in (("disarm", False), ("disarm", False), ("arm", True), ("arm", True)):
        answer = httpx.post(console.url(f"/api/v1/{path}"), timeout=60)
        assert answer.json() == {"armed": armed} and is_armed(config.run_dir) is armed
    assert httpx.get(console.url("/api/v1/arm"), timeout=60).status_code == 405
    foreign = httpx.post(console.url("/api/v1/disarm"), headers={"origin": "https://evil.example"}, timeout=60)
    assert foreign.status_code == 403 and is_armed(config.run_dir)


def test_on_the_page(config: Config, console: Process, browser: Browser) -> None:
    with faultless_page(browser) as page:
        page.goto(console.url("/"))
        arming = page.locator("#arming")
        expect(arming).to_have_text("Armed Disarm", timeout=30_000)
        page.once("dialog", lambda dialog: dialog.dismiss())
        arming.get_by_role("button").click()
        assert is_armed(config.run_dir), "it asks first"
        page.once("dialog", lambda dialog: dialog.accept())
        arming.get_by_role("button", name="Disarm").click()
        expect(arming).to_have_text("Disarmed Arm")
        assert not is_armed(config.run_dir)
        arming.get_by_role("button", name="Arm").click()
        expect(arming).to_have_text("Armed Disarm")
        assert is_armed(config.run_dir)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Process]:
    """A console with a password, of a site with rules that need arming."""
    (tmp_path / "run").mkdir()
    (tmp_path / "console.password").write_text(PasswordHasher(1, 8, parallelism=1).hash(PASSWORD))
    site = {"cameras": [DRONE], "rules": RULES, "run_dir": tmp_path / "run"}
    config = Config.model_validate({**site, "console": {"password_file": tmp_path / "console.password"}})
    process = Process(config, f"ipc://{config.run_dir}/live.sock")
    yield process
    process.stop()


def test_with_a_password_only_who_logged_in_arms_and_disarms(
    tmp_path: Path, guarded: Process, browser: Browser
) -> None:
    run_dir = tmp_path / "run"
    for forged in ({}, {"cookie": f"dasnet_session={2**31}.{'0' * 64}"}):
        assert httpx.post(guarded.url("/api/v1/disarm"), headers=forged, timeout=60).status_code == 401
    assert is_armed(run_dir)
    with faultless_page(browser) as page:
        page.goto(guarded.url("/"))
        page.wait_for_url(guarded.url("/login"))
        page.locator("#password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(guarded.url("/"))
        arming = page.locator("#arming")
        expect(arming).to_have_text("Armed Disarm", timeout=30_000)
        page.once("dialog", lambda dialog: dialog.accept())
        arming.get_by_role("button", name="Disarm").click()
        expect(arming).to_have_text("Disarmed Arm")
        assert not is_armed(run_dir)
        cookie = "; ".join(f"{each['name']}={each['value']}" for each in page.context.cookies())
        foreign = {"cookie": cookie, "origin": "https://evil.example"}
        assert httpx.post(guarded.url("/api/v1/arm"), headers=foreign, timeout=60).status_code == 403
        arming.get_by_role("button", name="Arm").click()
        expect(arming).to_have_text("Armed Disarm")
        assert is_armed(run_dir)
        page.goto(guarded.url("/status"))
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url(guarded.url("/login"))
    answer = httpx.post(guarded.url("/api/v1/disarm"), headers={"cookie": cookie}, timeout=60)
    assert answer.status_code == 401 and is_armed(run_dir), "a session that ended"


def write(folder: Path, rules: list[dict[str, object]]) -> Path:
    path = folder / "site.yaml"
    site = {"cameras": [DRONE], "rules": rules, "run_dir": str(folder / "run")}
    path.write_text(yaml.safe_dump({**site, "metrics": {"port": 0}, "console": {"port": 0}}))
    return path


def test_on_the_command_line_whether_the_site_runs_or_not(tmp_path: Path) -> None:
    config, run_dir = write(tmp_path, RULES), tmp_path / "run"
    assert is_armed(run_dir)
    done = dasnet_in_process("disarm", config)
    assert (done.returncode, done.stdout) == (0, f"{run_dir}: disarmed\n") and not is_armed(run_dir)
    assert "the site is disarmed" in dasnet_in_process("status", config).stdout
    config.write_text(config.read_text().replace("rate_fps: 10", "rate_fps: ${RATE}"))  # known to the program alone
    assert dasnet_in_process("arm", config).stdout == f"{run_dir}: armed\n" and is_armed(run_dir)
    config = write(tmp_path, RULES[1:])
    assert dasnet_in_process("disarm", config).stdout == (
        f"{run_dir}: disarmed; no rule has needs_arming, so this changes nothing\n"
    )
    done = dasnet_in_process("arm", tmp_path / "none.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "none.yaml" in done.stderr and not is_armed(run_dir)


@pytest.mark.slow
@pytest.mark.live
def test_a_running_program_alerts_what_is_there_when_it_is_armed_and_its_rules_are_reloaded(tmp_path: Path) -> None:
    config = write(tmp_path, RULES)
    assert dasnet_in_process("disarm", config).returncode == 0
    with Running("run", config) as program:
        program.wait_for_line("site disarmed")
        program.wait_for_metric('dasnet_tracks_confirmed_total{camera="north"}', 1, timeout_s=240)
        alerts = 'dasnet_alerts_total{camera="north",severity="alarm"}'
        assert program.metrics()[alerts] == 0
        console = program.wait_for_line(r"console: (http\S+)/")[1]
        assert httpx.post(f"{console}/api/v1/arm", timeout=60).json() == {"armed": True}
        program.wait_for_line("site armed")
        program.wait_for_metric(alerts, 1, timeout_s=240)
        write(tmp_path, [{"name": "quiet", "action": "record"}])
        assert dasnet_in_process("reload", config).stdout == "rules changed\n"
        segmented = 'dasnet_frames_segmented_total{camera="north"}'
        before = program.metrics()
        program.wait_for_metric(segmented, before[segmented] + 3, timeout_s=240)
        assert program.metrics()[alerts] == before[alerts] and "camera.down" not in "\n".join(program.lines)
        assert program.stop() == 0
