"""The network is the original's: its parameters, its keys, its function."""

import copy
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model import DASNet, Engine, build
from model.errors import EngineError, ModelError
from model.fused import FusedDASNet

Array = NDArray[np.float64]


def expected_keys(size: int = 7) -> set[str]:
    block = ("attention.1.weight", "attention.3.weight", "attention.3.bias", "weights", "gn.weight", "gn.bias")
    keys = {f"encoder.encoder_layers.{2 * level}.{part}" for level in range(size + 1) for part in block}
    keys |= {f"decoder.dy_blocks.{stage}.{part}" for stage in range(size) for part in block}
    gates = ("W_g.weight", "W_x.weight", "psi.0.weight")
    keys |= {f"decoder.attention_gates.{stage}.{part}" for stage in range(size) for part in gates}
    keys |= {f"decoder.aux_heads.{stage}.{part}" for stage in (4, 5, 6) for part in ("weight", "bias")}
    return keys | {f"decoder.output.output_block.{layer}.{part}" for layer in (0, 1) for part in ("weight", "bias")}


def test_parameters_and_keys_are_the_originals():
    net = build("dasnet", num_class=1)
    assert sum(parameter.numel() for parameter in net.parameters()) == 1_657_672
    assert set(net.state_dict()) == expected_keys()
    assert net.state_dict()["encoder.encoder_layers.0.weights"].shape == (2, 64, 3, 3, 3)
    assert net.state_dict()["encoder.encoder_layers.2.attention.1.weight"].shape == (17, 64, 1, 1)


# An independent implementation in float64, written from the description, without torch's layers.


def conv(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """(C, H, W) with (O, C, k, k), same size."""
    k = kernel.shape[-1]
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    height, width = x.shape[1:]
    out = np.zeros((len(kernel), height, width))
    for dy in range(k):
        for dx in range(k):
            out += np.einsum("oc,chw->ohw", kernel[:, :, dy, dx], padded[:, dy : dy + height, dx : dx + width])
    return out if bias is None else out + bias[:, None, None]


def dynamic(x: Array, w: dict[str, Array], prefix: str) -> Array:
    pooled = x.mean(axis=(1, 2))
    hidden = np.maximum(w[f"{prefix}.attention.1.weight"][:, :, 0, 0] @ pooled, 0)
    scores = w[f"{prefix}.attention.3.weight"][:, :, 0, 0] @ hidden + w[f"{prefix}.attention.3.bias"]
    mixing = np.exp(scores / 30) / np.exp(scores / 30).sum()
    y = conv(x, np.tensordot(mixing, w[f"{prefix}.weights"], axes=1))
    groups = y.reshape(8, -1)
    normal = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + 1e-5)
    y = normal.reshape(y.shape) * w[f"{prefix}.gn.weight"][:, None, None] + w[f"{prefix}.gn.bias"][:, None, None]
    return np.where(y > 0, y, 0.01 * y)


def enlarged(x: Array, height: int, width: int) -> Array:
    """Bilinear, corners aligned."""

    def axis_matrix(n: int, large: int) -> Array:
        matrix = np.zeros((large, n))
        for i in range(large):
            position = i * (n - 1) / max(1, large - 1)
            low = min(math.floor(position), n - 1)
            high = min(low + 1, n - 1)
            matrix[i, low] += 1 - (position - low)
            matrix[i, high] += position - low
        return matrix

    return np.einsum("yh,chw,xw->cyx", axis_matrix(x.shape[1], height), x, axis_matrix(x.shape[2], width))


