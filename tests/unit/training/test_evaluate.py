"""`dasnet evaluate`: weights set by hand that are perfect or blind, every network, and errors that help."""

import gzip
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from support.native import needs_native
from support.program import dasnet_in_process, script_in_process
from torch import nn

from model import build
from model.checkpoint import Loaded, load, save
from model.external import BASELINES
from model.metadata import CLASSES, Metadata, Preprocessing
from model.registry import NETWORKS
from pipeline.cli import main
from pipeline.errors import ConfigError, DasnetError
from training.cache import CachedFrames
from training.evaluation.evaluate import EvaluateOptions, evaluate, evaluation_frames, run_evaluate
from training.evaluation.qualitative import read_samples
from training.evaluation.report import as_json, table

SMALL = {"start_out_channels": 16, "size": 3}
SIZE_PX = {"A": 20, "B": 6}  # the square that each clip shows
SCALE = Preprocessing("scale")


def write_clips(folder: Path) -> Path:
    """Two lossless clips of three frames: a white square on dark grey; the last is empty.  In A a bird besides."""
    (folder / "clips").mkdir(parents=True)
    described = {}
    for name, sensor in (("A", "infrared"), ("B", "visible")):
        frames: list[list[dict[str, Any]]] = []
        with av.open(str(folder / "clips" / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"qp": "0"})
            stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv444p"
            for number in range(3):
                image, side = np.full((80, 96, 3), 40, np.uint8), SIZE_PX[name]
                objects = [] if number == 2 else [(0, "drone", 20 + 8 * number, 24, side)]
                objects += [(1, "bird", 70, 50, 12)] if name == "A" and number < 2 else []
                for _, kind, x, y, long in objects:
                    image[y : y + long, x : x + long] = 230 if kind == "drone" else 90
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                frames.append([{"id": i, "class": k, "box": [x - 3, y - 3, s + 6, s + 6]} for i, k, x, y, s in objects])
            container.mux(stream.encode())
        sizes = {"width": 96, "height": 80, "fps": 30.0}
        described[name] = {"sensor": sensor, "clip_class": "drone", "split": "val", **sizes, "frames": frames}
    (folder / "labels.json.gz").write_bytes(gzip.compress(json.dumps(described).encode()))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("data") / "clips")


@pytest.fixture(scope="module")
def frames(data: Path, tmp_path_factory: pytest.TempPathFactory) -> CachedFrames:
    return evaluation_frames(str(data), "val", 1, tmp_path_factory.mktemp("cache"))


def brightness(bias: float, classes: int = 1, channels: int = SMALL["start_out_channels"]) -> nn.Module:
    """A dasnet whose only path leads from the image's red to the first class: uav where it stands out, plus a bias."""
    network = build("dasnet", num_class=classes, start_out_channels=channels, size=SMALL["size"])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.endswith("gn.weight"):  # else all ones
                parameter.zero_()
        network.encoder.encoder_layers[0].weights[:, 0, 0, 1, 1] = 1
        network.decoder.dy_blocks[-1].weights[:, 0, channels, 1, 1] = 1  # of the skip
        first, second = network.decoder.output.output_block
        first.weight[0, 0, 1, 1] = 1
        second.weight[0, 0] = 1
        second.bias.fill_(-1000)
        second.bias[0] = bias
    return network.eval()


PERFECT, BLIND = -2.5, -1000.0


def saved(path: Path, bias: float = PERFECT, classes: int = 1, preprocessing: Preprocessing = SCALE) -> Path:
    metadata = Metadata(
        arguments={"num_class": classes, **SMALL},
        classes=CLASSES[:classes],
        preprocessing=preprocessing,
        training={"seed": 42},
    )
    save(path, brightness(bias, classes), metadata)
    return path


def report_of(loaded: Loaded, frames: CachedFrames) -> dict[str, Any]:
    report = as_json(evaluate(loaded, frames, "cpu"), loaded, 42, {"folder": "clips", "split": "val", "every": 1}, None)
    return json.loads(json.dumps(report, allow_nan=False))


# --- figures ---


