"""YAML that nobody means is refused at once, naming the line; training files are read the same way."""

import time
from pathlib import Path

import pytest
from support.program import dasnet_in_process

from pipeline.config.yaml_file import MAX_BYTES, dotted, parse_yaml, read_yaml
from pipeline.errors import ConfigError
from training.config import load_config

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
LONG = f"a: &a {'x' * 50_000}\nb: [{', '.join(['*a'] * 1000)}]\n"
MERGES = "a: &m0 {k: v}\n" + "".join(f"b{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 20)}]}}\n" for n in range(1, 12))
FAULTS = {
    "a: 1\nb: 2\na: 3\n": "f.yaml:3: a: duplicate key in lines 1 and 3; must be unique",
    "cameras:\n- id: x\n  uri: 'demo:scene'\n  id: y\n": "f.yaml:4: cameras[0].id: duplicate key in lines 2 and 4",
    "a: {b: 1, 'b': 2}\n": "f.yaml:1: a.b: duplicate key in line 1;",
    "yes: 1\ntrue: 2\n": "f.yaml:2: true: duplicate key in lines 1 and 2;",
    "x: &x {a: 1}\ny: {<<: *x, <<: *x}\n": "f.yaml:2: y.<<: duplicate key in line 2;",
    "x: &x {a: 1}\ny: {<<: *x, a: 2, a: 3}\n": "f.yaml:2: y.a: duplicate key in line 2;",
    "a:\n- .inf\n": "f.yaml:2: a[0]: must be a finite number",
    "a: {b: .NaN}\n": "f.yaml:1: a.b: must be a finite number",
    "a: 1.0e+999\n": "must be a finite number",
    f"a: {'1' * 5000}\n": "f.yaml:1: a: must be a valid int,",
    f"a: 0x{'f' * 5000}\n": "f.yaml:1: a: must be an integer of at most 9223372036854775807",
    "a: 2024-13-45\n": "a: must be a valid timestamp, or a string in quotes",
    "a: !!python/object:os.system x\n": "a: unknown tag; must be a plain value",
    "a: !!set {b, b}\n": "a: unknown tag",
    "[a]: 1\n": "f.yaml:1: a key is a list or mapping; must be a name",
    BOMB: "too many values (aliases expanded); must be at most 100000",
    LONG: "too many values",
    MERGES: "too many values",
    "a: &a [*a]\n": "an alias is inside the node it refers to",
    "a: &a {b: {c: *a}}\n": "an alias is inside the node it refers to",
    "[" * 100_000 + "\n": "nest",
    "- " * 100_000 + "\n": "nested too deeply; must be at most 32 levels",
    "{a: " * 100_000 + "\n": "nest",
    "".join(f"a{n}: &a{n} [*a{n - 1}]\n" if n else "a0: &a0 [x]\n" for n in range(99)): "f.yaml:32: nested too deep",
    "a: 'swordfish\n": "invalid YAML: found unexpected end of stream",
    "a: *swordfish\n": "invalid YAML: found undefined alias",
    "a: !swordfish x\n": "unknown tag",
    "a: [1, 2\n": "f.yaml:2: invalid YAML: did not find expected ',' or ']' (column 1)",
    "a: \x00\n": "invalid YAML: holds characters that YAML",
}  # fmt: skip


@pytest.mark.parametrize("text", FAULTS, ids=range(len(FAULTS)))
def test_what_nobody_means_is_refused_at_once(text: str) -> None:
    started_s = time.process_time()
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f.yaml")
    assert time.process_time() - started_s < 0.3
    assert FAULTS[text] in str(caught.value)
    assert "\n" not in str(caught.value) and "swordfish" not in str(caught.value)


def test_aliases_and_merges_mean_what_they_say() -> None:
    text = (
        "base: &b {band: infrared, rate_fps: 5}\ncameras:\n- {<<: *b, id: a, rate_fps: 9}\n- *b\nsame: &s x\nit: *s\n"
    )
    document = parse_yaml(text, "f.yaml")
    assert document.value["cameras"] == [
        {"band": "infrared", "rate_fps": 9, "id": "a"}, {"band": "infrared", "rate_fps": 5}
    ]  # fmt: skip
    assert document.value["it"] == "x"
    assert document.line(("cameras", 0, "rate_fps")) == 3 and document.line(("cameras", 0, "band", 7)) == 3
    assert document.line(("nowhere",)) is None


def test_a_key_that_is_no_name_is_not_shown() -> None:
    assert dotted(("cameras", 0, "uri")) == "cameras[0].uri" and dotted(("zones", "north gate")) == "zones.north gate"
    assert dotted(("a", "sword@fish")) == "a.***" and dotted(()) == "the file"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    for content, fault in {
        b"\xff": "must be UTF-8 text",
        b"a" * (MAX_BYTES + 1): "must have at most 1000000 bytes",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=fault):
            read_yaml(path)
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(path).value == {"a": 1}, "a byte order mark is none of it"
    with pytest.raises(ConfigError, match="Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("data: x\ndata: y\nsteps: 1\n", "train.yaml:2: data: duplicate key in lines 1 and 2"),
        ("data: x\nsteps: 1\nclip_norm: .nan\n", "train.yaml:3: clip_norm: must be a finite number"),
        ("data: x\nsteps: 1\noptimizer: {lr: 1e999}\n", "train.yaml:3: optimizer.lr = inf; must be a finite number"),
        ("data: x\nsteps: 1\noptimizer: {lr: inf}\n", "train.yaml:3: optimizer.lr = inf; must be a finite number"),
        (BOMB, "train.yaml:6: too many values"),
    ],
)
def test_a_training_file_is_read_the_same_way(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert fault in str(caught.value)


def test_a_changed_key_too(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("data: x\nsteps: 1\n")
    for change in ("clip_norm=.inf", "clip_norm=1e999"):
        with pytest.raises(ConfigError, match=r"clip_norm.*finite"):
            load_config(path, [change])


def test_a_site_with_half_of_it_twice_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("cameras:\n- {id: a, uri: 'demo:scene'}\ncameras:\n- {id: b, uri: 'demo:scene'}\n")
    for command in ("check", "run"):
        ended = dasnet_in_process(command, path)
        assert ended.returncode == 2
        assert ended.stderr == f"error: {path}:3: cameras: duplicate key in lines 1 and 3; must be unique\n"