def naive(image: Array, w: dict[str, Array], size: int) -> Array:
    x, skips = image, []
    for level in range(size + 1):
        x = dynamic(x, w, f"encoder.encoder_layers.{2 * level}")
        if level < size:
            skips.append(x)
            channels, height, width = x.shape
            even = ((0, 0), (0, height % 2), (0, width % 2))
            x = np.pad(x, even, constant_values=-np.inf)
            x = x.reshape(channels, (height + 1) // 2, 2, (width + 1) // 2, 2).max(axis=(2, 4))
    for stage in range(size):
        skip = skips.pop()
        x = enlarged(x, *skip.shape[1:])
        gate = f"decoder.attention_gates.{stage}"
        summed = np.maximum(conv(x, w[f"{gate}.W_g.weight"]) + conv(skip, w[f"{gate}.W_x.weight"]), 0)
        weight = 1 / (1 + np.exp(-conv(summed, w[f"{gate}.psi.0.weight"])))
        x = dynamic(np.concatenate([x, skip * weight]), w, f"decoder.dy_blocks.{stage}")
    block = "decoder.output.output_block"
    x = conv(x, w[f"{block}.0.weight"], w[f"{block}.0.bias"])
    return conv(x, w[f"{block}.1.weight"], w[f"{block}.1.bias"])


def randomised(net: torch.nn.Module) -> torch.nn.Module:
    """Every parameter away from its neutral value, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.3 if ".gn." in name or "bias" in name else 0.05))
    return net.eval()


@pytest.fixture(scope="module")
def net() -> DASNet:
    torch.manual_seed(3)
    network = randomised(build("dasnet", num_class=3, start_out_channels=16, size=4))
    assert isinstance(network, DASNet)
    return network


# Of 7 levels, those below the fifth have odd sides here: they are halved upwards.
@pytest.mark.parametrize(("size", "sides"), [(4, (32, 48)), (7, (32, 96)), (7, (160, 64)), (7, (128, 128))])
def test_forward_equals_an_independent_implementation(size: int, sides: tuple[int, int]):
    torch.manual_seed(3)
    net = randomised(DASNet(num_class=3, start_out_channels=16, size=size)).double()
    image = torch.rand(2, 3, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    expected = np.stack([naive(sample, weights, size) for sample in image.numpy()])
    with torch.inference_mode():
        np.testing.assert_allclose(net(image).numpy(), expected, atol=1e-10)


@pytest.mark.parametrize(("size", "shape"), [(4, (1, 64, 64)), (4, (3, 32, 80)), (7, (2, 96, 160))])
def test_the_rewrite_is_exact(size: int, shape: tuple[int, int, int]):
    torch.manual_seed(3)
    net = randomised(DASNet(num_class=3, start_out_channels=16, size=size))
    image = torch.rand(shape[0], 3, *shape[1:], generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        difference = (FusedDASNet(net).eval()(image) - copy.deepcopy(net).double()(image.double())).abs().max()
    assert difference < 1e-4


def test_training_returns_three_auxiliary_maps_and_the_rewrite_has_the_same_gradients(net: DASNet):
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    gradients = []
    for module in (net.train(), FusedDASNet(net).train()):
        net.zero_grad()
        logits, auxiliary = module(image)
        assert [aux.shape for aux in auxiliary] == [logits.shape] * 3
        (logits.square().mean() + sum(aux.square().mean() for aux in auxiliary)).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in net.named_parameters()})
    net.eval()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradients[1][name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_wrong_sizes_and_names_are_explained(net: DASNet):
    with pytest.raises(ValueError, match=r"input of 30x32.*multiples of 16; pad to 32x32"):
        net(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ModelError, match=r"network 'dasnett'; must be one of .*dasnet"):
        build("dasnett")
    with pytest.raises(ModelError, match="num_clas"):
        build("dasnet", num_clas=2)


@pytest.mark.parametrize("kind", ["torch", "reference", "module"])
def test_engine_pads_any_size_and_gives_the_modules_probabilities(net: DASNet, kind: str):
    frames = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), np.uint8)
    with Engine(net, kind=kind, device="cpu", precision="fp32") as engine:
        assert engine.name == f"{'reference' if kind == 'module' else kind}-cpu-fp32"  # "module" is an alias
        maps = engine.submit(frames).result()
        assert maps.shape == (2, 3, 50, 70)
        image = np.pad(frames, ((0, 0), (0, 14), (0, 10), (0, 0)), mode="reflect").transpose(0, 3, 1, 2) / np.float32(
            255
        )
        logits = engine.logits(image.astype(np.float32))
    with torch.inference_mode():
        expected = net(torch.from_numpy(image.astype(np.float32)))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(maps, expected.sigmoid().numpy()[:, :, :50, :70], atol=1e-4)


def test_engine_refuses_what_it_cannot_run(net: DASNet):
    for arguments, text in (
        ({"kind": "tensorrtx"}, "engine 'tensorrtx'; must be one of auto"),
        ({"device": "tpu"}, "device 'tpu'; must be one of auto, cpu, cuda"),
        ({"precision": "int4"}, "precision 'int4'; must be one of auto, fp32"),
    ):
        with pytest.raises(EngineError, match=text):
            Engine(net, **arguments)
    with Engine(net, device="cpu") as engine, pytest.raises(EngineError, match=r"frames of float64 \(1, 8, 8, 3\)"):
        engine.submit(np.zeros((1, 8, 8, 3)))  # type: ignore[arg-type]
