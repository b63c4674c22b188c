"""The CUDA engine without a GPU: real small networks on a device that runs late, in odd orders, and fails on demand.

What only a GPU can show is in test_gpu.py.
"""

import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.simulated_device import SimulatedDevice
from torch import nn

from model import build
from model.blocks import NEGATIVE_SLOPE, DynamicConvBlock
from model.cuda.backend import CudaBackend
from model.cuda.device import COMPUTE, COPY_IN, COPY_OUT
from model.cuda.fused import fastest_variant
from model.cuda.network import DynamicConvWeights
from model.cuda.plans import failure_of
from model.engine.backend import Backend, padded
from model.errors import ChoiceError, EngineError, EngineLost

MULTIPLE = 8
TIMEOUT_S = 30


def network(seed: int = 0, classes: int = 1) -> nn.Module:
    """With spread-out logits, so that masks have edges to get wrong."""
    torch.manual_seed(seed)
    net = build("dasnet", start_out_channels=16, size=3, num_class=classes).eval()
    for name, parameter in net.named_parameters():
        if name.endswith(("gn.weight", "gn.bias")):
            parameter.data.normal_(0.7, 0.5)
    return net


def random_frames(count: int, height: int = 32, width: int = 32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@torch.inference_mode()
def expected(net: nn.Module, frames: Any) -> Any:
    """Frame by frame, by the reference network."""
    maps = []
    for frame in frames:
        image = padded(torch.from_numpy(frame.copy())[None].permute(0, 3, 1, 2).float() / 255, MULTIPLE)
        maps.append(net(image)[:, :, : frame.shape[0], : frame.shape[1]].sigmoid())
    return torch.cat(maps).numpy()


def engine(net: nn.Module, device: SimulatedDevice | None = None, **options: Any) -> CudaBackend:
    options = {"precision": "fp32", "multiple": MULTIPLE, "sizes": (1, 2, 4)} | options
    return CudaBackend(net, device or SimulatedDevice(), **options)


def overlap_of_masks(a: Any, b: Any) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


# Exactness


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("inputs", [1, 2])
@torch.inference_mode()
def test_a_dynamic_convolution_is_the_original_function(batch, inputs):
    torch.manual_seed(batch)
    block = DynamicConvBlock(8 * inputs, 16).eval()
    block.gn.weight.data.normal_()
    block.gn.bias.data.normal_()
    block.attention[1].weight.data.mul_(60)  # far from an even mix
    parts = [torch.randn(batch, 8, 6, 10).to(memory_format=torch.channels_last) for _ in range(inputs)]
    weights = DynamicConvWeights(block, inputs, torch.float32)
    convolved = weights.convolve(parts)
    activated = weights.normalise_and_activate(convolved)
    for y in (convolved, activated):
        assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(activated, block(torch.cat(parts, dim=1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("level", [0.0, 3.0, 100.0])
@torch.inference_mode()
def test_norm_of_an_even_map_is_finite_and_right(level):
    weights = DynamicConvWeights(DynamicConvBlock(16, 16), 1, torch.float32)
    x = torch.full((2, 16, 9, 7), level).to(memory_format=torch.channels_last)
    want = F.leaky_relu(F.group_norm(x.double().contiguous(), 8), NEGATIVE_SLOPE).float()
    torch.testing.assert_close(weights.normalise_and_activate(x), want, atol=2e-2, rtol=0)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (3, 16, 40), (5, 8, 8), (6, 24, 32)])
def test_logits_are_the_references(batch, height, width):
    net = network(classes=2)
    x = torch.rand(batch, 3, height, width)
    with torch.inference_mode():
        want = net(x)
    backend = engine(net)
    backend.prepare(batch, height, width)
    assert (backend.logits(x) - want).abs().max() <= 1e-3
    backend.close()


@torch.inference_mode()
def test_norm_of_a_nearly_even_map_is_exact_in_float32():
    """Black and overcast frames: torch's own norm of a channels_last map loses three digits there on a processor."""
    torch.manual_seed(0)
    x = (20 + 1e-3 * torch.randn(1, 16, 64, 64)).to(memory_format=torch.channels_last)
    weights = DynamicConvWeights(DynamicConvBlock(16, 16), 1, torch.float32)
    want = F.leaky_relu(F.group_norm(x.double().contiguous(), 8), NEGATIVE_SLOPE)
    assert (weights.normalise_and_activate(x) - want).abs().max() <= 1e-3


def test_bfloat16_does_not_round_the_probabilities():
    backend = engine(network(), precision="bf16")
    maps = torch.from_numpy(backend.submit(random_frames(1)).result(TIMEOUT_S))
    assert (maps == maps.bfloat16().float()).float().mean() < 0.5
    backend.close()


def test_the_fastest_variant_that_this_device_supports_is_selected():
    def unsupported() -> None:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")

    times_s = {"slow": 2.0, "fast": 1.0}

    def timer(variant: Any) -> float:
        return times_s[variant()]

    assert fastest_variant({"grouped": unsupported, "slow": lambda: "slow", "fast": lambda: "fast"}, timer) == "fast"
    with pytest.raises(RuntimeError, match="NOT_SUPPORTED"):
        fastest_variant({"one": unsupported, "other": unsupported}, timer)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (29, 27), (5, 40), (3, 3)])