def test_a_perfect_checkpoint_counts_one(frames: CachedFrames, tmp_path: Path):
    report = report_of(load(saved(tmp_path / "perfect.safetensors")), frames)
    uav = report["targets"]["uav"]
    for group in uav["groups"].values():
        assert group["per_image"] == {"precision": 1, "recall": 1, "dice": 1, "iou": 1}
    assert uav["groups"]["all"]["pooled"] == {"precision": 1, "recall": 1, "dice": 1, "iou": 1}
    assert uav["average_precision"] == 1
    assert report["images"]["uav"] == [[400, 0, 0]] * 2 + [[0, 0, 0]] + [[36, 0, 0]] * 2 + [[0, 0, 0]]
    assert report["images"]["diameter_px"] == [20, 20, None, 6, 6, None]
    assert report["images"]["name"][:2] == ["A/0", "A/1"]
    sizes = {name: group["images"] for name, group in uav["groups"].items()}
    assert sizes == {
        "all": 6,
        "with a target": 4,
        "infrared": 3,
        "visible": 3,
        "< 8 px": 2,
        "16-32 px": 2,
        "no target": 2,
        "infrared, with a target": 2,
        "visible, with a target": 2,
        "infrared, 16-32 px": 2,
        "infrared, no target": 1,
        "visible, < 8 px": 2,
        "visible, no target": 1,
    }


def test_a_blind_checkpoint_counts_zero(frames: CachedFrames, tmp_path: Path):
    groups = report_of(load(saved(tmp_path / "blind.safetensors", BLIND)), frames)["targets"]["uav"]["groups"]
    assert groups["< 8 px"]["per_image"] == {"precision": 1, "recall": 0, "dice": 0, "iou": 0}
    assert groups["no target"]["per_image"] == {"precision": 1, "recall": 1, "dice": 1, "iou": 1}
    assert groups["all"]["pooled"] == {"precision": None, "recall": 0, "dice": 0, "iou": 0}


@needs_native
def test_what_the_head_of_a_coarser_map_does_not_see_counts_too(frames: CachedFrames, tmp_path: Path):
    """Of a checkpoint the native engine leaves out what that head does not see; figures are of the whole network."""
    network = brightness(PERFECT, channels=64)
    with torch.no_grad():
        network.decoder.aux_heads[str(SMALL["size"] - 2)].bias.fill_(-1000)
    metadata = Metadata(arguments={"num_class": 1, "size": SMALL["size"]}, classes=CLASSES[:1], preprocessing=SCALE)
    save(tmp_path / "network.safetensors", network, metadata)
    groups = report_of(load(tmp_path / "network.safetensors"), frames)["targets"]["uav"]["groups"]
    assert groups["all"]["pooled"]["recall"] == 1


def test_several_classes_count_as_uav_and_as_any_object(frames: CachedFrames, tmp_path: Path):
    targets = report_of(load(saved(tmp_path / "four.safetensors", classes=4)), frames)["targets"]
    assert targets["uav"]["groups"]["all"]["pooled"]["recall"] == 1
    found, birds = 2 * 400 + 2 * 36, 2 * 144  # the birds are objects, and this network sees none
    assert targets["object"]["groups"]["all"]["pooled"]["recall"] == pytest.approx(found / (found + birds), abs=1e-6)
    assert targets["object"]["groups"]["all"]["pooled"]["precision"] == 1
    assert set(targets["object"]["groups"]) == {"all", "infrared", "visible"}


def test_stretched_frames_are_measured_the_originals_way_too(frames: CachedFrames, tmp_path: Path):
    """At the input a mask is all pixels that the resized mask touches, so that a tight prediction misses its border."""
    loaded = load(saved(tmp_path / "stretched.safetensors", preprocessing=Preprocessing("stretch", 256)))
    report = report_of(loaded, frames)
    at_input = evaluate(loaded, frames, "cpu").images[0].counts_at_input
    mask = np.zeros((80, 96), np.float32)
    mask[24:44, 20:40] = 1
    touched = np.count_nonzero(cv2.resize(mask, (256, 256), interpolation=cv2.INTER_LINEAR) > 1 / 510)
    assert at_input is not None and at_input[0] + at_input[2] == touched
    assert report["at_input"]["images"] == 6 and report["at_input"]["pooled"]["precision"] == 1
    assert 0.6 < report["at_input"]["pooled"]["recall"] < 0.95
    assert report["targets"]["uav"]["groups"]["infrared, 16-32 px"]["per_image"]["iou"] > 0.85
    assert "as the original" in table(report)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_is_evaluated(frames: CachedFrames, tmp_path: Path, name: str):
    if name in BASELINES and importlib.util.find_spec("segmentation_models_pytorch") is None:
        pytest.skip("extra 'baselines' not installed")
    torch.manual_seed(1)
    arguments = {"num_class": 1, **({} if name in BASELINES else SMALL)}
    network = build(name, **arguments)
    save(tmp_path / "network.safetensors", network, Metadata(name, arguments, preprocessing=SCALE))
    report = report_of(load(tmp_path / "network.safetensors"), frames)
    assert report["model"] == name and report["parameters"] == sum(p.numel() for p in network.parameters())
    assert report["targets"]["uav"]["groups"]["all"]["images"] == 6
    assert 0 < report["targets"]["uav"]["average_precision"] < 1
    assert name in table(report)


