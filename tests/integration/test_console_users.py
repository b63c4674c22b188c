"""Users of the console: what each role may do, which cameras each sees, and what is written down of what they do."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs
from support.events import event, gone, raised, track
from support.program import dasnet_in_process
from support.served_console import ATTACKER, OPERATOR, client, login, serving

from pipeline.config.models import Config
from pipeline.config.users import User, UserRole, read_users
from pipeline.console.app import ENDPOINTS
from pipeline.console.attempts import USER_BURST
from pipeline.console.users_file import add_user, remove_user
from pipeline.evidence.leaves import Program
from pipeline.evidence.sidecars import Sidecar
from pipeline.store.actions import ActionKind, Actor, record
from pipeline.store.history_reader import ActionFilter, HistoryReader
from pipeline.store.store import Store
from pipeline.types import EventKind

PASSWORD = "correct horse battery"
HASH = PasswordHasher(1, 8, parallelism=1).hash(PASSWORD)  # a real one takes long, on purpose
PROXY = "127.0.1.1"
USERS = (
    User("vera", UserRole.VIEWER, None, HASH),
    User("otto", UserRole.OPERATOR, None, HASH),
    User("ada", UserRole.ADMIN, None, HASH),
    User("nora", UserRole.OPERATOR, frozenset({"north"}), HASH),
)


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    for user in USERS:
        add_user(tmp_path / "users.yaml", user)
    return tmp_path / "users.yaml"


def site(tmp_path: Path, **console: Any) -> Config:
    (tmp_path / "run" / "snapshots").mkdir(parents=True, exist_ok=True)
    cameras = [{"id": name, "uri": "demo:scene"} for name in ("north", "south")]
    settings = {"host": "0.0.0.0", "users_file": tmp_path / "users.yaml", **console}
    return Config.model_validate({"cameras": cameras, "run_dir": tmp_path / "run", "console": settings})


@pytest.fixture
def config(tmp_path: Path, users_file: Path) -> Config:
    return site(tmp_path)


def fill(store: Store, camera: str, number: int) -> str:
    """An alert that has ended, with a snapshot; returns its id."""
    subject = track(number, camera=camera, ulid=f"01K{camera}")
    events = raised(subject, camera=camera)
    alert = events[0].id
    events = [msgspec.structs.replace(each, snapshot=f"{alert}.jpg") for each in events]
    store.append([*events, *gone(subject, alert, camera=camera)])
    store.append([event(EventKind.CAMERA_DOWN, camera=camera)])
    return alert


@pytest.fixture
def stored(config: Config) -> Iterator[tuple[Store, str, str]]:
    """The store, and an alert of each camera."""
    with Store(config.store_path) as store:
        alerts = fill(store, "north", 1), fill(store, "south", 2)
        for alert in alerts:
            (config.snapshots_path / f"{alert}.jpg").write_bytes(b"\xff\xd8")
        config.evidence_path.mkdir(exist_ok=True)
        known: dict[str, Any] = {"configuration": "", "events": [], "tracks": [], "files": {}}
        sidecar = Sidecar(alert=alerts[1], camera="south", program=Program("1", "", ""), **known)
        (config.evidence_path / f"{alerts[1]}.json").write_bytes(msgspec.json.encode(sidecar))
        yield store, *alerts


class Visitor:
    """A logged-in user's browser."""

    def __init__(self, url: str, user: str) -> None:
        self._api = f"{url}/api/v1"
        answer = login(url, PASSWORD, user=user)
        assert answer.status_code == 204, answer.text
        self.headers = {"cookie": answer.headers["set-cookie"].partition(";")[0]}

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self._api + path, headers=self.headers)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return httpx.post(self._api + path, headers=self.headers, **arguments)


def actions(config: Config) -> list[tuple[str, str, str | None]]:
    with HistoryReader(config.store_path) as reader:
        return [(each.user, each.kind, each.alert) for each in reader.search_actions(ActionFilter(), 1000)][::-1]


