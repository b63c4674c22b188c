"""Every engine gives what the readable module gives, on real frames with the shipped weights."""

import copy

import av
import numpy as np
import pytest
import torch
from support.native import needs_native
from support.program import CLIPS

from model import Engine, load
from pipeline.checkpoints import SHIPPED

NAMES = ("IR_DRONE_015", "IR_BIRD_003", "IR_HELICOPTER_010")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    pictures = []
    for name in NAMES:
        with av.open(str(CLIPS / f"{name}.mp4")) as video:
            frame = next(frame for number, frame in enumerate(video.decode(video=0)) if number == 30)
            pictures.append(frame.to_ndarray(format="rgb24"))
    return np.stack(pictures)


@pytest.fixture(scope="module")
def reference(frames: np.ndarray) -> np.ndarray:
    with Engine(SHIPPED, device="cpu", kind="reference", precision="fp32") as engine:
        return engine.submit(frames).result()


@pytest.mark.parametrize(
    ("kind", "precision", "share", "px"),
    [
        ("torch", "fp32", 0.0, 0),
        ("torch", "bf16", 0.03, 1),
        pytest.param("native", "fp32", 0.01, 1, marks=needs_native),  # its last stage is sparse
        pytest.param("native", "bf16", 0.03, 1, marks=needs_native),
    ],
)
def test_masks_agree_with_the_modules(
    frames: np.ndarray, reference: np.ndarray, kind: str, precision: str, share: float, px: int
):
    """But for a share of the pixels in either, or single pixels: a target may have twenty."""
    with Engine(SHIPPED, device="cpu", kind=kind, precision=precision) as engine:
        maps = engine.submit(frames).result()
    seen = 0
    for ours, theirs in zip(maps.max(axis=1) > 0.5, reference.max(axis=1) > 0.5, strict=True):
        seen += theirs.any()
        assert (ours ^ theirs).sum() <= max(px, share * (ours | theirs).sum())
    assert seen >= 2  # or the test could not fail


@pytest.mark.parametrize(
    "shape", [(2, 3, 128, 256), pytest.param((1, 3, 512, 256), marks=pytest.mark.slow)], ids=["small", "large"]
)
def test_logits_of_the_rewrite_are_exact_on_fresh_inputs(shape: tuple[int, ...]):
    """Against float64; a large map's norm is summed in strips."""
    loaded = load(SHIPPED)
    batch = torch.rand(shape)
    with Engine(loaded, device="cpu", kind="torch", precision="fp32") as engine, torch.inference_mode():
        difference = (engine.logits(batch) - copy.deepcopy(loaded.network).double()(batch.double())).abs().max()
    assert difference <= 3e-4


@pytest.fixture(scope="module")
def exact_logits() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs (noise, uniform ones, a ramp), and their logits in float64."""
    ramp = torch.linspace(0, 1, 256).expand(1, 3, 128, 256)
    images = (torch.rand(1, 3, 128, 384), torch.full((1, 3, 128, 128), 0.5), torch.zeros(1, 3, 256, 256), ramp)
    network = load(SHIPPED).network.double()
    with torch.inference_mode():
        return [(image, network(image.double())) for image in images]


@needs_native
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("bf16", 0.6)])
def test_logits_of_the_native_engine_with_the_shipped_weights(
    exact_logits: list[tuple[torch.Tensor, torch.Tensor]], precision: str, bound: float
):
    with Engine(SHIPPED, device="cpu", kind="native", precision=precision) as engine:
        for image, exact in exact_logits:
            assert (engine.logits(image) - exact).abs().max() <= bound


def test_logits_are_exact_where_a_picture_is_even():
    """Fog, a clear sky: the norm's variance is then a small difference of large numbers.

    Torch sums channels_last maps one number after the other, which on equal numbers rounds the same way each time.
    """
    loaded = load(SHIPPED)
    batch = torch.full((1, 3, 256, 256), 0.5)
    with Engine(loaded, device="cpu", kind="torch", precision="fp32") as engine:
        got = engine.logits(batch)
    with torch.inference_mode():
        exact = copy.deepcopy(loaded.network).double()(batch.double())
    assert (got - exact).abs().max() <= 1e-3


def test_batches_in_flight_come_back_in_order_from_several_threads(frames: np.ndarray, reference: np.ndarray):
    with Engine(SHIPPED, device="cpu", kind="torch", precision="fp32") as engine:
        futures = [engine.submit(frames[index : index + 1]) for index in (0, 1, 2, 0)]
        for future, index in zip(futures, (0, 1, 2, 0), strict=True):
            np.testing.assert_allclose(future.result()[0], reference[index], atol=1e-3)
