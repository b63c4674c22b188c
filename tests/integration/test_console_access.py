"""Who gets into the console, and who cannot keep others out: the real server, real sockets, real TLS."""

import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs
from support.console_site import until
from support.program import dasnet, dasnet_in_process
from support.served_console import ATTACKER, OPERATOR, WAIT_S, client, login, serving

from pipeline.config.console import Tls
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.config.users import User, UserRole
from pipeline.console import api, body, certificate, parameters
from pipeline.console.attempts import BURST, REFILL_S, Attempts
from pipeline.console.sessions import Sessions
from pipeline.errors import ConfigError
from pipeline.store.store import Store
from pipeline.transport import listener as listening

PASSWORD = "correct horse battery"
HOUR_S = 3600.0
PATIENT_S = 3.0  # idle connections that others compete with: a handshake may take over WAIT_S on a busy machine


@pytest.fixture(scope="module")
def password_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("password") / "console.password"
    path.write_text(PasswordHasher(1, 8, parallelism=1).hash(PASSWORD))  # a real one takes long, on purpose
    return path


@pytest.fixture
def site(tmp_path: Path, password_file: Path) -> Callable[..., Config]:
    (tmp_path / "run").mkdir()

    def make(**console: Any) -> Config:
        settings = {"host": "0.0.0.0", "password_file": password_file, **console}
        camera = {"id": "north", "uri": "demo:scene"}
        return Config.model_validate({"cameras": [camera], "run_dir": tmp_path / "run", "console": settings})

    return make


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def connect(url: str, source: str = OPERATOR) -> socket.socket:
    return socket.create_connection((OPERATOR, port_of(url)), 5, source_address=(source, 0))


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return not connection.recv(1000)
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("source", [OPERATOR, ATTACKER])
@pytest.mark.parametrize("sent", [b"", b"POST /api/v1/login HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_silent_connections_keep_nobody_out_and_are_closed(site: Callable[..., Config], sent: bytes, source: str):
    with serving(site(), PATIENT_S) as url, ExitStack() as open_ones:
        held = [open_ones.enter_context(connect(url, source)) for _ in range(300)]
        for connection in held:
            with suppress(OSError):  # some have been closed already
                connection.sendall(sent)
        for _ in range(3):
            assert httpx.get(f"{url}/login", timeout=PATIENT_S / 2).status_code == 200
        assert login(url, PASSWORD).status_code == 204
        open_now = sum(not is_closed(connection) for connection in held)
        assert open_now <= listening.MAX_IDLE
        until(lambda: all(is_closed(connection) for connection in held), 3 * PATIENT_S)


def test_a_request_that_trickles_in_is_given_up_and_one_that_is_answered_may_take_long(site: Callable[..., Config]):
    with serving(site()) as url:
        token = login(url, PASSWORD).headers["set-cookie"].partition(";")[0]
        with httpx.stream("GET", f"{url}/api/v1/live", headers={"cookie": token}) as stream, ExitStack() as open_ones:
            lines = stream.iter_lines()
            next(lines)
            started_s = time.monotonic()
            slow = open_ones.enter_context(connect(url))
            slow.sendall(b"GET /login HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            while not is_closed(slow):
                with suppress(OSError):
                    slow.sendall(b"x")
                time.sleep(0.05)
            assert WAIT_S <= time.monotonic() - started_s < 3 * WAIT_S
            assert any(line.startswith("event: site") for line in lines), "a stream is a request under way"


def test_one_address_cannot_have_all_requests_under_way(site: Callable[..., Config], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listening, "MAX_REQUESTS_PER_ADDRESS", 2)
    with serving(site()) as url, ExitStack() as open_ones:
        for _ in range(2):
            stalled = open_ones.enter_context(connect(url, ATTACKER))
            stalled.sendall(b"POST /api/v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        with client(ATTACKER) as attacker:
            until(lambda: attacker.get(f"{url}/login").status_code == 503)
        assert login(url, PASSWORD).status_code == 204


def test_a_body_that_stalls_or_trickles_is_given_up(site: Callable[..., Config], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(body, "IDLE_TIMEOUT_S", 0.4)
    monkeypatch.setattr(parameters, "BODY_TIMEOUT_S", 1.0)
    monkeypatch.setattr(api, "UPLOAD_TIMEOUT_S", 1.0)
    with serving(site()) as url:
        token = login(url, PASSWORD).headers["set-cookie"].partition(";")[0]
        for path in ("/api/v1/login", "/api/v1/trials?name=x.png", "/api/v1/alerts/x/dismiss"):
            for gap_s, at_least_s in ((None, 0.4), (0.1, 1.0)):
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: {token}\r\nContent-Length: 4000\r\n\r\n{{"
                with connect(url) as sender:
                    started_s = time.monotonic()
                    sender.sendall(head.encode())
                    sender.settimeout(gap_s or 5)
                    answer = b""
                    while not answer:
                        with suppress(TimeoutError):
                            answer = sender.recv(1000)
                            break
                        sender.sendall(b" ")
                    assert b" 408 " in answer, (path, answer)
                    assert at_least_s <= time.monotonic() - started_s < at_least_s + 2
        assert httpx.post(f"{url}/api/v1/trials?name=x.txt", headers={"cookie": token}).status_code == 400, "not busy"


def test_wrong_passwords_from_other_addresses_keep_nobody_out(site: Callable[..., Config]):
    with serving(site()) as url:
        codes = [login(url, f"wrong {number}", ATTACKER).status_code for number in range(7)]
        assert codes == [401] * 5 + [429] * 2
        refused = login(url, PASSWORD, ATTACKER)
        assert refused.status_code == 429 and 0 < int(refused.headers["retry-after"]) <= REFILL_S
        for number in range(10, 45):
            assert login(url, "wrong as well", f"127.0.0.{number}").status_code == 401
        assert login(url, PASSWORD).status_code == 204


def test_behind_a_trusted_proxy_every_client_has_its_own_limit_and_an_untrusted_header_is_not_believed(
    site: Callable[..., Config],
):
    def through(url: str, password: str, forwarded: str, proxy: str = "127.0.1.1") -> httpx.Response:
        return login(url, password, proxy, **{"x-forwarded-for": forwarded, "x-forwarded-proto": "https"})

    with serving(site(trusted_proxies=["127.0.1.0/24", "10.0.0.1"])) as url:
        for _ in range(5):  # what the client itself wrote stands on the left
            assert through(url, "wrong password", "192.0.2.7, 192.0.2.66, 10.0.0.1").status_code == 401
        assert through(url, PASSWORD, "192.0.2.66:4711").status_code == 429
        right = through(url, PASSWORD, "192.0.2.7")
        assert right.status_code == 204 and "Secure" in right.headers["set-cookie"]
        for forwarded in ("", "nonsense", "[2001:db8::1]:80", "1.2.3.4:" + "9" * 5000):
            assert through(url, PASSWORD, forwarded).status_code == 204

        with capture_logs() as logs:
            for number in range(5):
                assert through(url, "wrong password", f"192.0.2.{number}", ATTACKER).status_code == 401
            refused = through(url, PASSWORD, "192.0.2.99", ATTACKER)
            assert refused.status_code == 429
        (said,) = [entry for entry in logs if "trusted_proxies" in entry["event"]]
        assert said["proxy"] == ATTACKER
        plain = login(url, PASSWORD, **{"x-forwarded-proto": "https"})
        assert plain.status_code == 204 and "Secure" not in plain.headers["set-cookie"]


def test_wrong_passwords_are_forgotten_with_time_and_an_ipv6_client_is_its_network():
    now_s = [0.0]
    attempts = Attempts(clock=lambda: now_s[0])
    assert [attempts.take("192.0.2.1") for _ in range(BURST + 1)] == [0.0] * BURST + [REFILL_S]
    assert attempts.take("192.0.2.2") == 0
    now_s[0] = REFILL_S
    assert [attempts.take("192.0.2.1") for _ in range(2)] == [0.0, REFILL_S], "waiting costs nothing"
    now_s[0] = 10 * REFILL_S
    for _ in range(3 * BURST):  # the right one never does
        assert attempts.take("192.0.2.1") == 0
        attempts.refund("192.0.2.1")
    for number in range(BURST):
        assert attempts.take(f"2001:db8::{number}") == 0
    assert attempts.take("2001:db8::ffff") > 0 and attempts.take("2001:db8:0:1::1") == 0


def test_log_out_ends_the_session_on_the_server_and_its_streams(site: Callable[..., Config]):
    config = site()
    with serving(config) as url:
        mine, other = ({"cookie": login(url, PASSWORD).headers["set-cookie"].partition(";")[0]} for _ in "ab")
        assert mine != other
        with httpx.stream("GET", f"{url}/api/v1/live", headers=mine) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert httpx.post(f"{url}/api/v1/logout", headers=mine).status_code == 204
            for _ in lines:  # it ends
                pass
        assert httpx.get(f"{url}/api/v1/alerts", headers=mine).status_code == 401
    with serving(config) as url:
        assert httpx.get(f"{url}/", headers=mine).status_code == 303
        assert httpx.get(f"{url}/", headers=other).status_code == 200
    stored = (config.run_dir / "console.sessions").read_text()
    assert other["cookie"].partition("=")[2] not in stored
    assert (config.run_dir / "console.sessions").stat().st_mode & 0o077 == 0


def test_sessions_end_with_any_change_of_the_user_by_age_and_live_on_where_they_cannot_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "console.sessions"
    anna = User("anna", UserRole.OPERATOR, None, "hash")
    token = Sessions(path, HOUR_S).begin(anna)

    def user(now: User = anna) -> User | None:
        return Sessions(path, HOUR_S).user(token, {"anna": now})

    assert user() == anna
    others = ({"password_hash": "x"}, {"role": UserRole.ADMIN}, {"cameras": frozenset("a")})
    assert not [change for change in others if user(replace(anna, **change))]
    assert Sessions(path, HOUR_S).user(token, {}) is None
    later_s = time.time() + 1.1 * HOUR_S
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: later_s)
        assert user() is None
    path.write_bytes(b"\xff{")
    with capture_logs() as logs:
        assert user() is None
        path.unlink()
        path.mkdir()
        sessions = Sessions(path, HOUR_S)
        assert sessions.user(sessions.begin(anna), {"anna": anna}) == anna
    assert [entry["event"] for entry in logs] == [
        *("sessions cannot be read; all are closed",) * 2,
        "sessions cannot be stored",
    ]
    assert list(tmp_path.iterdir()) == [path]


LONG = "9" * 5000
ODD_REQUESTS = [
    *(
        f"GET {path} HTTP/1.1\r\nHost: localhost"
        for path in (
            f"/api/v1/cameras/north/frames/{LONG}.jpg", f"/api/v1/cameras/{LONG}/frames/1.jpg",
            "/api/v1/cameras/north/frames/%C2%B23.jpg", "/api/v1/cameras/north/frames/-1.jpg",
            f"/api/v1/trials/{LONG}/x", f"/api/v1/trials/x/{LONG}", f"/api/v1/snapshots/{LONG}.jpg", f"/static/{LONG}",
            f"/api/v1/alerts?limit={LONG}", f"/api/v1/events?after={LONG}", f"/api/v1/tracks?limit={LONG}",
            f"/api/v1/latency?window={LONG}", "/static/%00", "/api/v1/trials/%00/%00", f"/{LONG}/",
        )
    ),
    f"GET /static/style.css HTTP/1.1\r\nHost: localhost\r\nRange: bytes={LONG}-{LONG}",
    f"GET /static/style.css HTTP/1.1\r\nHost: localhost\r\nIf-Modified-Since: Mon, {LONG} Jan 2024 00:00:00 GMT",
    f"GET / HTTP/1.1\r\nHost: localhost:{LONG}",
    f"GET /static// HTTP/1.1\r\nHost: localhost:{LONG}",
    f"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LONG}",
    f"GET / HTTP/1.{LONG}\r\nHost: localhost",
    "POST /api/v1/logout HTTP/1.1\r\nHost: localhost\r\nOrigin: http://[",
    f"POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:{LONG}",
    f"POST /api/v1/alerts/{LONG}/acknowledge HTTP/1.1\r\nHost: localhost",
    f"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: dasnet_session={LONG}.{LONG}",
]  # fmt: skip


@pytest.mark.parametrize("has_password", [True, False])
def test_no_number_or_header_makes_an_answer_of_500(site: Callable[..., Config], has_password: bool):
    config = site() if has_password else site(host=OPERATOR, password_file=None)
    with Store(config.store_path), serving(config) as url:
        session = ""
        if has_password:
            session = "\r\nCookie: " + login(url, PASSWORD).headers["set-cookie"].partition(";")[0]
        for text in ODD_REQUESTS:
            with connect(url) as sender:
                own = session if "Cookie" not in text else ""
                sender.sendall(f"{text}{own}\r\nConnection: close\r\n\r\n".encode())
                status = int(sender.recv(1000).split()[1])
                assert 200 <= status < 500, (text[:100], status)
                if "/frames/" in text or "/trials/" in text:
                    assert status == 404, text[:100]
        for content in ('{"password": ' + LONG[:4000] + "}", '{"x": ' + "[" * 4000, '{"password": "\\ud800"}', "\xff"):
            answer = httpx.post(f"{url}/api/v1/login", content=content.encode("latin-1"))
            assert answer.status_code == (400 if has_password else 404), content[:20]


# TLS


def make_certificate(folder: Path, name: str = "site", days: int = 2) -> Tls:
    tls = Tls(certificate=folder / f"{name}.pem", key=folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-days", str(days), "-keyout", str(tls.key), "-out", str(tls.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return tls


def test_it_speaks_tls_with_secure_cookies_and_a_certificate_that_changes(
    site: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(certificate, "PERIOD_S", 0.1)
    tls = make_certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(tls.certificate))
    with capture_logs() as logs, serving(site(tls=tls.model_dump()), PATIENT_S) as url, ExitStack() as open_ones:
        assert url.startswith("https://")
        answer = httpx.post(f"{url}/api/v1/login", json={"password": PASSWORD}, verify=trusting)
        assert answer.status_code == 204 and "Secure" in answer.headers["set-cookie"]
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http"))

        silent = [open_ones.enter_context(connect(url)) for _ in range(300)]  # not even a handshake
        assert httpx.get(f"{url}/login", verify=trusting, timeout=2 * PATIENT_S).status_code == 200
        until(lambda: all(is_closed(connection) for connection in silent), 3 * PATIENT_S)

        tls.key.write_text("nonsense")
        until(lambda: any(entry["event"] == "certificate not reloaded" for entry in logs))
        assert httpx.get(f"{url}/login", verify=trusting).status_code == 200
        make_certificate(tmp_path)
        until(lambda: any(entry["event"] == "certificate reloaded" for entry in logs))
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/login", verify=trusting)
        anew = ssl.create_default_context(cafile=str(tls.certificate))
        assert httpx.get(f"{url}/login", verify=anew).status_code == 200
    assert not [entry for entry in logs if "refuse" in entry["event"]]


def test_a_certificate_that_browsers_refuse_is_warned_of_and_one_that_cannot_be_used_is_named(tmp_path: Path):
    good, other, late = make_certificate(tmp_path), make_certificate(tmp_path, "other"), tmp_path / "late.pem"
    assert certificate.browser_objection(certificate.load(good), good.certificate) is None
    request = ["openssl", "x509", "-x509toreq", "-in", good.certificate, "-signkey", good.key, "-out", tmp_path / "csr"]
    subprocess.run(request, check=True, capture_output=True)
    (tmp_path / "db").touch()
    (tmp_path / "serial").write_text("01")
    settings = (
        "[ca]\ndefault_ca=d\n[d]\ndatabase={0}/db\nserial={0}/serial\nnew_certs_dir={0}\npolicy=p\n[p]\nCN=supplied\n"
    )
    (tmp_path / "ca.cnf").write_text(settings.format(tmp_path))
    sign = [
        "openssl",
        "ca",
        "-batch",
        "-selfsign",
        "-config",
        tmp_path / "ca.cnf",
        "-keyfile",
        good.key,
        "-md",
        "sha256",
    ]
    sign += ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-in", tmp_path / "csr", "-out", late]
    subprocess.run(sign, check=True, capture_output=True)
    expired = Tls(certificate=late, key=good.key)
    with capture_logs() as logs:
        certificate.open_context(expired)
    assert [(entry["log_level"], entry["reason"]) for entry in logs] == [("warning", "certificate has expired")]

    (tmp_path / "text").write_text("hunter2")
    locked = tmp_path / "locked.key"
    subprocess.run(["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", good.key, "-out", locked], check=True)
    half = tmp_path / "half.pem"
    half.write_bytes(good.certificate.read_bytes()[:300])
    for files, said in (
        ((good.certificate, other.key), f"the key {other.key} does not belong to the certificate {good.certificate}"),
        ((tmp_path / "none", good.key), "console.tls.certificate: .*none cannot be read"),
        ((good.certificate, tmp_path), "console.tls.key: .* cannot be read"),
        ((tmp_path / "text", good.key), "console.tls.certificate: .*text must be a PEM file"),
        ((good.key, good.key), "must be a certificate and its key, both in PEM"),
        ((half, good.key), "must be a certificate and its key, both in PEM"),
        ((good.certificate, locked), "console.tls.key: is encrypted; must have no passphrase"),
    ):
        with pytest.raises(ConfigError, match=said):
            certificate.load(Tls(certificate=files[0], key=files[1]))


def test_the_keys_are_read_from_the_site_s_file_and_a_wrong_certificate_is_told_at_once(tmp_path: Path):
    make_certificate(tmp_path)
    make_certificate(tmp_path, "other")
    path = tmp_path / "site.yaml"
    text = "cameras: [{id: a, uri: 'demo:scene'}]\nrun_dir: %s\n" % (tmp_path / "run")
    text += "console: {port: 0, tls: {certificate: site.pem, key: %s}, trusted_proxies: [%s]}\n"
    path.write_text(text % ("site.key", "10.0.0.0/8, '::1'"))
    config = load(path)
    assert config.console.tls == Tls(certificate=tmp_path / "site.pem", key=tmp_path / "site.key")
    assert [str(network) for network in config.console.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    path.write_text(text % ("site.key", "proxy.example"))
    with pytest.raises(ConfigError, match=r"console.trusted_proxies\[0\]: .*network.*proxy.example"):
        load(path)
    path.write_text(text % ("other.key", ""))
    for command in (["check", path], ["worker", "console", path]):
        done = dasnet(*command)
        assert done.returncode == 2 and "does not belong to the certificate" in done.stderr
    path.write_text(text % ("site.key", ""))
    assert f"TLS with {tmp_path / 'site.pem'}\n" in dasnet_in_process("check", path).stdout