def test_each_role_may_do_what_it_is_for(config: Config, stored: tuple[Store, str, str]) -> None:
    _, north, _ = stored
    paths = {
        f"/alerts/{north}/acknowledge": UserRole.OPERATOR,
        f"/alerts/{north}/reopen": UserRole.OPERATOR,
        f"/alerts/{north}/pin": UserRole.OPERATOR,
        f"/alerts/{north}/unpin": UserRole.OPERATOR,
        "/alerts/acknowledge-ended": UserRole.OPERATOR,
        "/disarm": UserRole.OPERATOR,
        "/arm": UserRole.OPERATOR,
    }
    with serving(config) as url:
        for user in USERS[:3]:
            visitor = Visitor(url, user.name)
            for path, needed in paths.items():
                answer = visitor.post(path)
                assert answer.status_code == (200 if user.role.may(needed) else 403), (user, path, answer.text)
            assert visitor.get("/audit").status_code == (200 if user.role is UserRole.ADMIN else 403)
            assert visitor.get("/alerts").status_code == 200
            told = visitor.get("/session").json()
            assert told == {"user": user.name, "role": user.role, "cameras": None}
        refused = Visitor(url, "vera").post("/arm").json()
        assert refused == {"error": "needs the role operator; vera is viewer"}
        page = httpx.get(f"{url}/audit", headers=Visitor(url, "otto").headers)
        assert page.status_code == 403
    changing = [each for each in ENDPOINTS if each.method == "POST" and each.least_role is UserRole.VIEWER]
    own = {"/logout", "/push/subscribe", "/push/unsubscribe"}
    assert {each.path for each in changing} == own, "whoever looks changes nothing but what is their own"


LISTS = {
    "/events?limit=1000": "events",
    "/tracks": "tracks",
    "/timeline": "cameras",
    "/alerts": "alerts",
    "/alerts.json": "alerts",
}


def test_a_user_of_one_camera_sees_and_changes_nothing_of_another(
    config: Config, stored: tuple[Store, str, str]
) -> None:
    _, north, south = stored
    with serving(config) as url:
        nora, otto = Visitor(url, "nora"), Visitor(url, "otto")
        for visitor, cameras in ((otto, {"north", "south"}), (nora, {"north"})):
            assert {each["id"] for each in visitor.get("/cameras").json()["cameras"]} == cameras
            assert {each["id"] for each in visitor.get("/status").json()["config"]["cameras"]} == cameras
            for path, key in LISTS.items():
                assert {each["camera"] for each in visitor.get(path).json()[key]} == cameras, path
            assert ("south" in visitor.get("/alerts.csv").text) == ("south" in cameras)
            for alert, camera in ((north, "north"), (south, "south")):
                expected = 200 if camera in cameras else 404
                assert visitor.get(f"/alerts/{alert}").status_code == expected
                assert visitor.get(f"/snapshots/{alert}.jpg").status_code == expected
                assert bool(visitor.get(f"/alerts?camera={camera}").json()["alerts"]) == (camera in cameras)
                assert bool(visitor.get(f"/events?alert={alert}").json()["events"]) == (camera in cameras)
        assert nora.get(f"/alerts?after={south}").status_code == 400
        assert "south" in otto.get(f"/alerts/{south}/path").text
        assert "south" not in nora.get(f"/alerts/{south}/path").text
        for action in ("acknowledge", "reopen", "pin", "unpin"):
            assert nora.post(f"/alerts/{south}/{action}").status_code == 404
        assert nora.post(f"/alerts/{south}/verdict", json={"verdict": "bird"}).status_code == 404
        assert nora.post("/arm").status_code == nora.post("/disarm").status_code == 403, "of the whole site"
        assert nora.post("/alerts/acknowledge-ended").json() == {"alerts": 1}
        assert otto.get(f"/alerts/{south}").json()["acknowledged_utc_ns"] is None
        assert otto.get(f"/alerts/{north}").json()["acknowledged_utc_ns"] is not None


def test_the_live_stream_has_only_the_user_s_cameras(config: Config, stored: tuple[Store, str, str]) -> None:
    with serving(config) as url:
        heard: dict[str, str] = {}
        for name in ("nora", "otto"):
            with httpx.stream("GET", f"{url}/api/v1/live", headers=Visitor(url, name).headers, timeout=10) as stream:
                text, topics = "", {"event: site", "event: alerts", "event: events", "event: tracks"}
                for line in stream.iter_lines():
                    text += f"{line}\n"
                    topics.discard(line)
                    if not topics and not line:
                        break
            heard[name] = text
        assert "south" in heard["otto"] and "north" in heard["nora"]
        assert "south" not in heard["nora"]


def test_a_target_that_two_cameras_saw_is_shown_to_the_users_of_either(
    config: Config, stored: tuple[Store, str, str]
) -> None:
    store, _, south = stored
    second = track(3, camera="north", ulid="01Ksecond")
    store.append([event(EventKind.ALERT_ESCALATED, second, alert=south, camera="north")])
    with serving(config) as url:
        nora = Visitor(url, "nora")
        shown = nora.get(f"/alerts/{south}").json()
        assert {each["camera"] for each in shown["tracks"]} == {"north"}
        assert shown["snapshot"] is None
        assert nora.get(f"/snapshots/{south}.jpg").status_code == 404
        assert south in {each["id"] for each in nora.get("/alerts").json()["alerts"]}
        assert nora.post(f"/alerts/{south}/acknowledge").status_code == 200


