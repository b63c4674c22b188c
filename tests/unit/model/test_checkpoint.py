"""Checkpoints of ours and of the original load as they are; bad ones are explained, and nothing is unpickled."""

import json
import math
import pickle
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from support.garbage import EXTREMES, places

from model import build, load
from model.checkpoint import save, weights_digest
from model.description import read_description, read_thresholds
from model.errors import CheckpointError
from model.judge import Judge
from model.metadata import DIGEST_KEY, METADATA_KEY, JudgeConfig, Metadata, Preprocessing, Thresholds
from pipeline.checkpoints import SHIPPED

SMALL = {"start_out_channels": 16, "size": 3}


def test_ours_rebuilds_itself(tmp_path: Path):
    net = build("dasnet", num_class=2, **SMALL)
    metadata = Metadata(
        arguments={"num_class": 2, **SMALL},
        classes=("uav", "bird"),
        preprocessing=Preprocessing("scale", scale={"infrared": 1.0, "visible": 0.5}),
        thresholds={
            "infrared": Thresholds(threshold=0.4, box_margin_px=1.5),
            "visible": Thresholds(uav_log_odds=0.5),
        },
        training={"seed": 7},
    )
    save(tmp_path / "a.safetensors", net, metadata)
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.metadata.preprocessing == metadata.preprocessing
    assert loaded.metadata.thresholds == metadata.thresholds
    assert (loaded.metadata.classes, loaded.metadata.training) == (("uav", "bird"), {"seed": 7})
    assert len(loaded.metadata.sha256) == 64
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)