@pytest.mark.parametrize("count", [1, 2, 7, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4, 5, 6, 8, 9))])
def test_maps_are_the_modules_for_every_batch_and_size(count, height, width):
    net, frames = network(classes=2), random_frames(count, height, width)
    backend = engine(net)
    maps = backend.submit(frames).result(TIMEOUT_S)
    assert maps.dtype == np.float32 and maps.shape == (count, 2, height, width)
    np.testing.assert_allclose(maps, expected(net, frames), atol=1e-4)
    backend.close()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precisions_draw_the_same_masks(precision):
    net, frames = network(classes=2), random_frames(4)
    backend = engine(net, precision=precision)
    maps = backend.submit(frames).result(TIMEOUT_S)
    want = expected(net, frames)
    assert maps.dtype == np.float32
    bound = 0.01 if precision == "fp16" else 0.08
    assert abs(maps - want).max() < bound
    sure = abs(want - 0.5) > bound
    assert sure.mean() > 0.7 and overlap_of_masks((maps > 0.5) & sure, (want > 0.5) & sure) >= 0.99
    backend.close()


def test_threshold_on_the_device_is_the_threshold_of_the_object_map():
    backend = engine(network(classes=3), precision="fp16")
    frames = random_frames(5, 30, 26)
    maps = backend.submit(frames).result(TIMEOUT_S)
    for threshold in (0.0, 0.37, 0.5, float(maps.max())):
        masks = backend.submit(frames, threshold=threshold).result(TIMEOUT_S)
        assert masks.dtype == np.bool_ and masks.shape == (5, 30, 26)
        np.testing.assert_array_equal(masks, maps.max(axis=1) > threshold)
    backend.close()


def test_any_network_runs():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    frames = random_frames(3, 20, 20)
    for precision, bound in (("fp32", 1e-5), ("bf16", 0.02)):
        backend = engine(net, precision=precision)
        np.testing.assert_allclose(backend.submit(frames).result(TIMEOUT_S), expected(net, frames), atol=bound)
        backend.close()


def test_graph_and_launch_by_launch_agree():
    net, frames = network(), random_frames(3)
    with_graphs, without = engine(net), engine(net, graphs=False)
    np.testing.assert_array_equal(
        with_graphs.submit(frames).result(TIMEOUT_S), without.submit(frames).result(TIMEOUT_S)
    )
    with_graphs.close(), without.close()


def test_frames_as_numpy_hands_them_out():
    net, frames = network(), random_frames(6, 40, 40)
    backend = engine(net)
    views = [frames[::2, 4:36, :32], frames[:3, ::-1, :, ::-1]]
    frames.flags.writeable = False
    for view in (*views, frames):
        np.testing.assert_allclose(backend.submit(view).result(TIMEOUT_S), expected(net, view), atol=1e-4)
    backend.close()