def test_every_action_is_in_the_audit_log_with_user_and_address(config: Config, stored: tuple[Store, str, str]) -> None:
    _, north, south = stored
    with serving(config) as url:
        otto, ada = Visitor(url, "otto"), Visitor(url, "ada")
        assert login(url, "wrong password", ATTACKER, user="otto").status_code == 401
        assert login(url, PASSWORD, user=PASSWORD).status_code == 401
        otto.post(f"/alerts/{north}/acknowledge")
        otto.post(f"/alerts/{north}/verdict", json={"verdict": "bird", "note": "a <b>gull</b>"})
        for action in ("reopen", "pin", "unpin"):
            otto.post(f"/alerts/{north}/{action}")
        otto.post("/alerts/acknowledge-ended")
        otto.post("/disarm")
        otto.post("/arm")
        otto.post("/trials?name=x.txt")
        otto.post("/logout")
        did = actions(config)
        assert did == [
            *(("otto", "log_in", None), ("ada", "log_in", None), ("otto", "log_in_failed", None)),
            ("", "log_in_failed", None),  # a password in the wrong field stays secret
            *(("otto", kind, north) for kind in ("acknowledge", "review", "reopen", "pin", "unpin")),
            *(("otto", "acknowledge", alert) for alert in (north, south)),
            *(("otto", kind, None) for kind in ("disarm", "arm", "trial", "log_out")),
        ]
        assert {kind for _, kind, _ in did} == set(ActionKind) - {ActionKind.CONFIGURE}
        listed = ada.get("/audit").json()["actions"]
        assert [each["kind"] for each in listed] == [kind for _, kind, _ in did][::-1]
        assert {each["address"] for each in listed if each["kind"] != "log_in_failed"} == {OPERATOR}
        page = ada.get("/audit?user=otto&limit=3").json()["actions"]
        assert [each["kind"] for each in page] == ["log_out", "trial", "arm"]
        rest = ada.get(f"/audit?user=otto&after={page[-1]['id']}").json()["actions"]
        assert len(rest) == sum(user == "otto" for user, _, _ in did) - 3
        assert {each["kind"] for each in ada.get(f"/audit?alert={south}").json()["actions"]} == {"acknowledge"}
        by = {each.get("by") for each in ada.get(f"/events?alert={north}").json()["events"] if each["kind"] in REVIEWS}
        assert by == {"otto"}
    told = dasnet_in_process("audit", write_site(config), "--alert", north).stdout.splitlines()
    assert len(told) == 6 and f"otto from {OPERATOR}  review  {north}  bird: a <b>gull</b>" in told[1]


def test_an_admin_of_one_camera_sees_no_actions_on_another(
    config: Config, users_file: Path, stored: tuple[Store, str, str]
) -> None:
    _, north, south = stored
    add_user(users_file, User("lars", UserRole.ADMIN, frozenset({"north"}), HASH))
    with serving(config) as url:
        ada, lars = Visitor(url, "ada"), Visitor(url, "lars")
        for alert in (north, south):
            ada.post(f"/alerts/{alert}/acknowledge")
        record(config.store_path, Actor("ada"), ActionKind.CONFIGURE, 1, camera="south", detail="zones of south")
        shown = lars.get("/audit").json()["actions"]
        assert [(each["kind"], each.get("alert")) for each in shown] == [
            ("acknowledge", north), ("log_in", None), ("log_in", None),
        ]  # fmt: skip
        assert len(lars.get("/audit?limit=2").json()["actions"]) == 2
        assert len(ada.get("/audit").json()["actions"]) == len(shown) + 2


REVIEWS = ("alert.acknowledged", "alert.reviewed", "alert.reopened")


def write_site(config: Config) -> Path:
    path = config.run_dir / "site.yaml"
    path.write_text(f"cameras: [{{id: north, uri: 'demo:scene'}}]\nrun_dir: {config.run_dir}\n")
    return path


