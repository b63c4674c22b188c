"""The GPU's Triton kernels, run by Triton's interpreter (see conftest.py), against the operations of torch.

What only a GPU can show is in `test_gpu.py`.
"""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

pytest.importorskip("triton", reason="triton is made for Linux alone")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("there is a GPU: test_gpu.py runs the kernels on it", allow_module_level=True)

from model import build
from model.cuda.fused import TritonDASNet
from model.cuda.kernels import ChannelSums, Norm, kernel_attention, upsample_gate_concat

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # whose inverse is 0, as it should be
CHANNELS, GATE, GROUPS, EPS, SLOPE = 16, 8, 8, 1e-5, 0.01
SHAPES = [(1, 2, 2), (1, 8, 12), (3, 4, 6), (2, 26, 10), (2, 5, 3)]  # one block of pixels, several, parts of one; odd


def image(*shape: int, centre: float = 0.0) -> Tensor:
    return (torch.randn(*shape) * 3 + centre).contiguous(memory_format=torch.channels_last)


def average(sums: ChannelSums) -> Tensor:
    return sums.values.sum(dim=1) / sums.pixels


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("centre", [0.0, 50.0])  # far from zero a difference of squares loses its digits
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_activation_and_pooling(shape: tuple[int, int, int], centre: float, mixed: bool) -> None:
    count, height, width = shape
    norm = Norm(torch.randn(CHANNELS), torch.randn(CHANNELS), GROUPS, EPS, SLOPE)
    maps = image(count, 2 * CHANNELS if mixed else CHANNELS, height, width, centre=centre)
    mix = torch.rand(count, 1) if mixed else None
    x = maps if mix is None else maps[:, :CHANNELS] + mix[:, :, None, None] * maps[:, CHANNELS:]
    x = F.group_norm(x.double(), GROUPS, norm.gamma.double(), norm.beta.double(), EPS)
    want = F.leaky_relu(x, SLOPE).float()
    activated, pooled, sums = norm.pooled(maps, mix)
    for found in (norm(maps, mix), activated):
        torch.testing.assert_close(found, want, rtol=1e-5, atol=2e-4)
    torch.testing.assert_close(pooled, F.max_pool2d(activated, 2, ceil_mode=True), rtol=0, atol=0)
    torch.testing.assert_close(average(sums), pooled.mean(dim=(2, 3)), rtol=1e-5, atol=1e-5)


def test_an_even_map_has_no_variance() -> None:
    norm = Norm(torch.ones(CHANNELS), torch.zeros(CHANNELS), CHANNELS, EPS, SLOPE)
    maps = torch.full((1, CHANNELS, 20, 20), 1000.1).contiguous(memory_format=torch.channels_last)
    assert norm(maps, None).abs().max() < 0.05


@pytest.mark.parametrize("shape", SHAPES)
def test_upsampling_gating_and_concatenation(shape: tuple[int, int, int]) -> None:
    count, height, width = shape
    size = [2 * height, 2 * width]
    low, gating = image(count, CHANNELS, height, width), image(count, GATE, height, width)
    skip, local, psi = image(count, CHANNELS, *size), torch.randn(GATE, CHANNELS, 1, 1), torch.randn(1, GATE, 1, 1)
    up, up_gating = (F.interpolate(x, size=size, mode="bilinear", align_corners=True) for x in (low, gating))
    want = torch.cat([up, skip * torch.sigmoid(F.conv2d(F.relu(F.conv2d(skip, local) + up_gating), psi))], dim=1)
    found, sums = upsample_gate_concat(low, gating, skip, local, psi)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(average(sums), want.mean(dim=(2, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 70])
def test_kernel_attention(parts: int) -> None:
    sums = ChannelSums(torch.randn(3, parts, CHANNELS), 40)
    reduce, expand, bias = torch.randn(9, CHANNELS), torch.randn(1, 9), torch.randn(1)
    want = torch.sigmoid(F.linear(F.relu(F.linear(average(sums), reduce)), expand, bias))
    torch.testing.assert_close(kernel_attention(sums, reduce, expand, bias), want)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    net = build("dasnet", num_class=4, size=3, start_out_channels=32).eval()
    for name, parameter in net.named_parameters():
        if name.endswith(("gn.weight", "gn.bias")):
            parameter.data.normal_(0.7, 0.5)
    return net


@pytest.mark.parametrize("variant", ["per sample", "mixed after", "grouped"])
@torch.inference_mode()
def test_the_network_is_the_same_function_in_every_variant(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = small_network(), image(2, 3, 16, 24)
    fast = TritonDASNet(net, torch.device("cpu"), torch.float32)
    monkeypatch.setattr(fast, "_run_fastest", lambda step, variants: variants[variant]())
    found = fast(x)
    torch.testing.assert_close(found, net.double()(x.double()).float(), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_variants_that_were_fastest_are_kept_and_run() -> None:
    net, x = small_network(), image(2, 3, 16, 24)
    fast = TritonDASNet(net, torch.device("cpu"), torch.float32)
    calls = iter(range(1000))
    with fast.autotuning(lambda work: -float(next(calls))):  # the last is always the fastest
        fast(x)
    assert set(fast.fastest.values()) == {"grouped"}
    torch.testing.assert_close(fast(x), net.double()(x.double()).float(), rtol=0, atol=1e-5)
    used = next(calls)
    fast(x)
    assert next(calls) == used + 1