def test_the_network_given_is_left_alone():
    net = network()
    before = {name: (tensor, tensor.clone()) for name, tensor in net.state_dict().items()}
    backend = engine(net, precision="fp16")
    backend.submit(random_frames(1)).result(TIMEOUT_S)
    backend.close()
    assert all(torch.equal(tensor, copy) and tensor.dtype == copy.dtype for tensor, copy in before.values())
    assert all(parameter.requires_grad for parameter in net.parameters())


# Order, overlap, buffers


def copies(device: SimulatedDevice, moment: str, stream: str) -> list[int]:
    """Where in the log."""
    return [at for at, entry in enumerate(device.log) if entry == (moment, stream, stream)]


def wait_for(condition: Any) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def warm(backend: CudaBackend, device: SimulatedDevice, count: int) -> None:
    """A plan for batches of `count`, and both slots grown: nothing is left to build, which waits for the device."""
    for _ in range(2):
        backend.submit(random_frames(count)).result(TIMEOUT_S)
    device.log.clear()


def test_a_second_batch_is_on_its_way_before_the_first_has_left_and_a_third_waits():
    net, device = network(), SimulatedDevice()
    backend = engine(net, device)
    warm(backend, device, 2)
    device.running.clear()
    batches = [random_frames(2, seed=seed) for seed in range(4)]
    futures = [backend.submit(batch) for batch in batches]
    wait_for(lambda: len(copies(device, "issued", COPY_OUT)) == 2)
    time.sleep(0.1)
    assert len(copies(device, "issued", COPY_IN)) == 2, "both slots are taken"
    assert not any(copies(device, "done", stream) for stream in (COPY_IN, COMPUTE, COPY_OUT))
    assert not any(future.done() for future in futures)
    device.running.set()
    for batch, future in zip(batches, futures, strict=True):
        np.testing.assert_allclose(future.result(TIMEOUT_S), expected(net, batch), atol=1e-4)
    issued_in, done_out = copies(device, "issued", COPY_IN), copies(device, "done", COPY_OUT)
    assert issued_in[1] < done_out[0], "copy-in of the second was issued before the first's copy-out was done"
    assert all(issued_in[n + 2] > done_out[n] for n in range(2)), "a slot's copy-in follows its last copy-out"
    backend.close()


def test_copies_have_streams_of_their_own():
    device = SimulatedDevice()
    backend = engine(network(), device)
    backend.submit(random_frames(1)).result(TIMEOUT_S)
    backend.close()
    streams = {label: stream for moment, stream, label in device.log if moment == "done"}
    assert {label: streams[label] for label in (COPY_IN, COMPUTE, COPY_OUT)} == {
        COPY_IN: COPY_IN,
        COMPUTE: COMPUTE,
        COPY_OUT: COPY_OUT,
    }


class Hasty(SimulatedDevice):
    """Forgets what streams wait for."""

    def wait(self, stream: str, event: Any) -> None:
        pass


def right_results(device: SimulatedDevice, rounds: int = 6) -> int:
    """Of `rounds` batches, all in flight as far as slots allow."""
    net = network()
    backend = engine(net, device)
    batches = [random_frames(1 + seed % 4, seed=seed) for seed in range(rounds)]
    futures = [backend.submit(batch) for batch in batches]
    right = 0
    for batch, future in zip(batches, futures, strict=True):
        error = future.exception(TIMEOUT_S)
        right += error is None and np.allclose(future.result(), expected(net, batch), atol=1e-4)
    backend.close()
    return right


@pytest.mark.parametrize("seed", range(8))
def test_no_order_that_the_events_allow_spoils_a_result(seed):
    assert right_results(SimulatedDevice(seed)) == 6


def test_a_forgotten_event_would_show_here():
    assert any(right_results(Hasty(seed)) < 6 for seed in range(16))


def test_a_buffer_used_twice_would_show_here():
    device = SimulatedDevice()
    backend = engine(network(), device)
    warm(backend, device, 2)
    backend._free.put(backend._buffers[0])  # handed out twice
    device.running.clear()
    futures = [backend.submit(random_frames(2, seed=seed)) for seed in range(3)]
    # A batch was refused: before it gives up its slot it waits for the device, without a copy of its own.
    wait_for(lambda: device.log.count(("issued", COPY_IN, "record")) > len(copies(device, "issued", COPY_IN)))
    device.running.set()
    assert any("the host uses a buffer" in str(future.exception(TIMEOUT_S)) for future in futures)
    backend.close()


