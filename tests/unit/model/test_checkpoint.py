"""Checkpoints of ours and of the original load as they are; bad ones are explained, and nothing is unpickled."""

import pickle
from pathlib import Path

import pytest
import torch

from model import build, load
from model.checkpoint import save
from model.errors import CheckpointError
from model.metadata import Metadata, Preprocessing, Thresholds

SMALL = {"start_out_channels": 16, "size": 3}


def test_ours_rebuilds_itself(tmp_path: Path):
    net = build("dasnet", num_class=2, **SMALL)
    metadata = Metadata(
        arguments={"num_class": 2, **SMALL},
        classes=("uav", "bird"),
        preprocessing=Preprocessing("scale", scale={"infrared": 1.0, "visible": 0.5}),
        decision={"infrared": Thresholds(threshold=0.4, box_margin_px=1.5), "visible": Thresholds(uav_evidence=0.5)},
        training={"seed": 7},
    )
    save(tmp_path / "a.safetensors", net, metadata)
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.metadata.preprocessing == metadata.preprocessing
    assert loaded.metadata.decision == metadata.decision
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
