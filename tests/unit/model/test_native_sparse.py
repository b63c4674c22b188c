"""The native engine's sparse last stage: exact but for its statistics, and nearly the whole stage's masks."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.native import needs_native
from support.program import CLIPS
from torch import Tensor

from model import DASNet, Engine, build
from model.blocks import NEGATIVE_SLOPE, DynamicConvBlock, upsample
from model.checkpoint import Loaded, load
from model.engine.native import NativeBackend
from model.fused import folded_output, gated_skip, mixed_kernels
from model.metadata import BANDS, CLASSES, Metadata, Thresholds
from pipeline.capture.recordings import open_recording
from pipeline.checkpoints import checkpoint_path

pytestmark = needs_native
CELL_PX, TILE_PX = 16, 4  # model/native/sparse.h
SAMPLED, SAMPLE_SHIFT = 8, 3


@pytest.fixture(scope="module")
def network() -> DASNet:
    """Random, of three levels."""
    torch.manual_seed(5)
    made = build("dasnet", size=3, num_class=3).eval()
    assert isinstance(made, DASNet)
    return made


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Dark, with a bright spot each; as uint8 frames can hold."""
    torch.manual_seed(6)
    frames = torch.randint(0, 20, (2, 3, 96, 136))
    frames[0, :, 40:44, 70:74] = 255
    frames[1, :, 2:5, 2:5] = 255
    return frames.float() / 255


@torch.no_grad()
def before(net: DASNet, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the map before the last stage, the skip of it, and the head's logits."""
    maps = net.encoder(image)
    decoder, x = net.decoder, maps[-1]
    stages = list(zip(decoder.dy_blocks, decoder.attention_gates, maps[-2::-1], strict=True))
    for block, gate, skip in stages[:-1]:
        x = upsample(x, skip.shape[-2:])
        x = block(torch.cat([x, gate(x, skip)], dim=1))
    return x, maps[0], decoder.aux_heads[str(len(stages) - 2)](x)


@torch.no_grad()
def last_stage(net: DASNet, low: Tensor, skip: Tensor, counts: Tensor) -> Tensor:
    """Return the output by statistics in which each pixel counts as often as `counts` (H, W) says."""
    block, gate = net.decoder.dy_blocks[-1], net.decoder.attention_gates[-1]
    assert isinstance(block, DynamicConvBlock)
    x = torch.cat([upsample(low, skip.shape[-2:]), gated_skip(gate, low, skip.clone())], dim=1)
    y = F.conv2d(x, mixed_kernels(block, x.mean(dim=(2, 3)))[0], padding=1)
    grouped = y.double().unflatten(1, (block.gn.num_groups, -1))
    weights = (counts / counts.sum()).double()
    mean = (grouped.mean(dim=2) * weights).sum(dim=(2, 3))[:, :, None, None, None]
    variance = ((grouped - mean).square().mean(dim=2) * weights).sum(dim=(2, 3))[:, :, None, None, None]
    normed = ((grouped - mean) / (variance + block.gn.eps).sqrt()).flatten(1, 2).float()
    x = F.leaky_relu(normed * block.gn.weight[:, None, None] + block.gn.bias[:, None, None], NEGATIVE_SLOPE)
    weight, bias = folded_output(net.decoder.output)
    return F.conv2d(x, weight, bias, padding=1)


def enlarged(squares: Tensor, size: int, shape: torch.Size) -> Tensor:
    return squares.repeat_interleave(size, 0).repeat_interleave(size, 1)[: shape[-2], : shape[-1]]


def grown(mask: Tensor) -> Tensor:
    return F.max_pool2d(mask[None].float(), 3, 1, 1)[0] > 0


def counted(active: Tensor) -> Tensor:
    """Return how often each pixel counts: those of active tiles once, those of the sample for all others too."""
    tiles = F.max_pool2d(grown(active)[None].float(), TILE_PX, ceil_mode=True)[0] > 0
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in tiles.shape), indexing="ij")
    sample = enlarged((columns + SAMPLE_SHIFT * rows) % SAMPLED == 0, TILE_PX, active.shape)
    computed = enlarged(tiles, TILE_PX, active.shape)
    sample &= ~computed
    return computed + sample * ((~computed).sum() / sample.sum())


