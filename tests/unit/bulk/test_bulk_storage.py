"""Bulk replay from and to object stores and web servers: the same bytes, done once, and failures by name."""

import http.server
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.program import CLIPS, in_process, shortened
from support.ray_cluster import started

from model.checkpoint import load
from pipeline.bulk import run, storage
from pipeline.bulk.clip import Clip, attempt
from pipeline.bulk.schedule import Finished
from pipeline.checkpoints import checkpoint_path
from pipeline.cli import main
from pipeline.errors import DasnetError
from pipeline.replay.options import ReplayOptions

pytest.importorskip("pyarrow", reason="needs the extra `ray`")
s3fs = pytest.importorskip("s3fs", reason="needs s3fs, in the extra `s3`")
FRAMES = 4
RECORDING = "IR_DRONE_015"
SAME = ("tracks.txt", "tracks.csv", "events.jsonl", "detections.jsonl", "annotated.mp4")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings") / f"{RECORDING}.mp4"
    shortened(CLIPS / f"{RECORDING}.mp4", FRAMES, path)
    return path


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An object store with the bucket `site`; the environment leads to it."""
    server = pytest.importorskip("moto.server", reason="needs moto, in the group `test`").ThreadedMotoServer(
        "127.0.0.1", 0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    with leading_to(f"http://{host}:{port}"):
        s3fs.S3FileSystem().mkdir("site")
        yield "s3://site"
    server.stop()


@contextmanager
def leading_to(endpoint: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "canary")):
            patch.setenv(f"AWS_{key}", value)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        yield
    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def clip() -> Callable[[str, str], Clip]:
    sha256 = load(checkpoint_path(None)).metadata.sha256
    options = ReplayOptions(device="cpu", parquet=True)
    return lambda place, out: Clip(place, RECORDING, f"{RECORDING}.mp4", out, options, sha256)


@pytest.fixture(scope="module")
def plain(recording: Path, clip: Callable[[str, str], Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    assert attempt(pickle.dumps(clip(str(recording), str(out)))) is None
    return out


def assert_same(out: Path, plain: Path) -> None:
    for name in SAME:
        assert (out / RECORDING / name).read_bytes() == (plain / RECORDING / name).read_bytes(), name
    rows = sorted(path.relative_to(plain) for path in plain.rglob("*.parquet"))
    assert rows == sorted(path.relative_to(out) for path in out.rglob("*.parquet")) and len(rows) == 3


def fetched(uri: str, folder: Path) -> Path:
    s3fs.S3FileSystem(use_listings_cache=False).get(f"{uri.removeprefix('s3://')}/", f"{folder}/", recursive=True)
    return folder


def test_a_recording_of_an_object_store_has_the_same_results_there_and_is_replayed_once(
    s3: str,
    recording: Path,
    plain: Path,
    clip: Callable[[str, str], Clip],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    storage.store(recording.parent, f"{s3}/in")
    (place,) = storage.find_videos(f"{s3}/in")
    assert place == f"{s3}/in/{RECORDING}.mp4"
    there = clip(place, f"{s3}/out")
    assert not there.is_done and there.size_bytes == recording.stat().st_size
    assert attempt(pickle.dumps(there)) is None and there.is_done
    assert_same(fetched(f"{s3}/out", tmp_path / "first"), plain)
    assert storage.read(f"{s3}/out/", f"{RECORDING}/.done") and storage.read(f"{s3}/out", "nothing") is None
    stamp = storage.stamp(f"{s3}/out/{RECORDING}/.done")
    assert attempt(pickle.dumps(there)) is None and storage.stamp(f"{s3}/out/{RECORDING}/.done") == stamp
    storage.remove(f"{s3}/out", [f"{RECORDING}/.done"])  # as after a node that died before it was done
    storage.store(plain / "parquet", f"{s3}/out/{RECORDING}")
    assert attempt(pickle.dumps(there)) is None
    assert_same(fetched(f"{s3}/out", tmp_path / "second"), plain)
    done = there.last()
    assert done is not None
    run._report(f"{s3}/out", [(RECORDING, done)])
    assert capsys.readouterr().out.endswith(": s3://site/out/report.html\n")
    assert b"Replay report" in (storage.read(f"{s3}/out", "report.html") or b"")


def test_a_recording_that_was_replaced_is_not_done(s3: str, recording: Path, clip: Callable[[str, str], Clip]):
    storage.store(recording.parent, f"{s3}/changing")
    one = clip(f"{s3}/changing/{recording.name}", f"{s3}/none")
    before = one._work()
    assert one._work() == before
    with_more = recording.parent.parent / "longer"
    with_more.mkdir()
    (with_more / recording.name).write_bytes(recording.read_bytes() + b"\0")
    storage.store(with_more, f"{s3}/changing")
    assert one._work() != before
    storage.store(with_more, f"{s3}/changing-too")
    assert storage.names(s3, "changing") == [f"changing/{recording.name}"]


def test_a_recording_of_a_web_server(recording: Path, plain: Path, clip: Callable[[str, str], Clip], tmp_path: Path):
    pytest.importorskip("aiohttp", reason="needs aiohttp, in the extra `s3`")

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(recording.parent))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with serving(Files) as address:
        place = f"{address}/{recording.name}?token=canary"
        assert storage.find_videos(place) == [place]
        assert attempt(pickle.dumps(clip(place, str(tmp_path)))) is None
        with pytest.raises(DasnetError, match=r"nothing\.mp4: does not exist"):
            storage.find_videos(f"{address}/nothing.mp4?token=canary")
    assert_same(tmp_path, plain)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (400, "ExpiredToken", "refused; expected credentials that are valid and not expired"),
        (403, "InvalidAccessKeyId", "refused; expected credentials"),
        (507, "QuotaExceeded", "no space left there"),
    ],
)
def test_a_store_that_refuses_is_named_with_its_reason(status: int, code: str, told: str):
    class Refusing(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # answers `Expect: 100-continue`

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"<Error><Code>{code}</Code><Message>{code} it said</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Refusing) as address, leading_to(address), pytest.raises(DasnetError) as refused:
        storage.check_writable("s3://site/out")
    assert str(refused.value).startswith(f"s3://site/out: {told}") and "canary" not in str(refused.value)


@pytest.mark.slow
def test_what_is_not_there_is_named(s3: str):
    storage.check_writable(f"{s3}/out")
    with pytest.raises(DasnetError, match="s3://nobody/out: does not exist"):
        storage.check_writable("s3://nobody/out")
    with pytest.raises(DasnetError, match="s3://site/empty: contains no recording"):
        storage.find_videos(f"{s3}/empty")
    with leading_to("http://127.0.0.1:9"), pytest.raises(DasnetError, match="s3://site/out: cannot be reached"):
        storage.check_writable("s3://site/out")
    with pytest.raises(DasnetError, match="gone://place: "):
        storage.find_videos("gone://place")


def test_a_recording_that_disappears_meanwhile_is_one_failure(
    s3: str, recording: Path, clip: Callable[[str, str], Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    storage.store(recording.parent, f"{s3}/going")
    one = clip(f"{s3}/going/{recording.name}", str(tmp_path))
    assert attempt(pickle.dumps(one)) is None and run._last(one) is not None

    class Disappearing:
        def run(self, clips: Sequence[Clip]) -> Iterator[Finished]:
            storage.remove(f"{s3}/going", [recording.name])
            return (Finished(each, "does not exist") for each in clips)

    assert run._replay(Disappearing(), [one]) == [f"{RECORDING}.mp4: does not exist"]  # type: ignore[arg-type]
    assert run._last(one) is None
    assert f"error: {RECORDING}.mp4 is not in the report: s3://site/going/{RECORDING}.mp4: " in capsys.readouterr().err


def test_places_elsewhere_need_ray(tmp_path: Path):
    result = in_process(main, "replay", "s3://user:canary@site/in", "--out", tmp_path)
    assert result.returncode == 2 and "s3://site/in: must be a path" in result.stderr and "canary" not in result.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_bulk_replay_between_buckets(s3: str, recording: Path, tmp_path: Path):
    storage.store(recording.parent, f"{s3}/bulk")
    assert os.environ["AWS_ENDPOINT_URL"]
    for out, said in (("results/", "1 recordings, 4 frames"), ("results", "1 of 1 recordings are done already")):
        process = started(f"{s3}/bulk", "--out", f"{s3}/{out}", "--ray", "auto", "--parquet")
        text, _ = process.communicate(timeout=400)
        assert process.returncode == 0 and said in text, text
    assert {"report.html", f"{RECORDING}/tracks.txt"} <= {*storage.names(f"{s3}/results", "")}