# --- the command ---


def test_the_command_writes_figures_table_and_samples(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DASNET_CLIPS", str(data))
    options = ["--checkpoint", saved(tmp_path / "perfect.safetensors"), "--json", "new/figures.json", "--out", "run"]
    result = dasnet_in_process("evaluate", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "dasnet, seed 42" in result.stdout and "in the paper 8.83" in result.stdout
    assert "An image without a target counts 1" in result.stdout
    assert "evaluate 6/6" in result.stderr
    report = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert report == json.loads((tmp_path / "run" / "evaluation.json").read_text())
    timing = report["timing"]
    assert (timing["engine"], timing["paper_ms"]) == ("torch-cpu-fp32", 8.83)
    assert timing["engine_ms"] > 0 and timing["module_ms"] > 0
    samples = read_samples(tmp_path / "run" / "samples")
    assert [sample.name for sample in samples] == ["A-0", "A-1", "B-0", "B-1"]
    assert all(np.array_equal(sample.truth, sample.mask) and sample.truth.any() for sample in samples)
    assert int(samples[0].image[samples[0].truth].min()) > 200  # RGB, and where its truth says


@pytest.mark.slow
def test_the_originals_command_and_checkpoint(data: Path, tmp_path: Path):
    """Full-sized, as the original's files do not say their size; one frame of each clip."""
    torch.manual_seed(2)
    torch.save({"epoch": 3, "model_state_dict": build("thindyunet").state_dict()}, tmp_path / "best.pth")
    arguments = ["--model", "thindyunet", "--checkpoint", "best.pth", "--data", data, "--every", "3"]
    more = ["--seed", "8888", "--no-timing", "--json", "figures.json"]
    result = script_in_process("eval.py", *arguments, *more, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    assert (report["model"], report["seed"], report["timing"]) == ("thindyunet", 8888, None)
    assert report["images"]["name"] == ["A/0", "B/0"] and report["at_input"]["images"] == 2


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("name", "code", "text"), [("none.pth", 2, "none.pth: no such file"), ("broken.pth", 1, "broken.pth: is damaged")]
)
def test_wrong_usage_ends_with_two_and_a_failure_with_one(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    code: int,
    text: str,
):
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    arguments = ["evaluate", "--checkpoint", str(tmp_path / name), "--data", str(data)]
    monkeypatch.setattr(sys, "argv", ["dasnet", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert text in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"data": "nowhere"}, ConfigError, "nowhere"),
        ({"split": "tset"}, ConfigError, "'tset'; must be one of train, val"),
        ({"split": "train"}, ConfigError, "split '?train'?.*must be"),
        ({"model": "unet"}, ConfigError, "--model unet: .*own.safetensors is of dasnet"),
        ({"seed": 7}, ConfigError, "--seed 7: .*own.safetensors was trained with seed 42"),
    ],
)
def test_errors_name_what_is_wrong(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], error: Any, text: str
):
    monkeypatch.chdir(tmp_path)
    options = {"checkpoint": saved(tmp_path / "own.safetensors"), "data": str(data), **changes}
    with pytest.raises(error, match=text):
        run_evaluate(EvaluateOptions(**options))


def test_a_recording_that_cannot_be_read_is_named(data: Path, tmp_path: Path):
    folder = write_clips(tmp_path / "clips")
    (folder / "clips" / "A.mp4").write_bytes(b"no video")
    with pytest.raises(DasnetError, match=r"A\.mp4"):
        evaluation_frames(str(folder), "val", 1, tmp_path / "cache")
