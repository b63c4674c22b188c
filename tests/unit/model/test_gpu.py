"""What only a GPU can show of the CUDA engine: `pytest -m gpu tests/unit/model`.  Skipped where there is none."""

import copy
import gc
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model import build, load
from model.cuda.backend import BATCH_SIZES, CudaBackend
from model.cuda.device import COMPUTE, COPY_IN, COPY_OUT, CudaDevice
from model.cuda.fused import TritonDASNet
from model.cuda.network import CudaDASNet
from model.engine.backend import padded
from model.export.onnx import run_export

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
GPU = torch.device("cuda")
WEIGHTS = Path(__file__).parents[3] / "model" / "weights" / "dasnet.safetensors"
TIMEOUT_S = 300
Frames = Any


def network(classes: int = 1, seed: int = 0, **arguments: Any) -> nn.Module:
    """With spread-out logits, so that masks have edges to get wrong."""
    torch.manual_seed(seed)
    net = build("dasnet", num_class=classes, **arguments).eval()
    for name, parameter in net.named_parameters():
        if name.endswith(("gn.weight", "gn.bias")):
            parameter.data.normal_(0.7, 0.5)
    return net


def pictures(count: int, height: int = 256, width: int = 256) -> Frames:
    """Fresh noise, even pictures, ramps, stripes, and small dark targets on a noisy sky, in turn."""
    random = np.random.default_rng()
    rows, columns = np.mgrid[:height, :width]
    made = []
    for number in range(count):
        noise = random.normal(0, 1, (height, width, 3))
        target = np.zeros((height, width), bool)
        for _ in range(8):
            distance = np.hypot(rows - random.integers(height), columns - random.integers(width))
            target |= distance < random.integers(2, 8)
        made.append(
            (
                127 + 60 * noise,
                np.full((height, width, 3), random.integers(256)),
                np.repeat((255 * columns / width)[:, :, None], 3, axis=2),
                np.repeat((255 * ((rows // 7 + columns // 5) % 2))[:, :, None], 3, axis=2),
                190 - 40 * rows[:, :, None] / height + 3 * noise - 110 * target[:, :, None],
            )[number % 5]
        )
    return np.clip(np.stack(made), 0, 255).astype(np.uint8)


def images(frames: Frames) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def module_logits(net: nn.Module, x: Tensor) -> Tensor:
    """The reference network in float32, TF32 off, frame by frame on the GPU."""
    reference = copy.deepcopy(net).to(GPU)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return torch.cat([reference(frame.to(GPU)).cpu() for frame in x.split(1)])


def module_maps(net: nn.Module, frames: Frames, multiple: int) -> Any:
    height, width = frames.shape[1:3]
    return module_logits(net, padded(images(frames), multiple))[:, :, :height, :width].sigmoid().numpy()


def iou(maps: Any, want: Any) -> float:
    """Of the masks at one half."""
    a, b = maps > 0.5, want > 0.5
    assert b.any()
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture
def engine() -> Any:
    """Closed, and its memory given back, at the end."""
    made: list[CudaBackend] = []

    def make(net: nn.Module, device: Any = "cuda", **options: Any) -> CudaBackend:
        made.append(CudaBackend(net, device, **({"multiple": net.multiple} | options)))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
    made.clear()
    gc.collect()
    torch.cuda.empty_cache()


# Exactness


@pytest.mark.parametrize("tune", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_float32_is_the_reference(engine, batch, tune):
    net = network(classes=4)
    x = torch.cat([images(pictures(batch - batch // 2)), torch.rand(batch // 2, 3, 256, 256)])
    backend = engine(net, precision="fp32", tune=tune, sizes=(1, 3, 8))
    backend.prepare(batch, 256, 256)
    want = module_logits(net, x)
    assert (backend.logits(x) - want).abs().max() <= 1e-3


@pytest.mark.parametrize("size", [(512, 512), (256, 320), (200, 333)])
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.9999), ("fp16", 0.99), ("bf16", 0.9)])
def test_masks_of_the_shipped_network_agree(engine, precision, least, size):
    net: Any = load(WEIGHTS).network
    frames = pictures(30, *size)
    maps = engine(net, precision=precision).submit(frames).result(TIMEOUT_S)
    want = module_maps(net, frames, net.multiple)
    assert maps.shape == want.shape and np.isfinite(maps).all()
    assert iou(maps, want) >= least
    if precision == "fp32":
        np.testing.assert_allclose(maps, want, atol=1e-3)


@pytest.mark.parametrize("count", [*BATCH_SIZES, 3, 5, 9, 17, 33, 70])
def test_every_batch_size(engine, count):
    net = network(size=5)
    frames = pictures(count, 96, 128)
    backend = engine(net)
    maps = backend.submit(frames).result(TIMEOUT_S)
    assert abs(maps - module_maps(net, frames, net.multiple)).max() < 0.02
    masks = backend.submit(frames, threshold=0.5).result(TIMEOUT_S)
    np.testing.assert_array_equal(masks, maps.max(axis=1) > 0.5)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_every_variant_is_the_same_function_in_half_precision(batch: int):
    """Each variant forced in turn, against the reference network."""
    net = network(size=5)
    frames = pictures(batch, 128, 128)
    want = module_logits(net, images(frames))
    x = images(frames).to(GPU, torch.float16).contiguous(memory_format=torch.channels_last)
    prepared: Any = TritonDASNet(net, GPU, torch.float16)
    names: set[str] = set()
    first = prepared._run_fastest
    prepared._run_fastest = lambda step, variants: names.update(variants) or first(step, variants)
    with torch.inference_mode():
        prepared(x)
        assert names == {"per sample", "mixed after", *(["grouped"] if batch > 1 else [])}
        for name in sorted(names):
            prepared._run_fastest = lambda step, variants, name=name: variants[name]()
            error = (prepared(x).float().cpu() - want).abs().max() / want.abs().max()
            assert error < 0.02, name


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_torchs_operations_compute_the_same_function_in_half_precision(batch: int):
    net = network(size=5)
    frames = pictures(batch, 128, 128)
    want = module_logits(net, images(frames))
    x = images(frames).to(GPU, torch.float16).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        logits = CudaDASNet(net, GPU, torch.float16)(x).float().cpu()
    assert (logits - want).abs().max() / want.abs().max() < 0.02


def test_the_kernels_are_used_where_they_can_be(engine):
    assert isinstance(engine(network())._network, TritonDASNet)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_replays_what_was_launched_eagerly(engine, precision):
    net = network(size=5)
    with_graphs, without = (engine(net, precision=precision, graphs=graphs, tune=False) for graphs in (True, False))
    for count in (1, 4, 2, 4, 1, 8):  # back and forth: graphs share one pool
        frames = pictures(count, 160, 128)
        a, b = (backend.submit(frames).result(TIMEOUT_S) for backend in (with_graphs, without))
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_graphs_of_many_shapes_do_not_spoil_each_other(engine):
    net = network(size=5)
    backend = engine(net, plans=4)
    batches = [pictures(1 + turn % 5, 64 + 32 * (turn % 3), 64) for turn in range(30)]
    futures = [backend.submit(frames) for frames in batches]
    for frames, future in zip(batches, futures, strict=True):
        maps = future.result(TIMEOUT_S)
        assert abs(maps - module_maps(net, frames, net.multiple)).max() < 0.1
    assert len(backend._plans.shapes) == 4


def test_eight_threads_get_their_own_results(engine):
    net = network(size=5)
    backend = engine(net)

    def submitter(_: int) -> float:
        batches = [pictures(1 + turn % 5, 64, 96) for turn in range(20)]
        futures = [backend.submit(frames) for frames in batches]
        results = [future.result(TIMEOUT_S) for future in futures]
        pairs = zip(batches, results, strict=True)
        return max(abs(maps - module_maps(net, frames, net.multiple)).max() for frames, maps in pairs)

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(submitter, range(8))) < 0.1


# Time and memory


class TimedDevice(CudaDevice):
    """Times every launch on its stream; spans(): (start, end) in ms of those on a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[tuple[str, Any, Any]] = []
        self.origin = torch.cuda.Event(enable_timing=True)
        self.origin.record()

    def launch(self, stream: str, label: str, work: Callable[[], object], *buffers: Tensor) -> None:
        def timed() -> None:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            self.launches.append((stream, start, end))

        super().launch(stream, label, timed, *buffers)

    def spans(self, stream: str) -> list[tuple[float, float]]:
        self.synchronize()
        measured = [(start, end) for name, start, end in self.launches if name == stream]
        return [(self.origin.elapsed_time(start), self.origin.elapsed_time(end)) for start, end in measured]


def test_copies_overlap_the_computation_of_another_batch(engine):
    device = TimedDevice()
    backend = engine(network(), device)
    batches = [pictures(32, 512, 512) for _ in range(2)]
    for frames in batches * 2:  # plan built, both slots grown
        backend.submit(frames).result(TIMEOUT_S)
    device.synchronize()
    device.launches.clear()
    futures = [backend.submit(batches[turn % 2]) for turn in range(8)]
    for future in futures:
        future.result(TIMEOUT_S)
    arriving, computing, leaving = (device.spans(stream) for stream in (COPY_IN, COMPUTE, COPY_OUT))
    assert len(arriving) == len(computing) == len(leaving) == 8
    for n in range(8):
        assert arriving[n][1] <= computing[n][0] + 1e-3 and computing[n][1] <= leaving[n][0] + 1e-3
    beside = [min(arriving[n + 1][1], computing[n][1]) - max(arriving[n + 1][0], computing[n][0]) for n in range(7)]
    assert sum(overlap_ms > 0 for overlap_ms in beside) >= 5, beside


def test_a_batch_beyond_the_memory_is_done_in_parts(engine):
    net = network()
    frames = pictures(32, 512, 512)
    small = engine(net, sizes=(1, 2, 4), tune=False)
    torch.cuda.reset_peak_memory_stats()
    want = small.submit(frames).result(TIMEOUT_S)
    peak_bytes = torch.cuda.max_memory_reserved()
    small.close()
    gc.collect()
    torch.cuda.empty_cache()
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.6 * peak_bytes / total_bytes))
    try:
        backend = engine(net, tune=False)
        maps = backend.submit(frames).result(TIMEOUT_S)
        halvings = backend.halvings
        assert halvings >= 1
        backend.submit(frames).result(TIMEOUT_S)
        assert backend.halvings == halvings, "it remembers the size"
        backend.close()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert abs(maps - want).max() < 0.02


def test_plans_put_away_free_their_memory(engine):
    backend = engine(network(size=5), plans=2, tune=False)
    held = []
    for side in range(64, 64 + 32 * 12, 32):
        backend.submit(pictures(2, 64, side)).result(TIMEOUT_S)
        held.append(torch.cuda.memory_allocated())
    assert held[-1] < held[2] + 64 * 2**20
    backend.close()
    assert backend._plans.shapes == []


def test_a_tensorrt_plan_computes_the_networks_probabilities(tmp_path: Path):
    pytest.importorskip("tensorrt")
    plan = tmp_path / "dasnet.plan"
    assert run_export(WEIGHTS, plan, say=lambda _: None) <= 0.05
    assert plan.stat().st_size > 1e6


def test_a_lost_device_is_recognised():
    """In a process of its own: an error in a kernel ends its use of the device."""
    program = """
import numpy as np, torch
from model import build, load
from model.cuda.backend import CudaBackend
from model.cuda.device import COMPUTE
from model.errors import EngineLost
backend = CudaBackend(build("dasnet", size=3, start_out_channels=16).eval(), multiple=8)
frames = np.zeros((1, 64, 64, 3), np.uint8)
backend.submit(frames).result(120)
far = torch.tensor([10**9], device="cuda")
backend._device.launch(COMPUTE, "bad", lambda: torch.zeros(8, device="cuda")[far])
try:
    for _ in range(5):
        backend.submit(frames).result(120)
except EngineLost as error:
    print("LOST", error)
try:
    backend.submit(frames)
except EngineLost:
    print("AND STAYS LOST")
backend.close()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert "LOST device cuda:0 is lost" in ran.stdout and "AND STAYS LOST" in ran.stdout, ran.stdout + ran.stderr