def test_a_user_who_changes_or_goes_has_no_session_at_once_and_a_faulty_file_changes_nothing(
    config: Config, users_file: Path, stored: tuple[Store, str, str]
) -> None:
    with serving(config) as url, capture_logs() as logs:
        otto, vera = Visitor(url, "otto"), Visitor(url, "vera")
        with httpx.stream("GET", f"{url}/api/v1/live", headers=otto.headers, timeout=10) as stream:
            lines = stream.iter_lines()
            next(lines)
            remove_user(users_file, "otto")
            for _ in lines:  # it ends
                pass
        assert otto.get("/alerts").status_code == 401 and vera.get("/alerts").status_code == 200
        good = users_file.read_text()
        for bad in ("users: {vera: {role: boss}}", "", "\xff"):
            users_file.write_text(bad, encoding="latin-1")
            assert vera.get("/alerts").status_code == 200
        users_file.unlink()
        assert vera.get("/alerts").status_code == 200
        said = [entry["reason"] for entry in logs if entry["event"] == "users not reloaded; they stay as they were"]
        assert len(said) == 4 and "users.vera.role: must be 'viewer', 'operator' or 'admin' (given: 'boss')" in said[0]
        users_file.write_text(good.replace("role: viewer", "role: operator"))
        assert vera.get("/alerts").status_code == 401, "another role needs another log-in"
        assert Visitor(url, "vera").post("/arm").status_code == 200
        users_file.write_text("users:\n")
        assert login(url, PASSWORD, user="vera").status_code == 401


