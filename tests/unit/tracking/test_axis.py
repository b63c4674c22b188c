"""Where a camera that turns looked at a frame: between samples, after the last one, and when that is unknown."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.scenes import SURE_UAV, frame

from model.metadata import Thresholds
from pipeline.config.file import load
from pipeline.errors import ConfigError, WireError
from pipeline.tracking.axis import AxisHistory, Mount
from pipeline.tracking.bearing import Orientation
from pipeline.tracking.camera_settings import mounts_of, orientations_of
from pipeline.tracking.stage import TrackStage
from pipeline.transport.wire import decode, encode
from pipeline.types import AxisSample, Band

MOUNT = Mount(roll_deg=0, sigma_deg=0.5)


def sample(time_s: float, azimuth_deg: float = 0.0, elevation_deg: float = 0.0, **changes: object) -> AxisSample:
    told = {"hfov_deg": 40.0, "is_moving": None} | changes
    return AxisSample("dome", round(time_s * 1e9), 20_000_000, azimuth_deg, elevation_deg, **told)


def at(time_s: float, *samples: AxisSample, mount: Mount = MOUNT) -> Orientation | None:
    history = AxisHistory()
    for each in samples:
        history.add(each)
    return history.orientation(mount, round(time_s * 1e9))


def known(orientation: Orientation | None) -> Orientation:
    assert orientation is not None
    return orientation


def test_between_two_samples_it_turned_evenly_and_the_short_way_round() -> None:
    turned = known(at(1.1, sample(1.0, 350, 10), sample(1.2, 10, 14)))
    assert (turned.azimuth_deg, turned.elevation_deg) == pytest.approx((0, 12))
    still = known(at(1.1, sample(1.0, 350, 10), sample(1.2, 350, 10)))
    assert still.sigma_deg == 0.5 and turned.sigma_deg > 10, "100 degrees a second: delays of a tenth matter"
    zoomed = known(at(1.1, sample(1.0), sample(1.2, hfov_deg=20.0)))
    assert zoomed.hfov_deg == 30 and zoomed.sigma_deg > 5


def test_after_the_last_sample_the_error_grows_until_nothing_is_known() -> None:
    still = [sample(1.0, is_moving=False), sample(1.2, is_moving=False)]
    errors = [known(at(1.2 + age_s, *still)).sigma_deg for age_s in (0, 0.2, 1, 2)]
    assert errors == sorted(errors) and errors[0] == 0.5 and 4 < errors[-1] < 5
    assert at(3.3, *still) is None
    turning = [sample(1.0, 0, is_moving=True), sample(1.2, 4, is_moving=True)]
    later = known(at(1.4, *turning))
    assert later.azimuth_deg == pytest.approx(8) and 4 < later.sigma_deg < 6
    stopped = known(at(1.4, *turning[:1], sample(1.2, 4, is_moving=False)))
    assert stopped.azimuth_deg == 4
    assert known(at(1.4, sample(1.2, is_moving=True))).sigma_deg == pytest.approx(math.hypot(0.5, 4), abs=0.1)


def test_what_is_not_known_is_not_invented() -> None:
    assert at(1.0) is None
    assert at(0.9, sample(1.0), sample(1.2)) is None, "before the first"
    assert at(3.0, sample(1.0), sample(4.0)) is None, "it may have looked anywhere between"
    assert at(1.1, sample(1.0, 0), sample(1.2, 170)) is None, "too uncertain"


def test_a_video_that_comes_late_is_of_earlier_directions() -> None:
    samples = [sample(1.0, 0), sample(1.2, 10), sample(1.4, 20)]
    assert known(at(1.5, *samples, mount=replace(MOUNT, delay_s=0.4))).azimuth_deg == pytest.approx(5)


def test_the_errors_cover_what_they_claim() -> None:
    """A camera that turns back and forth, asked five times a second, answers late; frames come later still."""
    rng = np.random.default_rng(3)

    def truth(time_s: float) -> float:
        return 60 * math.sin(time_s / 2)

    off = []
    history = AxisHistory()
    for step in range(2000):
        time_s = step * 0.2 + rng.uniform(0, 0.05)
        history.add(sample(time_s, truth(time_s + rng.uniform(-0.02, 0.02)), is_moving=True))
        for age_s in (0.05, 0.15):
            seen = known(history.orientation(MOUNT, round((time_s + age_s) * 1e9)))
            turned = truth(time_s + age_s - rng.normal(0, 0.1)) + rng.normal(0, 0.5)
            off.append((turned - (seen.azimuth_deg + 180) % 360 + 180) / seen.sigma_deg)
    assert np.std(off) < 1.1 and np.mean(np.abs(off) < 3) > 0.99


def turning_site(tmp_path: Path, onvif: str, uri: str = "rtsp://me:s3cr3t-Pass@192.0.2.7:554/s") -> Path:
    site = tmp_path / "site.yaml"
    pose = f"{{lat: 52.1, lon: 11.6, azimuth_deg: 30, hfov_deg: 40, sigma_deg: 0.5, onvif: {onvif}}}"
    site.write_text(f"cameras: [{{id: dome, uri: '{uri}', pose: {pose}}}]\n")
    return site


def test_tracks_have_bearings_by_where_the_camera_looked_and_none_while_that_is_unknown(tmp_path: Path) -> None:
    config = load(turning_site(tmp_path, "{}"))
    assert orientations_of(config) == {} and mounts_of(config) == {"dome": MOUNT}
    assert config.cameras[0].onvif_url == "http://me:s3cr3t-Pass@192.0.2.7/onvif/device_service"
    stage = TrackStage({band: Thresholds() for band in Band}, mounts=mounts_of(config))

    def bearing(number: int) -> float | None:
        (track,) = stage.update(frame(number, [(320, 256, 10, SURE_UAV)], camera="dome")).tracks
        return track.bearing and track.bearing.azimuth_deg

    assert bearing(0) is None
    start_s = frame(1, [], camera="dome").ref.received_mono_ns / 1e9
    stage.look(sample(start_s - 0.1, 100, is_moving=False))
    assert bearing(1) == pytest.approx(100, abs=0.3)
    stage.look(sample(start_s, 200, is_moving=False))
    assert bearing(2) is None, "it turned a moment ago, and the frame may be of the time before"
    assert bearing(10) == pytest.approx(200, abs=0.3)
    assert bearing(2000) is None


@pytest.mark.parametrize(
    ("onvif", "fault"),
    [
        ("{pan: [[1, 0], [1, 90]]}", "pose.onvif.pan: must be two different positions"),
        ("{zoom: [[0.5, 20], [0.4, 10]]}", "pose.onvif.zoom: must be positions that rise, from above 0"),
        ("{zoom: [[0.5, 0]]}", "pose.onvif.zoom[0][1]: must be greater than 0"),
        ("{url: 'ftp://h/x'}", "pose.onvif.url: must be http://HOST/PATH"),
        ("{url: 'http://me:s3cr3t-Pass@h/x@y'}", "pose.onvif.url: must be http://HOST/PATH"),
        ("{rate: 5}", "pose.onvif.rate: unknown key"),
    ],
)
def test_a_wrong_calibration_is_told(onvif: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(turning_site(tmp_path, onvif))
    assert fault in str(caught.value) and "s3cr3t" not in str(caught.value), str(caught.value)


def test_a_camera_without_a_host_must_have_an_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pose: must have onvif.url, because uri names no host"):
        load(turning_site(tmp_path, "{}", "demo:scene"))


@pytest.mark.parametrize("changes", [{"azimuth_deg": math.nan}, {"hfov_deg": 0.0}, {"elevation_deg": 1e9}])
def test_directions_that_are_none_are_refused(changes: dict[str, float]) -> None:
    good = {"azimuth_deg": 1.0, "elevation_deg": 2.0, "hfov_deg": 30.0}
    assert decode(encode(AxisSample("dome", 1, 2, **good)))[0] == AxisSample("dome", 1, 2, **good)
    with pytest.raises(WireError, match="axis at"):
        decode(encode(AxisSample("dome", 1, 2, **good | changes)))
