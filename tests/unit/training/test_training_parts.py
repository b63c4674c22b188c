"""What the loop is made of: losses, schedules, averaging, samples; the original's files; the command line."""

import copy
import csv
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from support.program import REPOSITORY, dasnet_in_process, in_process, script_in_process

from model import build
from model.checkpoint import load
from model.metadata import Preprocessing
from model.preprocess import prepare
from pipeline.errors import ConfigError
from training.averaging import ema_update
from training.cache import cache_frames, every_nth
from training.config import Cosine, EarlyStopping, Optimizer, load_config, parse_config
from training.datasets import open_dataset
from training.losses import LOSSES, part_names, segmentation_loss
from training.optimisation import ValidationProgress, build_optimizer, learning_rate
from training.samples import WholeSamples, all_frames, batches, drawn, steps_per_epoch, stretched
from training.train import main
from training.validation import iou

CLIPS = REPOSITORY / "tests" / "data"
TINY = REPOSITORY / "configs" / "training" / "tiny.yaml"

# --- losses ---


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (2, 1, 8, 8), labels and targets: an object in the first image, nothing in the second."""
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[0, 2:5, 3:7] = 1
    return logits, labels, (labels[:, None] == 1).float()


def test_dice_and_jaccard_are_those_of_the_books() -> None:
    logits, labels, target = example()
    p = logits.sigmoid()
    shared = [float((p[i] * target[i]).sum()) for i in range(2)]
    areas = [float(p[i].sum() + target[i].sum()) for i in range(2)]
    dice = sum(1 - (2 * s + 1) / (a + 1) for s, a in zip(shared, areas, strict=True)) / 2
    jaccard = sum(1 - (s + 1) / (a - s + 1) for s, a in zip(shared, areas, strict=True)) / 2
    assert float(segmentation_loss("dice", logits, [], labels).total) == pytest.approx(dice, rel=1e-5)
    assert float(segmentation_loss("jaccard", logits, [], labels).total) == pytest.approx(jaccard, rel=1e-5)


def test_compound_is_the_sum_of_its_parts() -> None:
    logits, labels, target = example()
    p = torch.where(target > 0, logits.sigmoid(), 1 - logits.sigmoid())
    focal = float((-0.25 * (1 - p) ** 2 * p.log()).mean())
    bce = float(F.binary_cross_entropy(logits.sigmoid(), target))
    loss = segmentation_loss("compound", logits, [], labels)
    dice = float(segmentation_loss("dice", logits, [], labels).total)
    assert float(loss.parts["focal"]) == pytest.approx(focal, rel=1e-4)
    assert float(segmentation_loss("bce", logits, [], labels).total) == pytest.approx(bce, rel=1e-5)
    assert float(loss.total) == pytest.approx(bce + dice + focal, rel=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_falls_towards_the_truth_and_splits_over_a_batch(kind: str) -> None:
    logits, labels, target = example()
    right = (target * 2 - 1) * 12
    assert float(segmentation_loss(kind, right, [], labels).total) < 0.02
    assert float(segmentation_loss(kind, -right, [], labels).total) > 0.5
    whole = segmentation_loss(kind, logits, [], labels).total
    halves = [segmentation_loss(kind, logits[i : i + 1], [], labels[i : i + 1]).total for i in range(2)]
    assert float(whole) == pytest.approx(float(sum(halves)) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
def test_an_empty_image_has_a_finite_loss_that_silences(kind: str) -> None:
    logits = torch.full((1, 1, 8, 8), -1.0, requires_grad=True)
    loss = segmentation_loss(kind, logits, [], torch.zeros(1, 8, 8, dtype=torch.uint8)).total
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert logits.grad is not None and bool((logits.grad > 0).all())  # a step down the gradient lowers each pixel


@pytest.mark.parametrize(("kind", "weight"), [("dice", 0.8), ("field", 0.4)])
def test_auxiliary_heads_weigh_0_4_each_and_in_the_field_loss_together(kind: str, weight: float) -> None:
    logits, labels, _ = example()
    alone = float(segmentation_loss(kind, logits, [], labels).total)
    loss = segmentation_loss(kind, logits, [logits, logits], labels)
    assert float(loss.total) == pytest.approx(alone * (1 + weight), rel=1e-5)
    assert list(loss.parts) == part_names(kind, logits.shape[1])


def test_iou_is_the_originals_mean_over_images() -> None:
    _, labels, target = example()
    found = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    found[0, 0, 2:5, 3:5] = True  # 6 of 12 pixels
    assert float(iou(found, labels)) == pytest.approx((0.5 + 1) / 2)  # nothing where nothing is: right
    assert float(iou(target > 0, labels)) == 1


# --- optimisation ---


def test_cosine_rises_and_falls_to_nothing() -> None:
    rates = [learning_rate(Cosine(warmup_steps=10), 1.0, step, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * (k + 1) for k in range(10)])
    assert rates[60] == pytest.approx(0.5)
    assert rates[109] == pytest.approx(0, abs=1e-3) and rates == rates[:10] + sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_optimizers_are_torchs_and_spare_biases_and_norms(kind: Any) -> None:
    network = build("dasnet", start_out_channels=8, size=3)
    optimizer = build_optimizer(network, Optimizer(kind=kind, weight_decay=0.1))
    assert type(optimizer).__name__.lower() == kind
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {p.ndim > 1: decay[id(p)] for p in network.parameters()} == {True: 0.1, False: 0.0}
    assert len(decay) == len(list(network.parameters()))


def test_the_average_follows_weights_and_running_statistics() -> None:
    network = build("thindyunet", start_out_channels=8, size=2)
    average = copy.deepcopy(network)
    before = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    with torch.no_grad():
        for tensor in [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]:
            tensor += 1
    ema_update(average, network, 0.75)
    for name, tensor in average.state_dict().items():
        torch.testing.assert_close(tensor, before[name] + (0.25 if tensor.is_floating_point() else 0))
    ema_update(average, network, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), network.parameters(), strict=True))


def test_early_stopping_counts_what_is_no_better_by_min_delta() -> None:
    stopping, progress = EarlyStopping(patience=2, min_delta=0.1), ValidationProgress()
    seen = [progress.add({"val_loss": loss, "val_iou": 1 - loss}, stopping) for loss in (1.0, 0.95, 0.85, 0.8)]
    assert seen == [["loss", "iou"]] * 4 and progress.checks_without == 1  # 0.85 is 0.15 below 1.0
    assert not progress.is_over(stopping)
    assert progress.add({"val_loss": 0.9, "val_iou": 0.5}, stopping) == ["iou"]
    assert progress.is_over(stopping) and not progress.is_over(EarlyStopping())


# --- samples ---


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Any:
    clips = open_dataset(CLIPS, names=["IR_DRONE_015"])
    return cache_frames(tmp_path_factory.mktemp("cache"), clips, every_nth(clips, 45, 45))


def test_an_epoch_shows_every_frame_in_an_order_of_its_own(frames: Any) -> None:
    count, batch = len(all_frames(frames)), 3
    samples = WholeSamples(frames, 64, batch, seed=5)
    every = {image.tobytes() for image, _ in (stretched(*frames.read(frame), 64) for frame in all_frames(frames))}
    assert len(every) == count > batch and count % batch
    epochs = []
    for epoch in range(2):
        first = epoch * steps_per_epoch(count, batch)
        steps = range(first, first + steps_per_epoch(count, batch))
        shown = [samples.sample(step, index)[0].tobytes() for step in steps for index in range(batch)]
        assert set(shown) == every
        epochs.append(shown)
    assert epochs[0] != epochs[1]


def test_batches_of_two_processes_are_those_of_one_together(frames: Any) -> None:
    samples = WholeSamples(frames, 64, 4, seed=5)
    alone = list(batches(samples, range(2, 9), 0, 1, 0))
    assert len(alone) == 7 and alone[0][0].shape == (4, 64, 64, 3) and alone[0][1].shape == (4, 64, 64)
    shares = [list(batches(samples, range(2, 9), rank, 2, 0)) for rank in range(2)]
    for step, (images, labels) in enumerate(alone):
        assert torch.equal(images, torch.cat([share[step][0] for share in shares]))
        assert torch.equal(labels, torch.cat([share[step][1] for share in shares]))
    assert list(batches(samples, range(3, 3), 0, 1, 0)) == []


@pytest.mark.slow
def test_batches_that_workers_prefetch_are_the_same_in_the_same_order(frames: Any) -> None:
    samples = WholeSamples(frames, 64, 4, seed=5)
    made_here, prefetched = (list(batches(samples, range(2, 9), 1, 2, workers)) for workers in (0, 2))
    assert len(made_here) == len(prefetched) == 7
    for (images, labels), (same_images, same_labels) in zip(made_here, prefetched, strict=True):
        assert torch.equal(images, same_images) and torch.equal(labels, same_labels)
    assert list(batches(samples, range(3, 3), 0, 1, 1)) == []


class Broken(WholeSamples):
    def sample(self, step: int, index: int) -> Any:
        if step == 2:
            raise OSError("frame 7 is damaged")
        return super().sample(step, index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_made_ends_the_run(frames: Any, workers: int) -> None:
    with pytest.raises(OSError, match="frame 7 is damaged"):
        list(batches(Broken(frames, 64, 2, seed=5), range(10), 0, 1, workers))


def test_whole_frames_are_stretched_as_in_use_and_small_objects_stay() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    labels = np.zeros((300, 200), np.uint8)
    labels[100:102, 50:52] = 1
    labels[200:260, 100:150] = 2
    shown, marked = stretched(image, labels, 64)
    assert np.array_equal(shown, prepare(image, "infrared", Preprocessing("stretch", 64))[0])
    assert (marked == 1).sum() == 1 and marked[21, 16] == 1
    area_px = 60 * 50 * 64 * 64 / (300 * 200)
    assert (marked == 2).sum() == pytest.approx(area_px, rel=0.15)


def test_a_subset_depends_on_the_seed_alone() -> None:
    numbers = {"a": list(range(50)), "b": list(range(0, 100, 3)), "c": []}
    subset = drawn(numbers, 20, seed=1)
    assert sum(map(len, subset.values())) == 20 and list(subset) == list(numbers)
    assert all(set(subset[name]) <= set(numbers[name]) and subset[name] == sorted(subset[name]) for name in numbers)
    assert subset == drawn(numbers, 20, seed=1) != drawn(numbers, 20, seed=2)
    assert drawn(numbers, 0, seed=1) == drawn(numbers, 1000, seed=1) == numbers


# --- the original's files ---

ORIGINAL = """
dataset:
  root: /data/combined_uav/
  num_workers: 8
  batch_size: 24
  image_size: [512, 512]
  train_sequences: 70
  val_sequences: 20
  test_sequences: 20
  max_samples: 20000
  max_samples_val: 1000
