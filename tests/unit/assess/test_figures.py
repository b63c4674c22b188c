"""Figures of an assessment: claims, verdicts, operating points, charts and the calibration that follows."""

from pathlib import Path

import msgspec
import pytest

from pipeline.assess.figures import camera_figures, hours_for_claim, site_figures
from pipeline.assess.observations import Alarm, Assessment, CameraObservation, SeededEncounter, log_odds
from pipeline.assess.report import claim, summary_table, write_outputs
from pipeline.config.calibration import read_calibration
from pipeline.types import Band, Severity

SHA256 = "a" * 64


def alarm(number: int, odds: float, verdict: str | None = None) -> Alarm:
    values = {"id": f"A{number}", "camera": "north", "time_utc_ns": 0, "time_s": 60.0 * number, "severity": "alarm"}
    return msgspec.convert(values | {"label": "uav", "log_odds": odds, "snapshot": None, "verdict": verdict}, Alarm)


def encounter(
    size_px: float, delay_s: float | None, odds: float = 2.0, suppressed: str | None = None
) -> SeededEncounter:
    return SeededEncounter(
        number=0,
        drone="IR",
        time_s=1.0,
        duration_s=4.0,
        size_px=size_px,
        contrast=20.0,
        delay_s=delay_s,
        log_odds=None if delay_s is None else odds,
        suppressed_as=suppressed,
    )


def camera(hours: float, alarms: list[Alarm], encounters: list[SeededEncounter]) -> CameraObservation:
    return CameraObservation(
        id="north",
        band=Band.INFRARED,
        frame_size_px=(320, 256) if hours else None,
        observed_s=3600 * hours,
        blind_s=0.0,
        frames=1,
        dropped=0,
        error=None,
        alarms=alarms,
        encounters=encounters,
        noise_map=[[0.0, 0.5], [1.0, 0.0]],
    )


def assessment(*cameras: CameraObservation) -> Assessment:
    return Assessment(
        dasnet="0",
        created_utc_ns=1_700_000_000 * 10**9,
        checkpoint=SHA256,
        network="dasnet",
        engine="native-cpu-fp32",
        role="alert",
        target_per_hour=0.2,
        seed=0,
        encounters_per_hour=60.0,
        requested_hours=1.0,
        complete=True,
        cameras=list(cameras),
    )


def test_fifteen_hours_without_an_alarm_prove_a_fifth_an_hour():
    assert hours_for_claim(0, 0.2) == pytest.approx(15.0, abs=0.03)
    silent = camera_figures(camera(15.0, [], []), "alert", 0.2)
    assert claim(silent, 0.2) == "at most 0.2 false alarms an hour at 95%: 0.2/h is proven"
    assert "12.0 h more without one for a claim of 0.2/h" in claim(camera_figures(camera(3, [], []), "alert", 0.2), 0.2)


def test_confirmed_alarms_are_not_false_and_unreviewed_ones_are():
    seen = camera(10.0, [alarm(1, 1.0, "true"), alarm(2, 2.0, "false"), alarm(3, 3.0)], [])
    rate = camera_figures(seen, "alert", 0.2).rate
    assert (rate.alarms, rate.confirmed, rate.dismissed) == (3, 1, 1)
    assert rate.per_hour == pytest.approx(0.2)
    assert rate.low == pytest.approx(0.0242, abs=1e-4) and rate.high == pytest.approx(0.7225, abs=1e-4)


def test_the_limit_is_the_lowest_that_the_hours_prove():
    noisy = [alarm(1, -1.0), alarm(2, 0.5), alarm(3, 1.5), alarm(4, 9.0, "true")]
    figures = camera_figures(camera(30.0, noisy, [encounter(6, 0.5, 1.0), encounter(6, 0.5, 3.0)]), "alert", 0.2)
    assert figures.limit == pytest.approx(0.501)  # one of three is left: at most 0.158/h
    assert [point.probability for point in figures.curve] == [1.0, 1.0, 1.0, 0.5]
    assert [round(30 * point.alarms_per_hour) for point in figures.curve] == [3, 2, 1, 0]
    assert camera_figures(camera(14.0, noisy, []), "alert", 0.2).limit is None


def test_detection_by_size_with_bounds_and_delays():
    seen = [encounter(6, 0.5), encounter(7, None, suppressed="bird"), encounter(15, 0.3), encounter(20, 1.0)]
    figures = camera_figures(camera(1.0, [], seen), "alert", 0.2)
    assert [(one.detection.detected, one.detection.encounters) for one in figures.by_size] == [(1, 2), (0, 0), (2, 2)]
    assert figures.by_size[1].detection.probability is None
    assert figures.detection.suppressed == 1 and figures.detection.delay_median_s == 0.5
    assert (figures.detection.low, figures.detection.high) == (
        pytest.approx(0.194, abs=1e-3),
        pytest.approx(0.994, abs=1e-3),
    )


def test_a_site_adds_its_cameras_up():
    both = site_figures([camera(10.0, [alarm(1, 1.0)], []), camera(6.0, [], [])], "alert", 0.2)
    assert both.rate.hours == 16.0 and both.rate.per_hour == 1 / 16


def test_a_camera_that_gave_nothing_claims_nothing_and_has_no_calibration(tmp_path: Path):
    silent = assessment(camera(0.0, [], []))
    assert "north: nothing was observed" in summary_table(silent)
    assert "No camera gave a frame." in write_outputs(silent, tmp_path).read_text()
    assert not list(tmp_path.glob("*.calibration.json"))


def test_the_page_holds_everything_and_escapes_what_it_shows(tmp_path: Path):
    alarms = [alarm(number, number / 200) for number in range(1200)]
    seen = msgspec.structs.replace(camera(30.0, alarms, [encounter(6, 0.5)]), error="<script>alert(1)</script>")
    page = write_outputs(assessment(seen, camera(1.0, [], [])), tmp_path).read_text()
    assert page.count("<polyline") >= 6 and "all cameras" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    calibration = read_calibration(tmp_path / "north.calibration.json")
    assert calibration.noise_map == [[0.0, 0.5], [1.0, 0.0]] and calibration.checkpoint == SHA256


def test_log_odds_are_bounded():
    assert [log_odds(score) for score in (0.0, 0.5, 1.0)] == [-10.0, 0.0, 10.0]
    assert Severity.ALARM == "alarm"