def test_a_result_is_nobody_elses_memory():
    backend = engine(network())
    first = backend.submit(random_frames(2, seed=1)).result(TIMEOUT_S)
    kept = first.copy()
    for seed in range(4):
        backend.submit(random_frames(2, seed=seed)).result(TIMEOUT_S)[:] = 7
    np.testing.assert_array_equal(first, kept)
    assert first.flags.writeable
    backend.close()


@pytest.mark.slow
def test_eight_threads_get_their_own_results():
    net = network()
    backend = engine(net, SimulatedDevice(3), plans=4)
    sizes = [(16, 16), (24, 16), (13, 21)]
    batches = {
        (thread, turn): random_frames(1 + (thread + turn) % 5, *sizes[(thread * turn) % 3], seed=100 * thread + turn)
        for thread in range(8)
        for turn in range(20)
    }

    def submitter(thread: int) -> list[Any]:
        futures = [backend.submit(batches[thread, turn]) for turn in range(20)]
        return [future.result(TIMEOUT_S) for future in futures]

    with ThreadPoolExecutor(8) as threads:
        for thread, results in enumerate(threads.map(submitter, range(8))):
            for turn, maps in enumerate(results):
                np.testing.assert_allclose(maps, expected(net, batches[thread, turn]), atol=1e-4)
    backend.close()


def test_futures_are_resolved_in_the_order_of_submission():
    backend, order = engine(network()), []
    counts = [3, 1, 9, 2, 1, 7]
    futures = [backend.submit(random_frames(count)) for count in counts]
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: order.append(number))
    for future in futures:
        future.result(TIMEOUT_S)
    wait_for(lambda: len(order) == len(counts))
    assert order == sorted(order)
    backend.close()


# Plans


def test_batches_run_in_few_sizes_and_the_plans_are_bounded():
    device = SimulatedDevice()
    backend = engine(network(), device, plans=3)
    for count in (1, 3, 4, 2):
        backend.submit(random_frames(count, 16, 16)).result(TIMEOUT_S)
    assert backend._plans.shapes == [(1, 16, 16), (4, 16, 16), (2, 16, 16)]
    backend.submit(random_frames(1, 16, 16)).result(TIMEOUT_S)
    backend.submit(random_frames(1, 8, 8)).result(TIMEOUT_S)
    assert backend._plans.shapes == [(2, 16, 16), (1, 16, 16), (1, 8, 8)], "the least recently used went"
    backend.close()


def test_what_is_put_away_frees_its_memory():
    device = SimulatedDevice()
    backend = engine(network(), device, plans=2)
    held = []
    for side in range(8, 88, 8):
        backend.submit(random_frames(2, side, 16)).result(TIMEOUT_S)
        held.append(device.held_bytes)
    shapes = backend._plans.shapes
    assert len(shapes) == 2
    in_plans = sum(batch * height * width * (3 + 4) for batch, height, width in shapes)
    in_slots = 2 * 2 * 80 * 16 * (3 + 4)
    assert held[-1] <= in_plans + in_slots
    backend.close()
    assert device.held_bytes == 0


def test_filling_up_a_batch_changes_nothing():
    net = network()
    backend = engine(net, sizes=(1, 8))
    frames = random_frames(3)
    alone = np.concatenate([backend.submit(frames[i : i + 1]).result(TIMEOUT_S) for i in range(3)])
    np.testing.assert_allclose(backend.submit(frames).result(TIMEOUT_S), alone, atol=1e-5)
    backend.close()


# Failures