@pytest.mark.parametrize("threads", [1, 3])
def test_active_cells_are_what_the_statistics_make_of_them_and_elsewhere_the_head_s_logits_stand(
    network: DASNet, images: Tensor, threads: int
):
    parts = [before(network, image[None]) for image in images]
    limit = float(torch.cat([head.flatten() for _, _, head in parts]).quantile(0.999))
    engine = NativeBackend(network, "fp32", 8, threads, sparse_below=1 / (1 + math.exp(-limit)))
    try:
        for image, (low, skip, head) in zip([*images, images[0]], [*parts, parts[0]], strict=True):
            frame = np.ascontiguousarray((image * 255).round().byte().permute(1, 2, 0).numpy())
            made = torch.logit(torch.from_numpy(engine.submit(frame[None]).result()))
            hit = F.max_pool2d(head.amax(dim=1), CELL_PX // 2, ceil_mode=True)[0] > limit
            active = enlarged(grown(hit), CELL_PX, image.shape)
            assert 0 < active.float().mean() < 0.5
            wanted = last_stage(network, low, skip, counted(active))
            nearest = F.interpolate(head, scale_factor=2)
            expected = torch.where(active, wanted, nearest)
            assert float((made - expected).abs().max() / expected.abs().max()) < 1e-4
    finally:
        engine.close()


def test_without_a_target_the_head_s_probabilities_are_all_there_is(network: DASNet, images: Tensor):
    head = before(network, images[:1])[2]
    above = float(head.max()) + 1e-3
    frame = np.ascontiguousarray((images[0] * 255).round().byte().permute(1, 2, 0).numpy())
    engine = NativeBackend(network, "fp32", 8, 1, sparse_below=1 / (1 + math.exp(-above)))
    try:
        made = torch.from_numpy(engine.submit(frame[None]).result())
        assert torch.allclose(made, F.interpolate(head, scale_factor=2).sigmoid(), atol=1e-5)
        assert torch.allclose(engine.logits(images[:1]), network(images[:1]), atol=1e-3), (
            "logits are computed everywhere"
        )
    finally:
        engine.close()


def test_where_most_cells_are_active_all_of_the_stage_is_computed(network: DASNet, images: Tensor):
    frames = np.ascontiguousarray((images * 255).round().byte().permute(0, 2, 3, 1).numpy())
    sparse, whole = NativeBackend(network, "fp32", 8, 1, sparse_below=1e-9), NativeBackend(network, "fp32", 8, 1)
    try:
        assert np.array_equal(sparse.submit(frames).result(), whole.submit(frames).result())
    finally:
        sparse.close()
        whole.close()


def test_a_checkpoint_with_a_threshold_of_0_is_computed_everywhere(network: DASNet, images: Tensor):
    thresholds = {band: Thresholds(threshold=0.0) for band in BANDS}
    loaded = Loaded(network, Metadata(classes=CLASSES[:3], thresholds=thresholds), Path("network.safetensors"))
    frame = np.ascontiguousarray((images[0] * 255).round().byte().permute(1, 2, 0).numpy())
    whole = NativeBackend(network, "fp32", 8, 1)
    try:
        with Engine(loaded, device="cpu", kind="native", precision="fp32") as engine:
            made = engine.submit(frame[None]).result()
        assert np.allclose(made, whole.submit(frame[None]).result(), atol=1e-5)
    finally:
        whole.close()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_masks_of_real_frames_are_nearly_those_of_the_whole_stage(precision: str):
    loaded = load(checkpoint_path(None))
    thresholds = loaded.metadata.thresholds["infrared"].threshold
    assert isinstance(loaded.network, DASNet)
    same = either = 0
    with Engine(loaded, device="cpu", kind="native", precision=precision) as sparse:
        whole = NativeBackend(loaded.network, precision, loaded.network.multiple, None)
        for name in ("IR_DRONE_015", "IR_HELICOPTER_010"):
            recording = open_recording(CLIPS / f"{name}.mp4")
            frames = [decoded.pixels for decoded, _ in zip(recording.frames(), range(40), strict=False)][::10]
            recording.close()
            for pixels in frames:
                frame = np.stack([pixels] * 3, axis=2) if pixels.ndim == 2 else pixels
                masks = [one.submit(frame[None]).result()[0].max(axis=0) > thresholds for one in (sparse, whole)]
                same += int(np.count_nonzero(masks[0] & masks[1]))
                either += int(np.count_nonzero(masks[0] | masks[1]))
        whole.close()
    assert either > 100 and same >= 0.98 * either