def test_half_the_bytes_are_rounded_and_computed_with_as_float32(tmp_path: Path):
    net = build("dasnet", num_class=2, **SMALL)
    metadata = Metadata(arguments={"num_class": 2, **SMALL}, classes=("uav", "bird"))
    for name, dtype in (("whole", torch.float32), ("half", torch.float16)):
        save(tmp_path / f"{name}.safetensors", net, metadata, dtype=dtype)
    whole, half = (load(tmp_path / f"{name}.safetensors").network.state_dict() for name in ("whole", "half"))
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "whole.safetensors").stat().st_size
    for name, tensor in whole.items():
        assert half[name].dtype == tensor.dtype
        torch.testing.assert_close(half[name], tensor, rtol=2**-11, atol=1e-7)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_originals_load_with_its_preprocessing(tmp_path: Path, prefix: str):
    net = build("dasnet", num_class=1)
    state = {prefix + name: tensor for name, tensor in net.state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": state}, tmp_path / "best.pth")
    loaded = load(tmp_path / "best.pth")
    assert loaded.metadata.classes == ("uav",)
    assert loaded.metadata.preprocessing == Preprocessing("stretch", 512)
    assert not loaded.network.training


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_bad_checkpoints_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    net = build("dasnet", num_class=1)
    state = net.state_dict()
    cases: dict[str, object] = {
        "pickle.pth": {"model_state_dict": Bomb()},
        "number.pth": {"model_state_dict": {"a": 3}},
        "missing.pth": {"model_state_dict": {k: v for k, v in state.items() if "psi" not in k}},
        "shape.pth": {"model_state_dict": {**state, "decoder.output.output_block.1.bias": torch.zeros(9)}},
        "nan.pth": {"model_state_dict": {**state, "encoder.encoder_layers.0.gn.bias": torch.full((64,), torch.nan)}},
    }
    expected = {
        "pickle.pth": "damaged or no checkpoint",
        "number.pth": "holds no weights",
        "missing.pth": r"missing: decoder.attention_gates.0.psi.0.weight",
        "shape.pth": r"wrong shape: decoder.output.output_block.1.bias is \(9,\), not \(1,\)",
        "nan.pth": "not finite: encoder.encoder_layers.0.gn.bias",
        "text.pth": "damaged or no checkpoint",
        "text.safetensors": "damaged",
        "absent.pth": "cannot be read",
    }
    for name, content in cases.items():
        torch.save(content, name)
    for name in ("text.pth", "text.safetensors"):
        Path(name).write_text("hello")
    for name, text in expected.items():
        with pytest.raises(CheckpointError, match=text) as caught:
            load(name)
        assert name in str(caught.value)
    assert not Path("exploded").exists()
    with pytest.raises(TypeError):  # the bomb is one: without this the test could not fail
        pickle.loads(pickle.dumps(Bomb()))()
    assert Path("exploded").exists()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ours with a judge, small enough to be read hundreds of times."""
    path = tmp_path_factory.mktemp("checkpoint") / "good.safetensors"
    torch.manual_seed(0)
    how = JudgeConfig(classes=("uav", "bird", "airplane"))
    arguments = {"num_class": 2, "start_out_channels": 8, "size": 3}
    metadata = Metadata(arguments=arguments, classes=("uav", "bird"), judge=how, training={"seed": 3})
    save(path, build("dasnet", **arguments), metadata, Judge(5, 3))
    return path


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The header, the metadata in it, and the weights."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    return header, json.loads(header["__metadata__"][METADATA_KEY]), content[8 + size :]


def write(path: Path, header: dict[str, Any], described: object, weights: bytes) -> Path:
    text = described if isinstance(described, str) else json.dumps(described)
    header = {**header, "__metadata__": {**header["__metadata__"], METADATA_KEY: text}}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + weights)
    return path


def changed(shared: Path, path: Path, key: str, value: object) -> Path:
    header, described, weights = parts(shared)
    *above, last = key.split(".")
    place = described
    for name in above:
        place = place[name]
    place[last] = value
    return write(path, header, described, weights)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("thresholds.infrared.threshold", 1.5, "1.5; must be a number from 0 to 1"),
        ("thresholds.infrared.threshold", math.nan, "nan; must be a number from 0 to 1"),
        ("thresholds.visible.uav_log_odds", math.inf, "inf; must be a number from -100 to 100"),
        ("thresholds.visible.min_area_px", -1, "-1; must be a number from 0 to 4096"),
        ("thresholds.visible.min_score", True, "True; must be a number"),
        ("thresholds.visible.box_margin_px", "4", "'4'; must be a number"),
        ("thresholds.visible.box_margin_px", 10**400, "; must be a number"),
        ("thresholds.visible.threshold_", 0.5, "0.5; must be one of the keys threshold, min_area_px"),
        ("thresholds.ultraviolet", {}, "{}; must be one of the keys infrared, visible"),
        ("thresholds.visible", [0.5], r"\[0.5\]; must be an object"),
        ("thresholds", None, "None; must be an object"),
        ("preprocessing.mode", "crop", "'crop'; must be one of stretch, scale"),
        ("preprocessing.mode", ["scale"], r"\['scale'\]; must be one of stretch, scale"),
        ("preprocessing.size", 512.5, "512.5; must be a whole number from 8 to 8192"),
        ("preprocessing.grey", 1, "1; must be true or false"),
        ("preprocessing.scale", {"infrared": 1.0}, "must be a number for each of infrared, visible"),
        ("preprocessing.scale.visible", 0, "0; must be a number from 0.01 to 64"),
        ("judge.frames", 1, "1; must be a whole number from 2 to 16"),
        ("judge.classes", ["bird", "clutter"], "must be different, with uav among several"),
        ("judge.classes", ["uav", "clutter"], "must be at least uav, bird"),
        ("judge.fusion", 3, "3; must be an object"),
        ("judge.fusion.bias", 1000, "1000; must be a number from -100 to 100"),
        ("judge.fusion.min_score", math.nan, "nan; must be a number from 0 to 1"),
        ("judge.fusion.colour", 1, "1; must be one of the keys bias, judge"),
        ("classes", ["uav", "dragon"], "must be a list of uav, bird, airplane, helicopter, clutter"),
        ("classes", ["uav", {}], "must be a list of uav"),
        ("classes", ["uav"], r"\('uav',\); must be 2, as arguments.num_class says"),
        ("classes", "uav", "'uav'; must be a list of uav"),
        ("arguments.num_class", 10**9, "1000000000; must be a whole number from 1 to 5"),
        ("arguments.start_out_channels", 10**9, "must be a whole number from 1 to 1024"),
        ("arguments.size", 10**9, "must be a whole number from 1 to 12"),
        ("arguments.upsample", False, "False; must be true"),
        ("arguments.dilation", 2, "2; must be one of the keys in_channels"),
        ("network", 7, "7; must be a network's name"),
        ("training", [], r"\[\]; must be an object"),
        ("training.seed", "three", "'three'; must be a whole number"),
        ("training.loss", math.nan, "nan; must be finite"),
        ("evaluation.dice", -math.inf, "-inf; must be finite"),
        ("evaluation", 1, "1; must be an object"),
        ("owner", "me", "'me'; must be one of the keys network, arguments"),
    ],
)
def test_metadata_is_held_to_types_ranges_and_known_keys(
    shared: Path, tmp_path: Path, key: str, value: object, reason: str
):
    path = changed(shared, tmp_path / "bad.safetensors", key, value)
    with pytest.raises(CheckpointError, match=rf"checkpoint {path}: {key}: .*{reason}"):
        load(path)
    if key.startswith("thresholds"):
        with pytest.raises(CheckpointError, match=rf"checkpoint {path}: {key}: "):
            read_thresholds(path)


OLD_NAMES = {
    "thresholds": "decision",
    "continue_area_ratio": "keep_share",
    "uav_log_odds": "uav_evidence",
    "distractor_log_odds": "distractor_evidence",
}


def test_files_under_the_old_keys_load_as_those_under_the_new(shared: Path, tmp_path: Path):
    header, described, weights = parts(shared)
    described["thresholds"]["visible"] |= {"uav_log_odds": 0.25, "distractor_log_odds": 1.5, "continue_area_ratio": 0.5}
    text = json.dumps(described)
    new = write(tmp_path / "new.safetensors", header, text, weights)
    for name, old_name in OLD_NAMES.items():
        assert f'"{name}"' in text
        text = text.replace(f'"{name}"', f'"{old_name}"')
    old = write(tmp_path / "old.safetensors", header, text, weights)
    assert replace(load(old).metadata, sha256="") == replace(load(new).metadata, sha256="")
    assert read_thresholds(old) == read_thresholds(new) and read_thresholds(old)["visible"].uav_log_odds == 0.25
    assert read_description(old) == described


@pytest.mark.parametrize(("key", "value"), [("decision", {}), ("thresholds.visible.keep_share", 0.5)])
def test_a_key_under_both_names_is_refused(shared: Path, tmp_path: Path, key: str, value: object):
    path = changed(shared, tmp_path / "bad.safetensors", key, value)
    with pytest.raises(CheckpointError, match=r"it has both \w+ and \w+, the old name of the same key"):
        load(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"training": ' + '{"a":' * 100_000, "nested too deeply"),
        ('{"network": "dasnet", "network": "unet"}', "it has a duplicate key"),
        ("[]", "it is not an object"),
        ("{", "not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ('{"training": {"a": "' + "x" * (5 << 20) + '"}}', "it is longer than 4194304 bytes"),
    ],
)
def test_metadata_that_is_a_bomb_or_no_object_is_refused(shared: Path, tmp_path: Path, text: str, reason: str):
    header, _, weights = parts(shared)
    path = write(tmp_path / "bad.safetensors", header, text, weights)
    for read in (load, read_description):
        with pytest.raises(CheckpointError, match=rf"checkpoint {path}: .*{reason}"):
            read(path)


def test_a_network_that_is_far_larger_than_its_weights_is_refused_without_making_it(shared: Path, tmp_path: Path):
    path = changed(shared, tmp_path / "large.safetensors", "arguments.start_out_channels", 1024)
    path = changed(path, path, "arguments.size", 12)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"does not fit the network \(missing: .*; wrong shape: "):
        load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before_kb + 200_000


def test_what_a_run_recorded_as_not_finite_is_saved_as_nothing(tmp_path: Path):
    arguments = {"start_out_channels": 8, "size": 3}
    metadata = Metadata(arguments=arguments, training={"loss": math.nan, "checks": [{"dice": math.inf, "step": 2}]})
    save(tmp_path / "run.safetensors", build("dasnet", **arguments), metadata)
    assert load(tmp_path / "run.safetensors").metadata.training == {"loss": None, "checks": [{"dice": None, "step": 2}]}


def test_weights_that_are_not_those_that_were_saved_are_refused(shared: Path, tmp_path: Path):
    header, described, weights = parts(shared)
    flipped = bytearray(weights)
    flipped[len(flipped) // 2] ^= 1
    path = write(tmp_path / "bad.safetensors", header, described, bytes(flipped))
    with pytest.raises(CheckpointError, match=rf"{path}: is damaged: weights_sha256 of its weights is"):
        load(path)
    one, other = [name for name, about in header.items() if about.get("shape") == [8]][:2]
    swapped = header | {one: header[other], other: header[one]}
    with pytest.raises(CheckpointError, match="weights_sha256 of its weights is"):
        load(write(path, swapped, described, weights))
    del header["__metadata__"][DIGEST_KEY]
    assert load(write(path, header, described, weights)).judge is not None, "older files state none"


def test_the_shipped_checkpoint_states_its_digest():
    header, _, _ = parts(SHIPPED)
    with safe_open(SHIPPED, framework="pt") as file:
        names = file.keys()
        assert header["__metadata__"][DIGEST_KEY] == weights_digest({name: file.get_tensor(name) for name in names})


def with_tensors(path: Path, shared: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    with safe_open(shared, framework="pt") as file:
        text, names = file.metadata()[METADATA_KEY], file.keys()
        tensors = {name: change(name, file.get_tensor(name)).contiguous() for name in names}
    save_file(tensors, path, metadata={METADATA_KEY: text})
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (torch.bool, "wrong type: .* is bool, must be floating"),
        (torch.int32, "wrong type: .* is int32, must be floating"),
        (torch.complex64, "wrong type: .* is complex64, must be floating"),
        (torch.float64, ""),
        (torch.bfloat16, ""),
    ],
)
def test_weights_of_another_type_are_converted_or_refused(shared: Path, tmp_path: Path, kind: torch.dtype, reason: str):
    path = with_tensors(
        tmp_path / "typed.safetensors",
        shared,
        lambda _, tensor: tensor.to(kind) if tensor.is_floating_point() else tensor,
    )
    if not reason:
        assert next(load(path).network.parameters()).dtype is torch.float32
        return
    with pytest.raises(CheckpointError, match=reason):
        load(path)


def test_counters_that_are_no_whole_numbers_and_values_too_large_are_refused(shared: Path, tmp_path: Path):
    path = tmp_path / "bad.safetensors"
    with pytest.raises(CheckpointError, match="num_batches_tracked is float32, must be integer"):
        load(with_tensors(path, shared, lambda _, tensor: tensor.float()))
    with pytest.raises(CheckpointError, match="not finite: "):
        load(with_tensors(path, shared, lambda _, tensor: tensor.double() + 1e300 if tensor.dim() > 1 else tensor))


def test_originals_that_are_bombs_are_refused(tmp_path: Path):
    state = build("dasnet", num_class=1).state_dict()
    path = tmp_path / "best.pth"
    torch.save({"model_state_dict": state}, path)
    with ZipFile(path) as whole, ZipFile(tmp_path / "packed.pth", "w", ZIP_DEFLATED) as packed:
        for record in whole.namelist():
            packed.writestr(record, whole.read(record))
    cases: dict[str, tuple[object, str]] = {
        "sparse": ({"model_state_dict": {"a": torch.eye(3).to_sparse()}}, "holds no weights"),
        "numbered": ({"model_state_dict": {1: torch.eye(3)}}, "holds no weights"),
        "repeated": ({"model_state_dict": {"a": torch.zeros(1).expand(10**12)}}, "does not fit the network"),
        "list": ([torch.eye(3)], "holds no weights"),
        "many": (
            {"model_state_dict": {**state, "decoder.output.output_block.1.weight": torch.zeros(10**6, 1)}},
            "must be",
        ),
        "named": ({"model_state_dict": state, "classes": ["dragon"]}, "classes: .*must be a list of uav"),
    }
    for name, (content, reason) in cases.items():
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=reason):
            load(path)
        assert name
    with pytest.raises(CheckpointError, match=r"packed.pth: holds compressed records"):
        load(tmp_path / "packed.pth")


EXTREME = st.sampled_from((*EXTREMES[:11], [], {}, [[]]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_the_bytes_are_it_is_a_checkpoint_or_the_error_names_it(
    shared: Path, tmp_path: Path, data: st.DataObject
):
    content = bytearray(shared.read_bytes())
    header_end = 8 + int.from_bytes(content[:8], "little")
    way = data.draw(st.sampled_from(["cut", "length", "header", "header", "weights", "random"]))
    if way == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    elif way == "length":
        content[:8] = data.draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little")
    elif way == "random":
        content[:] = data.draw(st.binary(max_size=200))
    else:
        least, most = (8, header_end - 1) if way == "header" else (header_end, len(content) - 1)
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(least, most))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / f"any.{'pth' if data.draw(st.booleans()) and way == 'random' else 'safetensors'}"
    path.write_bytes(content)
    for read in (load, read_thresholds):
        try:
            read(path)
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            assert read is read_thresholds or way == "header" or content == shared.read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_a_value_of_the_metadata_is_it_is_used_or_the_error_names_it(
    shared: Path, tmp_path: Path, data: st.DataObject
):
    header, described, weights = parts(shared)
    found: list[Callable[[Any], None]] = []
    places(described, found)
    data.draw(st.sampled_from(found))(data.draw(EXTREME))
    path = write(tmp_path / "any.safetensors", header, described, weights)
    try:
        loaded = load(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert all(0 <= one.threshold <= 1 for one in loaded.metadata.thresholds.values())