def test_a_batch_too_large_for_the_memory_is_done_in_halves_and_the_size_remembered():
    net = network()
    frame_bytes = 32 * 32 * (3 + 4)
    device = SimulatedDevice(memory_bytes=frame_bytes * (4 + 2 * 4 + 3))  # a plan for 4 and two slots for 4, not for 8
    backend = engine(net, device, sizes=(1, 2, 4, 8, 16))
    frames = random_frames(13)
    np.testing.assert_allclose(backend.submit(frames).result(TIMEOUT_S), expected(net, frames), atol=1e-4)
    assert backend.halvings == 2  # 16 -> 8 -> 4
    assert backend.submit(frames, threshold=0.5).result(TIMEOUT_S).shape == (13, 32, 32)
    assert backend.halvings == 2, "it remembers"
    small = frames[:5, :8, :8]
    np.testing.assert_allclose(backend.submit(small).result(TIMEOUT_S), expected(net, small), atol=1e-4)
    assert backend.halvings == 2, "small frames have a limit of their own"
    backend.close()
    assert device.held_bytes == 0


def test_a_single_frame_too_large_is_an_error_and_the_engine_goes_on():
    net = network()
    backend = engine(net, SimulatedDevice(memory_bytes=3 * 16 * 16 * (3 + 4)))
    with pytest.raises(EngineError, match=r"one frame of 96x64 does not fit .* must be smaller"):
        backend.submit(random_frames(4, 96, 64)).result(TIMEOUT_S)
    assert backend.halvings == 2
    frames = random_frames(1, 16, 16)
    np.testing.assert_allclose(backend.submit(frames).result(TIMEOUT_S), expected(net, frames), atol=1e-4)
    backend.close()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["warm up", "dry run", "capture", "compute", "copy in", "copy out"])
def test_memory_may_run_out_anywhere(moment):
    net, faults = network(), [2]

    def fault(when: str, label: str) -> None:
        if moment in (when, label.partition(" (")[0]) and when != "done" and faults[0]:
            faults[0] -= 1
            raise RuntimeError("CUDA error: out of memory")

    backend = engine(net, SimulatedDevice(fault=fault), graphs=moment != "compute")
    for seed in range(3):
        frames = random_frames(4, seed=seed)
        np.testing.assert_allclose(backend.submit(frames).result(TIMEOUT_S), expected(net, frames), atol=1e-4)
    assert backend.halvings == 2
    backend.close()


def test_logits_are_halved_too():
    net, faults = network(), [1]

    def fault(when: str, label: str) -> None:
        if (when, label) == ("issued", "logits") and faults[0]:
            faults[0] -= 1
            raise torch.OutOfMemoryError("none left")

    backend = engine(net, SimulatedDevice(fault=fault))
    x = torch.rand(7, 3, 16, 16)
    with torch.inference_mode():
        assert (backend.logits(x) - net(x)).abs().max() <= 1e-3
    assert backend.halvings == 1
    backend.close()


@pytest.mark.parametrize("label", ["copy in", "compute", "copy out"])
def test_a_lost_device_fails_what_is_in_flight_and_everything_after(label):
    broken = threading.Event()

    def fault(when: str, what: str) -> None:
        if broken.is_set() and (when, what) == ("done", label):
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    backend = engine(network(), SimulatedDevice(fault=fault))
    backend.submit(random_frames(2)).result(TIMEOUT_S)
    broken.set()
    futures: list[Future[Any]] = []
    with pytest.raises(
        EngineLost, match=r"device cpu is lost \(CUDA error: an illegal memory access was encountered\)"
    ):
        for _ in range(1000):
            futures.append(backend.submit(random_frames(2)))
            futures[-1].exception(TIMEOUT_S)
    assert futures and all(isinstance(future.exception(TIMEOUT_S), EngineLost) for future in futures)
    start = time.monotonic()
    for call in (lambda: backend.submit(random_frames(1)), lambda: backend.logits(torch.rand(1, 3, 8, 8))):
        with pytest.raises(EngineLost):
            call()
    backend.close()
    assert time.monotonic() - start < 1


def test_a_device_lost_with_batches_in_flight_resolves_all_of_them():
    device = SimulatedDevice()
    backend = engine(network(), device)
    warm(backend, device, 2)
    device.running.clear()
    futures = [backend.submit(random_frames(2)) for _ in range(7)]
    device._broken = RuntimeError("CUDA error: unspecified launch failure")
    device.running.set()
    assert all(isinstance(future.exception(TIMEOUT_S), EngineLost) for future in futures)
    backend.close()