trainer:
  pretrained_path:
  epochs: 50
  optimizer: AdamW
  loss_fn: DiceLoss
  lr: 0.0001
  gpu_id: 0
  scheduler: {type: ReduceLROnPlateau, factor: 0.5, patience: 15, cooldown: 5}
  early_stop: {patience: 30, min_delta: 0.001, mode: min}
  checkpoint: {save_dir: checkpoints/dasnet}
model:
  name: dasnet
  in_channels: 3
  start_out_channels: 64
  num_classes: 1
  num_blocks: 7
  num_padding: 1
  is_upsample: True
"""


def written(path: Path, changes: dict[str, Any]) -> Path:
    content = yaml.safe_load(ORIGINAL)
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = content
        for name in sections:
            target = target[name]
        target[last] = value
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_originals_file_means_what_ours_says(tmp_path: Path) -> None:
    theirs = load_config(written(tmp_path / "config_dasnet.yaml", {}))
    changes = ["data=/data/combined_uav/", "out=checkpoints/dasnet", "network.padding=1", "network.upsample=true"]
    changes.append("network.in_channels=3")
    assert theirs == load_config(REPOSITORY / "configs" / "training" / "dasnet.yaml", changes)
    build(**theirs.network)


@pytest.mark.parametrize(
    ("theirs", "key", "ours"),
    [
        ({"trainer.optimizer": "SGD"}, "optimizer", Optimizer(kind="sgd", lr=1e-4, weight_decay=0.0, momentum=0.8)),
        ({"trainer.optimizer": "Adam"}, "optimizer", Optimizer(kind="adam", lr=1e-4, weight_decay=0.0)),
        ({"trainer.loss_fn": "CompoundLoss"}, "loss", "compound"),
        ({"trainer.loss_fn": "IoULoss"}, "loss", "jaccard"),
        ({"trainer.gpu_id": 1}, "device", "cuda:1"),
        ({"trainer.pretrained_path": "checkpoints"}, "start_from", ""),  # no file: as in the original, nothing
        ({"model": {"name": "unet"}}, "network", {"name": "unet", "num_class": 1}),
        ({"dataset.max_samples": None}, "max_samples", 0),
    ],
)
def test_the_originals_choices_have_counterparts(theirs: dict[str, Any], key: str, ours: Any, tmp_path: Path) -> None:
    assert getattr(load_config(written(tmp_path / "config.yaml", theirs)), key) == ours


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset.roots": "x"},
            r"config.yaml:\d+: dataset.roots = 'x': unknown key; must be one of root, num_workers",
        ),
        ({"trainer.scheduler.gamma": 2}, r"trainer.scheduler.gamma = 2: unknown key; must be one of type, factor"),
        ({"extra": {}}, r"extra = \{\}: unknown key; must be one of dataset, trainer, model"),
        ({"model.width": 3}, r"model.width = 3: unknown key; must be one of name, in_channels"),
        ({"trainer.loss_fn": "CrossEntropyLoss"}, r"trainer.loss_fn = 'CrossEntropyLoss'; must be 'DiceLoss'"),
        ({"trainer.scheduler.type": "StepLR"}, r"trainer.scheduler.type = 'StepLR'; must be 'ReduceLROnPlateau'"),
        ({"trainer.early_stop.mode": "max"}, r"trainer.early_stop.mode = 'max'; must be 'min'"),
        ({"dataset.image_size": [512, 640]}, r"dataset.image_size = \[512, 640\]; must be two equal"),
        ({"dataset.root": None}, r"dataset.root = None; must be a valid string"),
        ({"trainer": 5}, r"trainer = 5; must be a mapping of settings"),
        ({"dataset.batch_size": 0}, r"dataset.batch_size = 0; must be greater than 0"),
    ],
)
def test_what_the_original_does_not_know_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path / "config.yaml", changes))


# --- changes and the command line ---


def test_single_keys_are_changed_from_the_command_line() -> None:
    changes = ["data=x", "optimizer.lr=1e-3", "sampling.augmentation.crop_px=256", "clips=[]", "device=cpu"]
    config = load_config(TINY, changes)
    assert (config.data, config.optimizer.lr, config.clips, config.device) == ("x", 1e-3, [], "cpu")
    assert config.optimizer.kind == "adamw" and config.sampling.augmentation.crop_px == 256  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"lr = 1: unknown key; must be one of data, steps"):
        load_config(TINY, ["data=x", "lr=1"])
    with pytest.raises(ConfigError, match=r"--set lr: must be key=value"):
        load_config(TINY, ["data=x", "lr"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"name": "resnet"}}, r"network: network 'resnet'; must be one of dasnet"),
        (
            {"network": {"name": "dasnet", "size": 1}},
            r"network: network dasnet: size=1; must be",
        ),
        ({"sampling": {"kind": "whole", "size_px": 100}}, r"sampling.size_px = 100; must be a multiple of 32"),
        ({"precision": "fp16"}, r"precision = 'fp16'; must be auto, fp32 or bf16 on a CPU"),
    ],
)
def test_what_cannot_be_built_is_said_before_data_is_read(changes: dict[str, Any], message: str) -> None:
    from training.state import start_run

    with pytest.raises(ConfigError, match=message):
        start_run(parse_config({"data": "nowhere", "steps": 1, **changes}))


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DASNET_CLIPS": str(CLIPS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_tiny_configuration_trains_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    changes = ["save_every_steps=10", "schedule.decay_steps=10", f"cache={tmp_path / 'cache'}"]
    common = [str(TINY), "--out", str(out), *(word for change in changes for word in ("--set", change))]
    monkeypatch.setenv("DASNET_CLIPS", str(CLIPS))
    trained = dasnet_in_process("train", *common, "--set", "steps=20")
    assert "step 20/20" in trained.stdout and "done" in trained.stdout, trained.stderr
    with (out / "log.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]
    assert load(out / "ema.safetensors").metadata.preprocessing.mode == "scale"
    more = script_in_process("train.py", *common, "--resume", "--set", "steps=22")
    assert "from step 10 to 22" in more.stdout, more.stderr
    refused = in_process(main, TINY, "--out", out)
    assert refused.returncode == 2 and "holds the state" in refused.stderr
    wrong = dasnet_in_process("train", TINY, "--out", out, "--set", "device=cuda:7")
    assert wrong.returncode == 2 and "train: device = 'cuda:7'; must be one of auto, cpu" in wrong.stderr


def test_training_needs_little(tmp_path: Path) -> None:
    """Imported without what the pipeline needs."""
    names = [
        "tensorboard",
        "matplotlib",
        "scipy",
        "rich",
        "typer",
        "zmq",
        "msgspec",
        "structlog",
        "starlette",
    ]
    blocked = f"import sys; sys.modules.update(dict.fromkeys({names!r})); import training.train, training.original"
    run("-c", blocked)


def test_the_field_loss_names_objects_whatever_else_is_silent() -> None:
    """A bird taken for a uav: only the names may object, and a rare class by its weight."""
    labels = torch.zeros(1, 32, 32, dtype=torch.uint8)
    labels[:, 10:16, 10:16] = 2
    logits = torch.full((1, 4, 32, 32), -8.0)
    logits[:, 0, 10:16, 10:16] = 6.0
    right = logits[:, [1, 0, 2, 3]]
    wrong_loss, right_loss = (segmentation_loss("field", item, [], labels) for item in (logits, right))
    assert (
        wrong_loss.parts["dice"] == right_loss.parts["dice"] and wrong_loss.parts["focal"] == right_loss.parts["focal"]
    )
    assert wrong_loss.parts["names"] > 3 > 0.1 > right_loss.parts["names"]
    heavy = segmentation_loss("field", logits, [], labels, (1.0, 2.0, 1.0, 1.0))
    assert float(heavy.parts["names"]) == pytest.approx(2 * float(wrong_loss.parts["names"]))
