"""The ONNX file computes what the network computes, at any batch and size, and says how it is to be run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model import build
from model.checkpoint import Loaded, load, save
from model.errors import ChoiceError, EngineError, ModelError
from model.export.onnx import run_export
from model.metadata import BANDS, Metadata, Thresholds

onnx = pytest.importorskip("onnx", reason="needs dasnet[export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs dasnet[export]")
pytest.importorskip("onnxscript", reason="needs dasnet[export]")

ARGUMENTS = {"start_out_channels": 16, "size": 3, "num_class": 2}  # multiple of 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    network = build("dasnet", **ARGUMENTS)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".gn." in name or "bias" in name:  # neutral in a fresh network: it could be forgotten unnoticed
                parameter.add_(torch.randn(parameter.shape) * 0.3)
            if "attention.3" in name:  # the mix of the kernels must depend on the picture to be proved
                parameter.mul_(200)
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save(
        path,
        network,
        Metadata(
            arguments=ARGUMENTS, classes=("uav", "bird"), thresholds={band: Thresholds(threshold=0.4) for band in BANDS}
        ),
    )
    return path


@pytest.fixture(
    scope="module",
    params=[pytest.param(each, marks=pytest.mark.slow) for each in ((18, True), (21, False))],
    ids=["18-fold", "21-no-fold"],
)
def exported(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    opset, fold = request.param
    path = tmp_path_factory.mktemp("out") / "new" / "model.onnx"
    worst = run_export(checkpoint, path, opset, fold, say=lambda _: None)
    assert worst <= 1e-3
    versions = [entry.version for entry in onnx.load(path).opset_import if not entry.domain]
    assert versions == [opset]
    return path


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> Loaded:
    return load(checkpoint)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 64, 40), (3, 24, 16), (5, 8, 48)])
def test_logits_are_the_networks_at_any_batch_and_size(exported: Path, loaded: Loaded, shape: tuple[int, int, int]):
    image = torch.rand(shape[0], 3, *shape[1:])
    image[0] *= 0.1  # samples of one batch get different mixes
    got = onnxruntime.InferenceSession(str(exported)).run(["logits"], {"image": image.numpy()})[0]
    with torch.inference_mode():
        np.testing.assert_allclose(got, loaded.network(image).numpy(), atol=1e-3)


def test_a_side_that_is_no_multiple_is_refused(exported: Path):
    image = np.zeros((1, 3, 20, 24), np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(Exception, match=r"(?i)shape|dimension|concat"):
        onnxruntime.InferenceSession(str(exported), options).run(None, {"image": image})


def test_the_file_says_how_it_is_run_and_nothing_of_this_machine(exported: Path, loaded: Loaded):
    model = onnx.load(exported)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(texts["classes"]) == ["uav", "bird"]
    assert json.loads(texts["thresholds"])["visible"]["threshold"] == 0.4
    assert json.loads(texts["preprocessing"])["mode"] == "stretch"
    assert texts["sha256"] == loaded.metadata.sha256
    assert texts["multiple"] == "8"
    assert json.loads(texts["dasnet"])["arguments"] == ARGUMENTS
    free = [dimension.dim_param for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    assert free == ["batch", "", "8*rows", "8*columns"]
    assert str(Path(__file__).parents[3]).encode() not in exported.read_bytes()
    assert [file.name for file in exported.parent.iterdir()] == ["model.onnx"]


def test_the_output_is_one_convolution_only_when_folded(checkpoint: Path, exported: Path):
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(exported).graph.node)
    opset = onnx.load(exported).opset_import[0].version
    assert convolutions == 7 * 4 + 3 * 3 + (1 if opset == 18 else 2)


@pytest.mark.parametrize(
    ("name", "opset", "match"),
    [
        ("model.onnx", 17, r"opset 17; must be from 18 to 23"),
        ("model.onnx", 99, r"opset 99; must be from 18 to 23"),
        ("model.pt", 18, r"model\.pt; must be .*\.onnx"),
        pytest.param(
            *("model.plan", 18, r"export to \.plan needs (tensorrt|a CUDA device)"),
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a plan may be had here"),
        ),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(checkpoint: Path, tmp_path: Path, name: str, opset: int, match: str):
    with pytest.raises(ChoiceError, match=match):
        run_export(checkpoint, tmp_path / name, opset)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_told_before_the_work(checkpoint: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    said: list[str] = []
    with pytest.raises(ModelError, match=r"file/model\.onnx: cannot be written"):
        run_export(checkpoint, tmp_path / "file" / "model.onnx", say=said.append)
    assert not said


def test_without_the_packages_it_says_what_to_install(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("model.export.onnx.find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(ChoiceError, match=r"onnxruntime.*pip install dasnet\[export\]"):
        run_export(checkpoint, tmp_path / "model.onnx")


def test_a_file_that_computes_something_else_is_not_kept(
    checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = onnx.load(exported)
    bias = next(entry for entry in model.graph.initializer if entry.name.startswith("output.") and "bias" in entry.name)
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.1, bias.name))
    monkeypatch.setattr("model.export.onnx._translate", lambda *_: model)
    with pytest.raises(EngineError, match="differ by"):
        run_export(checkpoint, tmp_path / "model.onnx", say=lambda _: None)
    assert not list(tmp_path.iterdir())
