"""A users file with any fault is refused, by line and key; and the settings that go with it."""

from pathlib import Path

import pytest
from argon2 import PasswordHasher
from argon2.low_level import Type
from support.program import dasnet_in_process

from pipeline.config.file import load
from pipeline.config.users import User, UserRole, read_users
from pipeline.errors import ConfigError

HASH = PasswordHasher(1, 8, parallelism=1).hash("correct horse")
COSTLY = "$argon2id$v=19$m=4194304,t=3,p=4$tNEnR2m4v+p1QIr8dLRfjw$XTzMtWIuK02+MFLv04MCC0dzcRnzjIpv8xWrfRGRsGw"
OTHER_KIND = PasswordHasher(1, 8, parallelism=1, type=Type.I).hash("correct horse")
ROLES = "must be 'viewer', 'operator' or 'admin'"

IS_NO_HASH = "users.anna.password_hash: must be an argon2id hash"
FAULTS = {
    "": "must be a mapping with the key 'users'",
    "[a]": "must be a mapping with the key 'users'",
    "people: {}": "people: unknown key; must be one of users",
    "users: [anna]": "users: must be a valid dictionary",
    "users:\n  anna:\n    role: boss\n": f":3: users.anna.role: {ROLES} (given: 'boss')",
    "users:\n  anna: {}\n": ":2: users.anna.role: is required",
    "users:\n  anna:\n": ":2: users.anna: must be a valid dictionary",
    "users:\n  anna: operator\n": ":2: users.anna: must be a valid dictionary",
    "users:\n  anna: {role: admin, pasword_hash: x}\n": ":2: users.anna.pasword_hash: unknown key; must be one of",
    "users:\n  anna: {role: admin}\n  anna: {role: viewer}\n": ":3: users.anna: duplicate key in lines 2 and 3",
    "users:\n  a b: {role: admin}\n": ":2: users.a b: must match pattern",
    "users:\n  1: {role: admin}\n": "users[1]: must be a valid string",
    f"users:\n  anna:\n    role: admin\n    password_hash: '{COSTLY}'\n": IS_NO_HASH,
    f"users:\n  anna: {{role: admin, password_hash: '{OTHER_KIND}'}}\n": IS_NO_HASH,
    "users:\n  anna: {role: admin, password_hash: hunter2}\n": f":2: {IS_NO_HASH}",
    "users:\n  anna: {role: admin, cameras: []}\n": ":2: users.anna.cameras: ",
    "users:\n  anna: {role: admin, cameras: [north, north]}\n": ":2: users.anna.cameras: 'north' stands twice",
    "users:\n  anna: {role: admin, cameras: north}\n": ":2: users.anna.cameras: must be a valid list",
    "users:\n  anna:\n    role: admin\n    cameras:\n    - nroth\n": ":5: users.anna.cameras[0]: no camera 'nroth'",
    "users: {anna: {role: admin": "invalid YAML",
}


@pytest.mark.parametrize("text", FAULTS, ids=lambda text: repr(text)[:50])
def test_a_fault_is_named_by_line_and_key_and_no_secret_with_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "users.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_users(path, ["north", "south"])
    assert str(path) in str(caught.value) and FAULTS[text] in str(caught.value)
    assert "hunter2" not in str(caught.value) and "argon2id$" not in str(caught.value)


def test_what_an_entry_says(tmp_path: Path) -> None:
    path = tmp_path / "users.yaml"
    entry = f"{{role: operator, cameras: [north], password_hash: '{HASH}'}}"
    path.write_text(f"users:\n  o.o@x-1: {entry}\n  ada: {{role: admin}}\n")
    users = read_users(path, ["north"])
    assert users["o.o@x-1"] == User("o.o@x-1", UserRole.OPERATOR, frozenset({"north"}), HASH)
    assert users["ada"] == User("ada", UserRole.ADMIN)
    path.write_text("users:\n")
    assert read_users(path) == {}


SITE = "cameras: [{id: north, uri: 'demo:scene'}]\nrun_dir: %s\nconsole: {port: 0, %s}\n"


@pytest.mark.parametrize(
    ("console", "said"),
    [
        ("host: 0.0.0.0", "console.password_file: is required"),
        (
            "users_file: users.yaml, password_file: x",
            "console.password_file: must not be set beside console.users_file",
        ),
        ("proxy_user_header: X-User", "console.proxy_user_header: is believed only from console.trusted_proxies"),
        ("trusted_proxies: [127.0.0.1], proxy_user_header: 'X User'", "console.proxy_user_header: must match pattern"),
        ("proxy_roles: {a: admin}", "console.proxy_roles: has no effect without console.proxy_user_header"),
        (
            "trusted_proxies: [127.0.0.1], proxy_user_header: X-User, proxy_roles: {a: boss}",
            f"console.proxy_roles.a: {ROLES}",
        ),
        ("session_hours: 0", "console.session_hours: must be greater than 0 (given: '0')"),
    ],
)
def test_settings_that_do_not_go_together_are_named(tmp_path: Path, console: str, said: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SITE % (tmp_path / "run", console))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert said in str(caught.value)


def test_a_faulty_file_is_refused_before_the_start(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SITE % (tmp_path / "run", "host: 0.0.0.0, users_file: users.yaml"))
    for text in ("users:\n  anna: {role: boss}\n", None):
        (tmp_path / "users.yaml").write_text(text) if text else (tmp_path / "users.yaml").unlink()
        for command in (["check", path], ["worker", "console", path]):
            done = dasnet_in_process(*command)
            assert done.returncode == 2 and f"{tmp_path / 'users.yaml'}" in done.stderr, done.stderr
            assert f"users.yaml:2: users.anna.role: {ROLES}" in done.stderr if text else "cannot be read" in done.stderr