@pytest.mark.parametrize("seed", range(6))
def test_another_error_costs_its_batch_only(seed):
    net, faults = network(), [0]

    def fault(when: str, label: str) -> None:
        if (when, label) == ("issued", "compute") and faults[0]:
            faults[0] -= 1
            raise RuntimeError("shapes do not match")

    device = SimulatedDevice(seed, fault=fault)
    backend = engine(net, device)
    warm(backend, device, 2)
    faults[0] = 1
    frames = random_frames(2)
    first, *others = [backend.submit(frames) for _ in range(4)]
    with pytest.raises(EngineError, match="RuntimeError: shapes do not match") as caught:
        first.result(TIMEOUT_S)
    assert not isinstance(caught.value, EngineLost)
    for future in others:  # one of them in the slot of the first, whose copy to the device was under way
        np.testing.assert_allclose(future.result(TIMEOUT_S), expected(net, frames), atol=1e-4)
    backend.close()


def test_what_an_error_means():
    def hidden() -> BaseException:
        try:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            finally:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        except RuntimeError as error:
            return error

    assert failure_of(torch.OutOfMemoryError("tried to allocate 20 GiB")) == "memory"
    assert failure_of(RuntimeError("CUDA error: out of memory")) == "memory"
    assert failure_of(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")) == "memory"
    assert failure_of(hidden()) == "memory"
    assert failure_of(RuntimeError("CUDA error: device-side assert triggered")) == "lost"
    assert failure_of(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")) == "lost"
    assert failure_of(RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")) == "other"
    assert failure_of(ValueError("3")) == "other"


# The end


def test_close_finishes_what_is_in_flight_cancels_the_rest_and_leaves_no_thread():
    net, device = network(), SimulatedDevice()
    before = threading.active_count()
    backend = engine(net, device)
    frames = random_frames(2)
    warm(backend, device, 2)
    device.running.clear()
    futures = [backend.submit(frames) for _ in range(8)]
    wait_for(lambda: len(copies(device, "issued", COPY_OUT)) == 2)
    threading.Timer(0.2, device.running.set).start()
    backend.close()
    backend.close()
    assert all(future.done() for future in futures)
    done = [future for future in futures if not future.cancelled()]
    assert 2 <= len(done) <= 3  # the third may have been waiting for a slot
    for future in done:
        np.testing.assert_allclose(future.result(), expected(net, frames), atol=1e-4)
    with pytest.raises(CancelledError):
        futures[-1].result()
    with pytest.raises(EngineError, match="submit after close"):
        backend.submit(frames)
    wait_for(lambda: threading.active_count() <= before)
    assert device.held_bytes == 0


def test_a_batch_cancelled_while_it_waits_is_not_run():
    device = SimulatedDevice()
    backend = engine(network(), device)
    warm(backend, device, 1)
    device.running.clear()
    futures = [backend.submit(random_frames(1)) for _ in range(5)]
    assert futures[-1].cancel()
    device.running.set()
    assert all(future.result(TIMEOUT_S) is not None for future in futures[:-1])
    backend.close()
    assert len(copies(device, "done", COPY_IN)) == 4


@pytest.mark.parametrize(
    "frames",
    [np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)],
)
def test_frames_of_another_kind_are_refused(frames):
    backend = engine(network())
    with pytest.raises(EngineError, match=r"frames of .*; must be uint8 \(N, H, W, 3\)"):
        backend.submit(frames)
    backend.close()


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ChoiceError, match="'int8'; must be one of fp16, bf16, fp32"):
        engine(network(), precision="int8")
    for sizes in ((), (2, 4), (1, 4, 2), (1, 1)):
        with pytest.raises(ChoiceError, match="must ascend from 1"):
            engine(network(), sizes=sizes)


def test_it_is_a_backend():
    backend: Backend = engine(network())
    assert (backend.kind, backend.device.type, backend.precision) == ("cuda", "cpu", "fp32")
    backend.close()
