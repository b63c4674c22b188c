"""`dasnet assess` as a whole: real recordings, seeded drones, verdicts, Ctrl-C, cameras that are not there."""

import json
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.program import CLIPS, Running, dasnet, dasnet_in_process, free_port

from pipeline.assess.observations import Alarm, Assessment
from pipeline.assess.records import with_verdicts
from pipeline.assess.run import read_assessment
from pipeline.config.calibration import read_calibration
from pipeline.errors import ConfigError
from pipeline.store.reviews import acknowledge, review
from pipeline.types import Verdict

DRONE = CLIPS / "IR_DRONE_015.mp4"
# Ten frames a second of a part of the view: enough to see, in seconds.
VIEW = "band: infrared, rate_fps: 10, region: [96, 64, 288, 192]"


def write_site(folder: Path, *cameras: str) -> Path:
    lines = "\n".join(f"  - {{{camera}}}" for camera in cameras)
    path = folder / "site.yaml"
    path.write_text(f"cameras:\n{lines}\nrun_dir: {folder / 'run'}\n")
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drone of a real recording, beside a camera that does not answer."""
    folder = tmp_path_factory.mktemp("assess")
    dead = f'id: dead, uri: "rtsp://127.0.0.1:{free_port()}/stream"'
    return write_site(folder, f'id: north, uri: "file:{DRONE}", {VIEW}', dead)


@pytest.fixture(scope="module")
def out(site: Path) -> Path:
    result = dasnet("assess", site, "--hours", "0.002", "--encounters", "500", timeout_s=280)
    assert result.returncode == 1, result.stderr  # a camera gave nothing
    assert "error: camera dead at 127.0.0.1" in result.stderr
    assert "dead: nothing was observed" in result.stdout
    assert "north: at most" in result.stdout and "for a claim of 0.2/h" in result.stdout
    return site.parent / "run" / "assess"


def results(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "assess.json").read_text())
    return content


def test_the_recording_gives_alarms_with_snapshots_and_encounters(out: Path):
    north, dead = results(out)["cameras"]
    assert north["observed_s"] == pytest.approx(7.2, abs=0.2) and north["frames"] > 60
    assert north["alarms"] and len(north["encounters"]) == 1
    assert all((out / "snapshots" / alarm["snapshot"]).read_bytes()[:2] == b"\xff\xd8" for alarm in north["alarms"])
    assert dead["frames"] == 0 and "127.0.0.1" in dead["error"]
    page = (out / "report.html").read_text()
    assert "camera dead at 127.0.0.1" in page and page.count("<svg") >= 3


def test_the_calibration_describes_the_camera(out: Path):
    calibration = read_calibration(out / "north.calibration.json")
    assert calibration.frame_size_px == (320, 256) and calibration.hours == pytest.approx(0.002, rel=0.1)
    assert max(max(row) for row in calibration.noise_map) > 0.1  # where the drone is
    assert calibration.limits.alert_log_odds is None  # seconds prove nothing
    assert not (out / "dead.calibration.json").exists()


def test_operators_verdicts_count_once_the_report_is_rewritten(site: Path, out: Path):
    before = results(out)["cameras"][0]["alarms"]
    assert acknowledge(out / "store.sqlite", before[0]["id"], 1)
    confirmed = with_verdicts(read_assessment(out / "assess.json"), out, out / "none")
    assert confirmed.cameras[0].alarms[0].verdict == "true"
    review(out / "store.sqlite", before[0]["id"], Verdict.BIRD, None, 1)
    rewritten = dasnet_in_process("assess", site, "--hours", "0")
    assert rewritten.returncode == 1, rewritten.stderr
    after = results(out)
    assert [alarm["verdict"] for alarm in after["cameras"][0]["alarms"]] == ["false"] + [None] * (len(before) - 1)
    assert after["figures"][0]["rate"]["dismissed"] == 1
    assert "1 dismissed" in (out / "report.html").read_text()


def test_verdicts_in_the_sites_own_store_count_for_the_same_camera_and_time(out: Path, tmp_path: Path):
    assessment = read_assessment(out / "assess.json")
    alarm = assessment.cameras[0].alarms[-1]
    copied = tmp_path / "site.sqlite"
    copied.write_bytes((out / "store.sqlite").read_bytes())
    assert review(copied, alarm.id, Verdict.INSECT, None, 5)

    def verdicts(changed: Assessment) -> list[str | None]:
        return [one.verdict for one in with_verdicts(changed, tmp_path / "none", copied).cameras[0].alarms]

    assert verdicts(assessment)[-1] == "false"
    assert verdicts(an_hour_later(assessment, alarm)) == [None]


def an_hour_later(assessment: Assessment, alarm: Alarm) -> Assessment:
    late = msgspec.structs.replace(alarm, time_utc_ns=alarm.time_utc_ns + 3600 * 10**9)
    camera = msgspec.structs.replace(assessment.cameras[0], alarms=[late])
    return msgspec.structs.replace(assessment, cameras=[camera])


@pytest.mark.slow
def test_ctrl_c_ends_with_a_report_of_what_was_seen(tmp_path: Path):
    site = write_site(tmp_path, f'id: live, uri: "demo:clips/{CLIPS}", {VIEW}')
    with Running("assess", site, "--hours", "1", "--out", tmp_path / "out") as program:
        program.wait_for_line(r"live: \d+/3600 s", timeout_s=200)
        assert program.stop(signal.SIGINT) == 0
        assert program.wait_for_line("live: at most")
    camera = results(tmp_path / "out")["cameras"][0]
    assert 0 < camera["observed_s"] < 3600 and camera["error"] is None
    assert not results(tmp_path / "out")["complete"] and "ended early" in (tmp_path / "out" / "report.html").read_text()


def test_wrong_usage_is_refused(tmp_path: Path):
    site = write_site(tmp_path, 'id: scene, uri: "demo:scene"')
    too_many = dasnet_in_process("assess", site, "--hours", "1", "--encounters", "1000")
    assert too_many.returncode == 2 and "--encounters 1000: must be at most 514 an hour" in too_many.stderr
    nothing = dasnet_in_process("assess", site, "--hours", "0")
    assert nothing.returncode == 2 and "--hours must be above 0 the first time" in nothing.stderr


def test_damaged_results_are_refused_with_file_and_key(tmp_path: Path, out: Path):
    path = tmp_path / "assess.json"
    path.write_text((out / "assess.json").read_text().replace('"band": "infrared"', '"band": "thermal"', 1))
    with pytest.raises(ConfigError, match=r"assess\.json: Invalid enum value 'thermal' - at `\$\.cameras\[0\]\.band`"):
        read_assessment(path)
