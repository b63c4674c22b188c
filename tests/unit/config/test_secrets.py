"""No part of a secret reaches a person, whatever characters it has, wherever it stands, and whatever goes wrong."""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock
from urllib.parse import unquote

import pytest
import structlog
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.program import dasnet

from pipeline.capture.open import open_source
from pipeline.cli import main
from pipeline.config.camera import Camera
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.config.uri import network_address, public_uri, uri_fault
from pipeline.console.cameras import CameraMonitor
from pipeline.console.frames import LiveFrames
from pipeline.console.status import public
from pipeline.diagnostics.doctor import describe
from pipeline.diagnostics.preflight import check_machine
from pipeline.diagnostics.support_bundle import _parts
from pipeline.errors import DasnetError
from pipeline.redaction import HIDDEN, Redactor, secrets_of
from pipeline.runtime.logs import configure

LETTERS = "QZXJ"  # which no message has next to each other
NASTY = "/#?%@:[]\\'\"${}&=+~,;!|<> \t.-_éü\u2100\uff03漢😀"
PASSWORDS = st.text(alphabet=LETTERS + NASTY, min_size=5, max_size=20).filter(
    lambda text: sum(letter in text for letter in LETTERS) > 1
)
CLOSED = "127.0.0.1:1"  # nothing listens there
SHAPES = [
    f"rtsp://me:{{}}@{CLOSED}/stream", f"rtsp:/me:{{}}@{CLOSED}/stream", f"rtsp:me:{{}}@{CLOSED}/stream",
    f"rtsp:\\\\me:{{}}@{CLOSED}/stream", f"rtsp:///me:{{}}@{CLOSED}", f"rtsp://{{}}@{CLOSED}/s", f"rtsp://{{}}:pw@{CLOSED}/s",
    f"http://me:{{}}@{CLOSED}/video", f"http://{CLOSED}/video?user=me&password={{}}", f"rtsp://{CLOSED}/user=me&password={{}}",
    f"rtsp://{CLOSED}/me/password={{}}_channel=1", f"rtp://me:{{}}@{CLOSED}/", f"me:{{}}@{CLOSED}",
    "v4l2:/dev/video99?password={}", "v4l2:me:{}@/dev/video99", "file://me:{}@host/clip.mp4", "file:me:{}@clip.mp4",
    "file:/nowhere/me:{}@clip.mp4", "sdp://me:{}@host/x.sdp", "demo:clips/me:{}@host", "demo:scene?password={}",
    "rtsp://me:{}", "rtsp:{}", "{}",
]  # fmt: skip


def parts_of(secret: str, text: str) -> set[str]:
    """The pieces of four characters, two of them letters, that are found."""
    pieces = {secret[start : start + 4] for start in range(len(secret) - 3)}
    return {piece for piece in pieces if sum(letter in LETTERS for letter in piece) > 1 and piece in text}


def said(site: Path) -> str:
    """All that is said of a site without starting it: check, status, support bundle, log, an attempt to connect."""
    try:
        config = load(site)
        check_machine(site, config)
    except DasnetError as error:
        return str(error)
    texts = [describe(site, config), json.dumps(public(config.model_dump(mode="json"), config.references))]
    texts += [status.uri for status in CameraMonitor(config).status(LiveFrames(["a"]))]
    texts += [collect() for name, collect in _parts(site, config) if name.startswith(("config", "check"))]
    try:
        open_source(config.cameras[0]).close()
    except DasnetError as error:
        texts.append(str(error))
    return "\n".join(texts)


@pytest.fixture(autouse=True)
def _own_secrets() -> Iterator[None]:
    """Others' tests need not hide these."""
    with forgotten():
        yield
    structlog.reset_defaults()