def test_guesses_from_many_addresses_slow_down_only_strangers_to_the_user(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.console.accounts.USER_BURST", 12)
    with serving(config) as url:
        Visitor(url, "otto")
        for address in range(3, 6):
            for number in range(4):
                assert login(url, f"wrong {number}", f"127.0.0.{address}", user="otto").status_code == 401
        stranger = login(url, PASSWORD, "127.0.0.9", user="otto")
        assert stranger.status_code == 429 and int(stranger.headers["retry-after"]) > 0
        assert login(url, PASSWORD, "127.0.0.9", user="vera").status_code == 204
        Visitor(url, "otto")
    assert USER_BURST > 12


def test_a_trusted_proxy_names_the_user_and_nobody_else_does(
    tmp_path: Path, users_file: Path, config: Config, stored: tuple[Store, str, str]
) -> None:
    add_user(users_file, User("paula", UserRole.OPERATOR, frozenset({"south"})))
    roles = {"guards": "operator", "it": "admin"}
    headers = {"proxy_user_header": "X-Forwarded-User", "proxy_groups_header": "X-Forwarded-Groups"}

    def asked(url: str, source: str, user: str | None, groups: str = "", path: str = "/session") -> httpx.Response:
        given = [] if user is None else [("x-forwarded-user", user)]
        with client(source) as browser:
            return browser.get(
                f"{url}/api/v1{path}",
                headers=[*given, ("x-forwarded-groups", groups), ("x-forwarded-for", "192.0.2.7")],
            )

    with serving(site(tmp_path, trusted_proxies=[PROXY], proxy_roles=roles, **headers)) as url:
        assert asked(url, PROXY, "paula").json() == {"user": "paula", "role": "operator", "cameras": ["south"]}
        assert asked(url, PROXY, "eve@example.org", "staff, guards,it").json()["role"] == "admin"
        for user in ("eve", "", "a b", "<img>", "x" * 65):
            refused = asked(url, PROXY, user, "staff")
            assert refused.status_code == 403, user
        assert asked(url, PROXY, None).status_code == 401
        assert asked(url, ATTACKER, "ada").status_code == 401, "not a proxy"
        with client(PROXY) as browser:
            twice = browser.get(
                f"{url}/api/v1/session", headers=[("x-forwarded-user", "paula"), ("x-forwarded-user", "ada")]
            )
            assert twice.status_code == 403
            done = browser.post(
                f"{url}/api/v1/alerts/{stored[2]}/acknowledge",
                headers={"x-forwarded-user": "paula", "x-forwarded-for": "192.0.2.7"},
            )
            assert done.status_code == 200
            assert "Log out" not in browser.get(url, headers={"x-forwarded-user": "paula"}).text, "at the proxy"
        with HistoryReader(config.store_path) as reader:
            newest = reader.search_actions(ActionFilter(), 1)[0]
        assert (newest.user, newest.address, newest.kind) == ("paula", "192.0.2.7", "acknowledge")
        assert login(url, "anything", user="paula").status_code == 401, "has no password"
        otto = Visitor(url, "otto")
        assert otto.get("/session").json()["user"] == "otto", "the log-in works beside it"
        assert "Log out" in httpx.get(url, headers=otto.headers).text
    with serving(
        site(tmp_path, users_file=None, trusted_proxies=[PROXY], proxy_roles={"*": "viewer"}, **headers)
    ) as url:
        assert asked(url, PROXY, "anyone").json()["role"] == "viewer"
        assert asked(url, ATTACKER, "anyone").status_code == 401


def test_a_session_lasts_as_long_as_it_is_set_to(
    tmp_path: Path, users_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(site(tmp_path, session_hours=0.5)) as url:
        answer = login(url, PASSWORD, user="vera")
        assert "Max-Age=1800" in answer.headers["set-cookie"]
        cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
        assert httpx.get(f"{url}/api/v1/session", headers=cookie).status_code == 200
        now_s = time.time
        monkeypatch.setattr("pipeline.console.sessions.time.time", lambda: now_s() + 1801)
        assert httpx.get(f"{url}/api/v1/session", headers=cookie).status_code == 401


def test_an_action_that_cannot_be_stored_is_done_and_said(config: Config) -> None:
    with capture_logs() as logs, serving(config) as url:
        assert Visitor(url, "otto").post("/disarm").status_code == 200  # there is no store yet
        assert [entry["action"] for entry in logs if entry["event"] == "action not in the audit log"] == [
            "log_in",
            "disarm",
        ]
    assert (config.run_dir / "disarmed").exists()


def read_stream(url: str, headers: dict[str, str], count: int) -> list[str]:
    """The ids of the next events of a stream, which is cut off after them."""
    ids: list[str] = []
    with httpx.stream("GET", f"{url}/api/v1/events/stream", headers=headers, timeout=10) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line == "event: reset":
                ids.append("reset")
            if line.startswith("id: "):
                ids.append(line.removeprefix("id: "))
            if not line and len(ids) >= count:
                return ids
    return ids


def test_a_stream_that_is_cut_off_goes_on_after_the_last_event(config: Config, stored: tuple[Store, str, str]) -> None:
    store, _, _ = stored
    with serving(config) as url:
        otto, nora = Visitor(url, "otto"), Visitor(url, "nora")
        known = [each["id"] for each in otto.get("/events?limit=1000").json()["events"]]
        all_ids = read_stream(url, otto.headers | {"last-event-id": known[0]}, 3)
        assert all_ids == known[1:4]
        for number in range(10, 510):  # more than a page while nobody listens
            store.append([event(EventKind.CAMERA_UP, camera=("north", "south")[number % 2])])
        known = [each["id"] for each in otto.get("/events?limit=1000").json()["events"]]
        got = list(all_ids)
        while len(got) < len(known) - 1:
            got += read_stream(url, otto.headers | {"last-event-id": got[-1]}, min(170, len(known) - 1 - len(got)))
        assert got == known[1:], "nothing is lost or doubled"
        own = [each["id"] for each in nora.get("/events?limit=1000").json()["events"]]
        assert read_stream(url, nora.headers | {"last-event-id": own[0]}, len(own) - 1) == own[1:]
        assert read_stream(url, otto.headers | {"last-event-id": "nonsense"}, 2) == ["reset", *known][:2]
        with httpx.stream("GET", f"{url}/api/v1/events/stream", headers=otto.headers, timeout=10) as stream:
            lines = stream.iter_lines()
            next(lines)
            store.append([newest := event(EventKind.CAMERA_UP)])
            assert next(line for line in lines if line.startswith("id: ")) == f"id: {newest.id}"


def test_the_command_writes_the_file_and_asks_for_the_password_outside_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "users.yaml"
    monkeypatch.setattr("pipeline.console.password.ask", lambda prompt: PASSWORD)
    assert dasnet_in_process("users", "add", path, "anna", "--role", "operator", "--camera", "north").returncode == 0
    assert dasnet_in_process("users", "add", path, "ben", "--role", "viewer", "--no-password").returncode == 0
    assert path.stat().st_mode & 0o077 == 0 and PASSWORD not in path.read_text()
    before = read_users(path)["anna"]
    assert (before.role, before.cameras) == (UserRole.OPERATOR, {"north"})
    listed = dasnet_in_process("users", "list", path).stdout
    assert "anna  operator  north    yes" in listed and "argon2" not in listed
    assert dasnet_in_process("users", "passwd", path, "anna").returncode == 0
    assert read_users(path)["anna"] == replace(before, password_hash=read_users(path)["anna"].password_hash) != before
    for arguments, said in (
        (("add", path, "anna", "--role", "viewer"), "has a user 'anna' already"),
        (("add", path, "a b", "--role", "viewer"), "user 'a b'; must be 1 to 64 letters"),
        (("remove", path, "eve"), "no user 'eve'; must be one of anna, ben"),
        (("list", tmp_path / "none"), "cannot be read"),
    ):
        done = dasnet_in_process("users", *arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    assert dasnet_in_process("users", "remove", path, "anna").returncode == 0
    assert list(read_users(path)) == ["ben"]
