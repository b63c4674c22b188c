"""The siblings of DAS-Net and the baselines: parameters, keys, functions, checkpoints, and the table of them all."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import build, load
from model.checkpoint import save
from model.errors import CheckpointError, ModelError
from model.metadata import Metadata, Preprocessing
from model.registry import NETWORKS, recognise
from model.summary import PAPER, NetworkSummary, gflop, summarise_networks, table, time_ms
from pipeline.checkpoints import SHIPPED

SIBLINGS = ("fulldyunet", "thindyunet", "deepsupdyunet")
DYNAMIC = ("dasnet", *SIBLINGS)
BASELINES = {"unet": 24_436_369, "mobileunet": 6_628_945, "pan": 21_475_816, "pspnet": 21_437_985}
SMALL = {"start_out_channels": 16, "size": 3}
with_library = pytest.mark.skipif(
    importlib.util.find_spec("segmentation_models_pytorch") is None, reason="extra 'baselines' not installed"
)


def dynamic_block(inside: int, out: int) -> int:
    hidden = 2 if inside == 3 else inside // 4 + 1
    attention = inside * hidden + hidden * 2 + 2
    return attention + 2 * out * inside * 9 + 2 * out  # and GroupNorm


def parameters(name: str, channels: int = 64, classes: int = 1, size: int = 7) -> int:
    """From the description, not from the modules."""
    encoder = dynamic_block(3, channels) + size * dynamic_block(channels, channels)
    double = 2 * channels * channels * 9 + channels * channels * 9 + 2 * (2 * channels)  # no biases, two BatchNorms
    stage = dynamic_block(2 * channels, channels) if name in ("dasnet", "fulldyunet") else double
    gate = 2 * channels * (channels // 2) + channels // 2 if name == "dasnet" else 0
    heads = 3 * (channels * classes + classes) if name in ("dasnet", "deepsupdyunet") else 0
    output = channels * channels * 9 + channels + channels * classes + classes
    return encoder + size * (stage + gate) + heads + output


@pytest.mark.parametrize(
    ("name", "number"),
    [("dasnet", 1_657_672), ("fulldyunet", 1_628_581), ("thindyunet", 1_341_385), ("deepsupdyunet", 1_341_580)],
)
def test_parameters_are_the_papers(name: str, number: int):
    with torch.device("meta"):
        for expected, arguments in ((number, {}), (parameters(name, 16, 4, 3), {"num_class": 4, **SMALL})):
            net = build(name, **arguments)
            assert sum(parameter.numel() for parameter in net.parameters()) == expected
    assert parameters(name) == number
    assert round(number / 1e6, 2) == PAPER[name].parameters_m


def expected_keys(name: str) -> set[str]:
    block = ("attention.1.weight", "attention.3.weight", "attention.3.bias", "weights", "gn.weight", "gn.bias")
    keys = {f"encoder.encoder_layers.{index}.{part}" for index in (0, 2, 4, 6, 8, 10, 12, 14) for part in block}
    output = [f"output_block.{layer}.{part}" for layer in (0, 1) for part in ("weight", "bias")]
    if name == "fulldyunet":
        keys |= {f"decoder.dy_blocks.{stage}.{part}" for stage in range(7) for part in block}
        return keys | {f"decoder.output.{part}" for part in output}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for index in (1, 3, 5, 7, 9, 11, 13):
        for conv in (0, 1):
            prefix = f"decoder.decoder_layers.{index}.layers.{conv}.cnn_block"
            keys |= {f"{prefix}.0.weight", *(f"{prefix}.1.{part}" for part in norm)}
    if name == "deepsupdyunet":
        keys |= {f"decoder.aux_heads.{stage}.{part}" for stage in (4, 5, 6) for part in ("weight", "bias")}
    return keys | {f"decoder.decoder_layers.14.{part}" for part in output}


@pytest.mark.parametrize("name", SIBLINGS)
def test_keys_are_the_originals(name: str):
    with torch.device("meta"):
        assert set(build(name).state_dict()) == expected_keys(name)


# The functions once more, in float64, from the description and the weights alone.


def dynamic(x: Tensor, w: dict[str, Tensor], prefix: str) -> Tensor:
    out = []
    for sample in x:
        pooled = sample.mean(dim=(1, 2))
        hidden = (w[f"{prefix}.attention.1.weight"][:, :, 0, 0] @ pooled).clamp(min=0)
        scores = w[f"{prefix}.attention.3.weight"][:, :, 0, 0] @ hidden + w[f"{prefix}.attention.3.bias"]
        first, second = torch.softmax(scores / 30, dim=0)
        kernel = first * w[f"{prefix}.weights"][0] + second * w[f"{prefix}.weights"][1]
        out.append(F.conv2d(sample[None], kernel, padding=1))
    normal = F.group_norm(torch.cat(out), 8, w[f"{prefix}.gn.weight"], w[f"{prefix}.gn.bias"])
    return F.leaky_relu(normal, 0.01)


def plain(x: Tensor, w: dict[str, Tensor], prefix: str, training: bool) -> Tensor:
    for conv in (0, 1):
        x = F.conv2d(x, w[f"{prefix}.layers.{conv}.cnn_block.0.weight"], padding=1)
        norm = f"{prefix}.layers.{conv}.cnn_block.1"
        mean, variance = w[f"{norm}.running_mean"].clone(), w[f"{norm}.running_var"].clone()
        x = F.leaky_relu(F.batch_norm(x, mean, variance, w[f"{norm}.weight"], w[f"{norm}.bias"], training), 0.01)
    return x


def resized(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=True)


def reference(name: str, x: Tensor, w: dict[str, Tensor], size: int, training: bool) -> tuple[Tensor, list[Tensor]]:
    side, skips, auxiliary = x.shape[-1], [], []
    for level in range(size + 1):
        x = dynamic(x, w, f"encoder.encoder_layers.{2 * level}")
        if level < size:
            skips.append(x)
            x = F.max_pool2d(x, 2)
    for stage in range(size):
        skip = skips.pop()
        x = torch.cat([resized(x, skip.shape[-1]), skip], dim=1)
        if name == "fulldyunet":
            x = dynamic(x, w, f"decoder.dy_blocks.{stage}")
        else:
            x = plain(x, w, f"decoder.decoder_layers.{2 * stage + 1}", training)
        if name == "deepsupdyunet" and training and stage >= size - 3:
            head = f"decoder.aux_heads.{stage}"
            auxiliary.append(resized(F.conv2d(x, w[f"{head}.weight"], w[f"{head}.bias"]), side))
    end = "decoder.output" if name == "fulldyunet" else f"decoder.decoder_layers.{2 * size}"
    for layer in (0, 1):
        weight = w[f"{end}.output_block.{layer}.weight"]
        x = F.conv2d(x, weight, w[f"{end}.output_block.{layer}.bias"], padding=weight.shape[-1] // 2)
    return x, auxiliary


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SIBLINGS)
def test_forward_equals_an_independent_implementation(name: str, training: bool):
    torch.manual_seed(3)
    net = build(name, num_class=2, start_out_channels=8, size=4).double().train(training)
    for tensor in net.state_dict().values():  # away from its neutral value, so that nothing can be forgotten
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) * 0.2)
    weights = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        got = net(image)
        logits, auxiliary = got if isinstance(got, tuple) else (got, [])
        expected, heads = reference(name, image, weights, 4, training)
    assert isinstance(got, tuple) == (name == "deepsupdyunet" and training)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-10)
    assert len(auxiliary) == (3 if isinstance(got, tuple) else 0)
    torch.testing.assert_close(list(auxiliary), heads, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("name", DYNAMIC)
def test_shapes_and_gradients(name: str, classes: int):
    torch.manual_seed(1)
    net = build(name, num_class=classes, **SMALL)
    image = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        assert net.eval()(image).shape == (2, classes, 32, 48)
    got = net.train()(image)
    logits, auxiliary = got if isinstance(got, tuple) else (got, [])
    assert len(auxiliary) == (3 if name in ("dasnet", "deepsupdyunet") else 0)
    assert all(aux.shape == logits.shape == (2, classes, 32, 48) for aux in auxiliary)
    sum((logit.square().mean() for logit in auxiliary), logits.square().mean()).backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), key


@pytest.mark.parametrize("name", DYNAMIC)
def test_wrong_input_and_arguments_are_explained(name: str):
    with pytest.raises(ValueError, match=r"input of 30x32; .*multiples of 8; pad to 32x32"):
        build(name, **SMALL)(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ModelError, match=f"network {name}: .*num_clas"):
        build(name, num_clas=2)
    with pytest.raises(ModelError, match=f"network {name}: upsample=False; must be True"):
        build(name, upsample=False)


@pytest.mark.parametrize("name", SIBLINGS)
def test_arguments_without_a_network_are_refused(name: str):
    for argument, value, expected in (
        ("num_class", 0, "a whole number, at least 1"),
        ("size", "7", "a whole"),
        ("padding", 0, 1),
    ):
        with pytest.raises(ModelError, match=f"network {name}: {argument}={value!r}; must be {expected}"):
            build(name, **{argument: value})


def test_the_registry_names_all_eight():
    names = "dasnet, deepsupdyunet, fulldyunet, mobileunet, pan, pspnet, thindyunet, unet"
    with pytest.raises(ModelError, match=f"network 'unett'; must be one of {names}$"):
        build("unett")
    assert set(NETWORKS) == set(PAPER)
    with pytest.raises(ModelError, match="network deepsupdyunet: size=2; must be a whole number, at least 3"):
        build("deepsupdyunet", size=2)


@pytest.mark.parametrize("name", DYNAMIC)
def test_checkpoints_rebuild_themselves(name: str, tmp_path: Path):
    net = build(name, num_class=2, **SMALL)
    net.train()(torch.rand(2, 3, 16, 16))  # moves the running averages
    metadata = Metadata(network=name, arguments={"num_class": 2, **SMALL}, classes=("uav", "bird"))
    save(tmp_path / "a.safetensors", net, metadata)
    loaded = load(tmp_path / "a.safetensors")
    assert (loaded.metadata.network, loaded.metadata.classes) == (name, ("uav", "bird"))
    assert type(loaded.network) is type(net)
    for key, tensor in net.state_dict().items():
        assert loaded.network.state_dict()[key].dtype == tensor.dtype
        assert torch.equal(loaded.network.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", DYNAMIC)
def test_the_originals_files_do_not_name_their_network_and_load(name: str, tmp_path: Path):
    net = build(name, num_class=1)
    assert recognise(net.state_dict()) == (name, 1)
    state = {f"module.{key}": tensor for key, tensor in net.state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": state, "loss": 0.1}, tmp_path / "best.pth")
    loaded = load(tmp_path / "best.pth")
    assert type(loaded.network) is type(net)
    assert (loaded.metadata.network, loaded.metadata.classes) == (name, ("uav",))
    assert loaded.metadata.preprocessing == Preprocessing("stretch", 512)
    assert all(torch.equal(tensor, net.state_dict()[key]) for key, tensor in loaded.network.state_dict().items())


def test_a_damaged_file_is_explained_as_the_network_that_it_resembles(tmp_path: Path):
    state = build("thindyunet", num_class=1).state_dict()
    lost = "decoder.decoder_layers.3.layers.1.cnn_block.1.running_var"
    torch.save({"model_state_dict": {k: v for k, v in state.items() if k != lost}}, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match=rf"best.pth: does not fit the network \(missing: {lost}\)"):
        load(tmp_path / "best.pth")
    assert recognise({}) == recognise({"segment.output_block.1.weight": torch.tensor(1.0)}) == ("dasnet", 1)


@with_library
@pytest.mark.parametrize("name", BASELINES)
def test_baselines(name: str, tmp_path: Path):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build(name).parameters()) == BASELINES[name]
    net: Any = build(name, num_class=4)
    assert (net.num_class, net.in_channels) == (4, 3)
    assert recognise(net.state_dict()) == (name, 4)
    with torch.inference_mode():
        assert net.eval()(torch.rand(1, 3, net.multiple, 128)).shape == (1, 4, net.multiple, 128)
    wrong = f"input of {net.multiple + 4}x128; .*multiples of {net.multiple}; pad to {2 * net.multiple}x128"
    with pytest.raises(ValueError, match=wrong):
        net(torch.zeros(1, 3, net.multiple + 4, 128))
    for arguments, text in (({"num_class": 0}, "num_class=0; must be .*at least 1"), ({"num_clas": 2}, ".*num_clas'")):
        with pytest.raises(ModelError, match=f"network {name}: {text}"):
            build(name, **arguments)
    torch.save({"model_state_dict": net.state_dict()}, tmp_path / "best.pth")
    loaded = load(tmp_path / "best.pth")
    assert (loaded.metadata.network, loaded.metadata.classes) == (name, ("uav", "bird", "airplane", "helicopter"))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ModelError, match=r"network pan: needs .*: pip install dasnet\[baselines\]"):
        build("pan")
    rows = {row.name: row for row in summarise_networks(measure=False)}
    assert (rows["pan"].parameters, rows["dasnet"].parameters) == (None, 1_657_672)
    lines = table(list(rows.values())).splitlines()
    assert [line for line in lines if "dasnet[baselines]" in line] == [lines[-1]]
    assert lines[-1] == "To build unet, mobileunet, pan, pspnet too: pip install dasnet[baselines]."
    assert next(line for line in lines if line.startswith("pan")).split()[1:] == [
        *"---",
        "21.4",
        "11.16",
        "0.6438",
        "0.7045",
    ]


def test_our_own_networks_import_neither_the_baselines_nor_torchs_compiler():
    """A second and 150 MB that every command and worker would pay."""
    code = (
        "import sys; from model import build, load; build('dasnet', size=3); build('thindyunet', size=3);"
        f"load({str(SHIPPED)!r});"
        "print([name for name in ('segmentation_models_pytorch', 'timm', 'torchvision', 'torch._dynamo', 'sympy')"
        " if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_multiply_adds_count_twice():
    # 3x3, 3 to 5 channels, 16x16 places: 9 x 3 x 5 x 256 multiply-adds; grouped convolutions and biases add no more
    assert gflop(nn.Conv2d(3, 5, 3, padding=1), side=16) == pytest.approx(2 * 9 * 3 * 5 * 256 / 1e9)
    with torch.device("meta"):
        assert gflop(build("dasnet")) == pytest.approx(81.1, abs=0.05)  # an earlier count by hand, layer by layer


@with_library
def test_the_census_lists_what_was_counted_and_what_the_paper_says():
    rows = {row.name: row for row in summarise_networks(measure=False)}
    assert {name: row.parameters for name, row in rows.items() if name in BASELINES} == BASELINES
    assert all(row.ms is None and row.gflop is not None and row.gflop > 10 for row in rows.values())
    text = table(list(rows.values()))
    assert "in the paper (A6000; not measured here)" in text
    assert "mobileunet: the paper says 6.0 M; the library's Unet with mobilenet_v2 has 6.629 M" in text
    line = next(line for line in text.splitlines() if line.startswith("dasnet"))
    assert line.split() == ["dasnet", "1,657,672", "81.1", "-", "1.66", "8.83", "0.6780", "0.7509"]


def test_times_are_printed_where_they_were_measured(monkeypatch: pytest.MonkeyPatch):
    assert 1e-3 < time_ms(nn.Conv2d(3, 5, 3), side=16, runs=2) < 1e4
    monkeypatch.setattr("model.summary.PAPER", {"thindyunet": PAPER["thindyunet"]})
    monkeypatch.setattr("model.summary.time_ms", lambda net: 12.34)
    (row,) = summarise_networks(measure=True)
    assert row == NetworkSummary("thindyunet", 1_341_385, row.gflop, 12.34, PAPER["thindyunet"])
    assert "12.3" in table([row])