def forgotten() -> AbstractContextManager[object]:
    return mock.patch.multiple("pipeline.redaction", _known=set(), _redactor=Redactor(()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


def site(folder: Path, uri: str, more: str = "") -> Path:
    path = folder / "site.yaml"
    path.write_text(f"cameras:\n- {{id: a, uri: {json.dumps(uri)}}}\nrun_dir: {folder}/run\n{more}", encoding="utf-8")
    return path


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PASSWORDS, st.sampled_from(SHAPES), st.sampled_from(["literal", "variable", "whole", "file", "unquoted"]))
@example("QZXJ[QZXJ-ZXQJ]JX", SHAPES[0], "variable")
@example("QZXJ[QZXJ-ZXQJ]JX", SHAPES[0], "literal")
@example("QZ\u2100XJQZ", SHAPES[0], "literal")
@example("QZXJ@XQ/ZJ", SHAPES[0], "literal")
@example("QZXJ, XQJZ, JQXZ", SHAPES[0], "unquoted")
def test_no_part_of_a_password_is_said(folder: Path, password: str, shape: str, how: str) -> None:
    path = folder / "site.yaml"
    (folder / "secret").write_text(password, encoding="utf-8")
    written = {"variable": "${CAM_PASSWORD}", "file": "${file:secret}"}.get(how, password)
    site(folder, "${CAM_PASSWORD}" if how == "whole" else shape.format(written))
    if how == "unquoted" and "/me:{}" in shape:  # what is left of it, up to its first }, may still look like a path
        path.write_text(f"cameras:\n- {{id: a, uri: {shape.format(password)}}}\n", encoding="utf-8")
    value = shape.format(password) if how == "whole" else password
    with forgotten(), mock.patch.dict(os.environ, {"CAM_PASSWORD": value}):
        text = said(path)
    assert parts_of(password, text) == set(), text


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PASSWORDS.filter(lambda text: text == text.strip()), st.sampled_from(["variable", "file"]))
@example("S3cr[et-Part]9", "variable")
@example("a#b", "variable")
@example("${HOME}%41", "file")
def test_a_password_from_outside_is_taken_as_it_is(folder: Path, password: str, how: str) -> None:
    """FFmpeg decodes what is percent-encoded: see test_camera_check."""
    (folder / "secret").write_text(password + "\r\n", encoding="utf-8")
    reference = {"variable": "${CAM_PASSWORD}", "file": "${file:secret}"}[how]
    with forgotten(), mock.patch.dict(os.environ, {"CAM_PASSWORD": password}):
        config = load(site(folder, f"http://me:{reference}@[::1]:8554/stream?x=1#y"))
    address = network_address(config.cameras[0].uri)
    assert address is not None and unquote(address.userinfo) == f"me:{password}"
    assert (address.netloc, address.path) == ("[::1]:8554", "/stream") and uri_fault(config.cameras[0].uri) is None


def test_user_and_password_may_come_as_one_and_the_host_too(folder: Path) -> None:
    values = {"CAM_LOGIN": "me:p:w@/", "CAM_HOST": "192.0.2.1:8554"}
    with mock.patch.dict(os.environ, values):
        config = load(site(folder, "rtsp://${CAM_LOGIN}@${CAM_HOST}/s"))
    assert config.cameras[0].uri == "rtsp://me:p:w%40%2F@192.0.2.1:8554/s"
    assert config.cameras[0].public_uri == "rtsp://192.0.2.1:8554/s"


@pytest.mark.parametrize(
    "uri", ["rtsp://u:a#b@h/s", "rtsp://u:a/b@h/s", "rtsp://u:1/2@h/s", "http://u:1?2@h", "rtsp://u:p@ss/w@h"]
)
def test_a_password_that_must_be_encoded_says_how(folder: Path, uri: str) -> None:
    ended = dasnet("check", site(folder, uri))
    assert ended.returncode == 2, ended.stdout
    assert re.search(r"site\.yaml:2: cameras\[0\]\.uri: .*must be percent-encoded \(%2F %3F %23 %40", ended.stderr)
    assert ended.stderr.rstrip().endswith(f"(given: '{uri.partition(':')[0]}:{HIDDEN}')")


