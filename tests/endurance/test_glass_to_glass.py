"""Glass to glass of live video, and how fresh the images are of cameras that browsers cannot play."""

from pathlib import Path

import pytest
from support.rtsp import missing_packages

from endurance.glass_to_glass import ages, measured, sent_ms
from endurance.tab_memory import grows

rtsp = pytest.mark.skipif(bool(missing_packages()), reason=str(missing_packages()))


def test_the_age_of_a_shown_frame_is_from_its_latest_sending() -> None:
    sent = sent_ms("7 1000000000\n8 1040000000\n7 11000000000\n")
    assert ages(sent, [(7, 1200.0), (8, 1290.0), (7, 11300.0)]) == [200.0, 250.0, 300.0]


@pytest.mark.slow
@pytest.mark.alone
@rtsp
@pytest.mark.parametrize(
    ("codec", "source"),
    [
        ("h264", "Live video"),
        ("h265", "Images, as processed · no video: codec hevc, must be h264"),
        ("mjpeg", "Images, as processed · no video: codec mjpeg, must be h264"),
    ],
)
def test_what_an_enlarged_camera_shows_is_fresh(tmp_path: Path, codec: str, source: str) -> None:
    report = measured(tmp_path, codec, 8.0)
    assert report["source"] == source
    assert report["median_ms"] <= 500 and report["p95_ms"] <= 1000, report


def test_growth_is_told_from_what_goes_up_and_down() -> None:
    assert not grows("heap_mb", [1.0, 2.0, 2.2, 2.0, 2.3, 2.1, 2.2, 2.0, 2.1])
    assert grows("heap_mb", [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0])
