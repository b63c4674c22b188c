"""`dasnet replay --ray`: the bytes of a replay without it, whatever becomes of driver and nodes."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.events import until
from support.program import CLIPS, REPOSITORY, dasnet
from support.ray_cluster import node, ray_cluster, started

from pipeline.bulk.clip import UNFINISHED

pytest.importorskip("ray")
FRAMES = 6
NAMES = ("IR_BIRD_003", "IR_DRONE_015", "IR_DRONE_019")
SAME = ("tracks.txt", "tracks.csv", "events.jsonl", "detections.jsonl", "annotated.mp4")
START_S = 240


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for name in NAMES:
        shutil.copy(CLIPS / f"{name}.mp4", folder)
    return folder


@pytest.fixture(scope="module")
def plain(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a replay without Ray writes."""
    out = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as a task of one core has
        result = dasnet("replay", clips, "--out", out, "--end", str(FRAMES), "--parquet")
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as cluster:
        cluster.add_node(**node())
        yield cluster


def assert_same(out: Path, plain: Path) -> None:
    for name in NAMES:
        for file in SAME:
            assert (out / name / file).read_bytes() == (plain / name / file).read_bytes(), (name, file)
    rows = sorted(path.relative_to(plain) for path in (plain / "parquet").rglob("*.parquet"))
    assert rows == sorted(path.relative_to(out) for path in (out / "parquet").rglob("*.parquet"))
    for path in rows:
        assert (out / path).read_bytes() == (plain / path).read_bytes(), path
    assert not (out / UNFINISHED).exists()


def finished(clips: Path, out: Path, address: str, *options: str) -> tuple[int, str]:
    process = started(clips, "--out", out, "--end", str(FRAMES), "--parquet", "--ray", address, *options)
    text, _ = process.communicate(timeout=START_S)
    return process.returncode, text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_same_bytes_and_what_is_done_is_not_done_again(clips: Path, plain: Path, cluster: Any, tmp_path: Path):
    assert finished(clips, tmp_path, cluster.address)[0] == 0
    assert_same(tmp_path, plain)
    assert (tmp_path / "report.html").read_bytes() == (plain / "report.html").read_bytes()
    written = {path: path.stat().st_mtime_ns for name in NAMES for path in (tmp_path / name).iterdir()}
    shutil.rmtree(tmp_path / NAMES[0])  # as after a driver that was killed before it was done
    code, text = finished(clips, tmp_path, cluster.address)
    assert code == 0 and "2 of 3 recordings are done already" in text
    assert_same(tmp_path, plain)
    again = {path for path, time_ns in written.items() if path.stat().st_mtime_ns != time_ns}
    assert {path.parent.name for path in again} == {NAMES[0]}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_driver_and_a_killed_node_change_nothing(clips: Path, plain: Path, cluster: Any, tmp_path: Path):
    driver = started(clips, "--out", tmp_path, "--end", str(FRAMES), "--parquet", "--ray", cluster.address)
    until(lambda: any((tmp_path / name).exists() for name in NAMES), START_S)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    doomed = cluster.add_node(**node(resources={"doomed": 1}))
    driver = started(clips, "--out", tmp_path, "--end", str(FRAMES), "--parquet", "--ray", cluster.address)
    until(lambda: any((tmp_path / UNFINISHED).glob("*")), START_S)
    cluster.remove_node(doomed, allow_graceful=False)
    text, _ = driver.communicate(timeout=START_S)
    assert driver.returncode == 0, text
    assert_same(tmp_path, plain)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_broken_recording_is_tried_again_and_listed_and_the_rest_goes_on(clips: Path, cluster: Any, tmp_path: Path):
    folder = tmp_path / "clips"
    folder.mkdir()
    shutil.copy(clips / f"{NAMES[0]}.mp4", folder)
    (folder / "broken.mp4").write_bytes(b"no video")
    code, text = finished(folder, tmp_path / "out", cluster.address)
    assert code == 1
    assert "broken: tried again:" in text and "error: broken.mp4:" in text and "(node " in text
    assert (tmp_path / "out" / NAMES[0] / "tracks.txt").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_with_another_version_is_refused_by_name(clips: Path, tmp_path: Path):
    package = tmp_path / "other" / "pipeline"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "0.0.1"\n')
    with ray_cluster() as cluster:
        cluster.add_node(**node(env_vars={"PYTHONPATH": str(package.parent)}))
        code, text = finished(clips, tmp_path / "out", cluster.address)
    assert code == 1
    assert ": 0.0.1; must be dasnet" in text
    assert "no node of the cluster can be used" in text


@pytest.mark.slow
def test_what_cannot_start_is_refused_with_its_reason(clips: Path, tmp_path: Path):
    def refused(*options: str) -> subprocess.CompletedProcess[str]:
        return dasnet("replay", clips, "--out", tmp_path, *options)

    nobody = refused("--ray", "127.0.0.1:9")
    assert nobody.returncode == 1 and "--ray 127.0.0.1:9: no Ray cluster there" in nobody.stderr
    wrong = refused("--ray", "ray://head:10001")
    assert wrong.returncode == 2 and "must be auto, or HOST:PORT" in wrong.stderr
    tracking = refused("--ray", "auto", "--from-detections")
    assert tracking.returncode == 2 and "--from-detections" in tracking.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("package", "options"), [("ray", ["--ray", "auto"]), ("pyarrow", ["--parquet"])])
def test_a_missing_extra_is_named(package: str, options: list[str], tmp_path: Path):
    program = f"import sys; sys.modules[{package!r}] = None; from pipeline.__main__ import main; main()"
    command = [sys.executable, "-c", program, "replay", str(CLIPS), "--out", str(tmp_path), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=REPOSITORY)
    assert result.returncode == 2
    assert f'{options[0]} needs {package}, not installed here: pip install "dasnet[ray]"' in result.stderr