@pytest.mark.parametrize("command", ["check", "run", "status"])
def test_commands_show_nothing_of_a_password_that_a_library_would_quote(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("CAM_PASSWORD", "S3cr[et-Part]9")
    for uri in ("rtsp://admin:${CAM_PASSWORD}@[::1/stream", "rtsp:/admin:S3cr[et-Part]9@h/stream", "${CAM_PASSWORD}"):
        ended = dasnet(command, site(folder, uri))
        assert ended.returncode == 2 and "Traceback" not in ended.stderr
        assert "S3cr" not in ended.stderr and "Part" not in ended.stderr, ended.stderr


@pytest.mark.parametrize("command", ["replay", "predict"])
def test_an_address_given_for_a_file_is_not_repeated(tmp_path: Path, command: str) -> None:
    ended = dasnet(command, "rtsp://me:swordfish@192.0.2.1/s", "--out", tmp_path / "out")
    assert ended.returncode != 0 and re.search(r"error: rtsp:/\S*192\.0\.2\.1/s", ended.stderr)
    assert "swordfish" not in ended.stderr


def test_what_nobody_expected_is_told_without_secrets(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A fault of ours, or of a library, whose text has what it was about."""
    monkeypatch.setenv("CAM_PASSWORD", "S3cr[et-Part]9")
    monkeypatch.setattr(sys, "argv", ["dasnet", "check", str(site(folder, "rtsp://admin:${CAM_PASSWORD}@192.0.2.1/s"))])

    def describe(_: Path, config: Config) -> str:
        raise ValueError(f"{config.cameras[0].uri!r} does not work, nor does {['S3cr[et-Part]9']!r}")

    monkeypatch.setattr("pipeline.diagnostics.doctor.describe", describe)
    with pytest.raises(SystemExit) as ended:
        main()
    text = capfd.readouterr().err
    assert ended.value.code == 1 and "Traceback" in text and f"{HIDDEN}@192.0.2.1/s" in text
    assert "S3cr" not in text and "Part" not in text


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PASSWORDS, st.sampled_from(["console", "json"]))
def test_the_log_hides_it_however_it_is_quoted(
    folder: Path, capfd: pytest.CaptureFixture[str], password: str, form: str
) -> None:
    with forgotten(), mock.patch.dict(os.environ, {"CAM_PASSWORD": password}):
        config = load(site(folder, "http://me:${CAM_PASSWORD}@192.0.2.1/s", f"log: {{format: {form}}}"))
        configure(config)
        try:
            raise OSError(f"{config.cameras[0].uri} and {password!r}") from KeyError(password)
        except OSError:
            values = {"text": password, "inner": {"a": [password, (password,)]}, "error": OSError(password)}
            structlog.get_logger().exception(f"event {password}", **values)
        structlog.reset_defaults()
    text = capfd.readouterr().err + config.log_path.read_text()
    config.log_path.unlink()
    assert "192.0.2.1" in text and parts_of(password, text) == set(), text


def test_a_support_bundle_finds_a_password_that_yaml_quotes_or_breaks(folder: Path) -> None:
    password = 'it\'s a "long" pass\\word ' + "QZXJ ZXQJ " * 20
    path = site(folder, f"http://me:{password}@192.0.2.1/s")
    path.write_text(path.read_text() + f"# before: rtsp://me:{password}@192.0.2.1/\n")
    for name, collect in _parts(path, load(path)):
        if name.startswith("config"):
            assert parts_of(password, collect()) == set()
            assert yaml.safe_load(collect())["cameras"][0]["uri"] == "http://192.0.2.1/s"


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("rtsp://u:p@h:1/s", "rtsp://h:1/s"),
        ("rtsp://u:S3cr[et-Part]9@h/s", "rtsp://h/s"),
        ("rtsp://[::1]:554/s", "rtsp://[::1]:554/s"),
        ("rtsp://h/s", "rtsp://h/s"),
        ("rtsp://h/Streaming/Channels/101?a=b", "rtsp://h/Streaming/Channels/101?***"),
        ("rtsp://h:7447/kF7xE0hYcBYzGUrs", "rtsp://h:7447/***"),
        ("rtsp://h/user=admin_password=tlJwpbo6_channel=1.sdp", "rtsp://h/user=admin_password=***"),
        ("rtsp://u:${file:a/b}@${HOST}:554/x", "rtsp://${HOST}:554/x"),
        ("${CAMERA}", "${CAMERA}"),
        ("rtsp://192.0.2.1/live@x", "rtsp://192.0.2.1/***"),
        ("rtsp:/u:p@h/s", "rtsp:***"),
        ("rtsp://u:p/q@h/s", "rtsp:***"),
        ("swordfish", "***"),
        ("demo:scene?seed=3&fps=2", "demo:scene?seed=3&fps=2"),
        ("v4l2:/dev/video0?size=640x512", "v4l2:/dev/video0?size=640x512"),
        ("v4l2:/dev/video0?size=1&password=p", "v4l2:/dev/video0?***"),
        ("file:/clips/cam@2.mp4", "file:/clips/cam@2.mp4"),
        ("file://u:p@h/x", "file:***"),
    ],
)
def test_what_is_shown_of_an_address(uri: str, public: str) -> None:
    assert public_uri(uri) == public


def test_the_secrets_of_an_address() -> None:
    assert secrets_of("rtsp://u:p@ss@h/s?channel=1&Password=x%20y") == {"p@ss", "x y", "x%20y"}
    assert "tlJwpbo6" in secrets_of("rtsp://h/user=admin_password=tlJwpbo6_channel=1.sdp")
    assert "pa&ss" in secrets_of("v4l2:/dev/video0?password=pa&ss") and "pw#1" in secrets_of("rtsp:/u:pw#1@h")
    assert secrets_of("rtsp://h/s") == secrets_of("demo:scene") == secrets_of("file:/clips/a.mp4") == set()


def test_unknown_credentials_are_hidden_in_a_text() -> None:
    redact = Redactor(())
    assert redact("https://me:pw@host/x then rtsp:/a:b/c@h") == f"https://{HIDDEN}@host/x then rtsp:/{HIDDEN}@h"
    assert (
        redact('{"a":"http://x/","b":"me@x"} file:/a/b.mp4 5 @ 3') == '{"a":"http://x/","b":"me@x"} file:/a/b.mp4 5 @ 3'
    )


def test_a_camera_without_a_configuration_names_no_secret() -> None:
    for uri in ("rtsp://me:p]w[QZXJ@h:999999/", "swordfish"):
        with pytest.raises(ValueError, match="must") as caught:
            Camera.model_validate({"id": "a", "uri": uri})
        assert uri not in str(caught.value) and "QZXJ" not in str(caught.value)
