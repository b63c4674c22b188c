"""The classifier of found targets: in a checkpoint, in use, and how it learns."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.program import REPOSITORY, in_process

from model import build, load
from model.checkpoint import save
from model.classifier import FusedClassifier, TargetClassifier
from model.engine.engine import Engine
from model.errors import CheckpointError
from model.metadata import ClassifierConfig, Metadata
from training.classifier.augment import augmented
from training.classifier.crops import TargetCrops
from training.classifier.train import CLASS_SHARES, BalancedDraw, Settings, main, recall, train

SMALL = {"start_out_channels": 16, "size": 3}
HOW = ClassifierConfig(classes=("uav", "bird", "clutter"), stages=2, crop_px=32, enlarged_px=32)
SETTINGS = Settings(steps=200, batch=32, rate=5e-3, seed=3)


def saved(path: Path) -> tuple[Path, TargetClassifier]:
    torch.manual_seed(0)
    classifier = TargetClassifier(len(HOW.classes), HOW.stages, HOW.enlarged_px)
    for _ in range(50):
        classifier(torch.rand(16, 3, 32, 32) * 255)  # moves the running statistics
    network = build("dasnet", num_class=2, **SMALL)
    metadata = Metadata(arguments={"num_class": 2, **SMALL}, classes=("uav", "bird"), classifier=HOW)
    save(path, network, metadata, classifier)
    return path, classifier.eval()


def test_it_lies_beside_the_network_and_is_the_same_in_use(tmp_path: Path) -> None:
    path, classifier = saved(tmp_path / "a.safetensors")
    loaded = load(path)
    assert loaded.metadata.classifier == HOW and loaded.metadata.detected_classes == HOW.classes
    crops = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    with torch.inference_mode():
        expected = torch.softmax(classifier(torch.from_numpy(crops).permute(0, 3, 1, 2).float()), 1).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3
    with Engine(loaded, device="cpu", kind="module") as engine:
        assert engine.classify is not None
        np.testing.assert_allclose(engine.classify(crops), expected, atol=1e-6)
    assert loaded.classifier is not None
    np.testing.assert_allclose(FusedClassifier(loaded.classifier)(crops), expected, atol=1e-6)
    with Engine(build("dasnet", **SMALL), device="cpu", kind="module") as bare:
        assert bare.classify is None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("undescribed", r"holds a classifier; must have `classifier` in its metadata"),
        ("without weights", r"does not fit the network \(missing: blocks.0.filter.conv.weight"),
        ("other stages", r"does not fit the network \(.*wrong shape: "),
        ("no stages", r"classifier.stages: 0; must be a whole number from 1 to 5"),
        ("not finite", r"does not fit the network \(not finite: head.bias\)"),
        ("without birds", r"classifier.classes: \('uav', 'airplane', 'clutter'\); must be at least uav, bird"),
        ("unknown key", r"classifier.colour: 1; must be one of the keys classes, stages"),
    ],
)
def test_what_does_not_fit_is_explained(tmp_path: Path, fault: str, reason: str) -> None:
    path, _ = saved(tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as file:
        described = file.metadata()["dasnet"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if fault == "undescribed":
        described = described[: described.index('"classifier": {')] + described[described.index('"thresholds"') :]
    elif fault == "without weights":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
    elif fault.endswith("stages"):
        described = described.replace('"stages": 2', f'"stages": {3 if fault == "other stages" else 0}')
    elif fault == "without birds":
        described = described.replace('["uav", "bird", "clutter"]', '["uav", "airplane", "clutter"]')
    elif fault == "not finite":
        tensors["classifier.head.bias"][0] = float("nan")
    else:
        described = described.replace('"crop_px": 32', '"crop_px": 32, "colour": 1')
    save_file(tensors, path, metadata={"dasnet": described})
    with pytest.raises(CheckpointError, match=rf"{path.name}: {reason}"):
        load(path)


def shapes(count: int, seed: int) -> TargetCrops:
    """Discs, bars and empty noise, of a few recordings each."""
    rng = np.random.default_rng(seed)
    crops = rng.normal(90, 12, (count, 48, 48, 3))
    classes = rng.integers(0, 3, count)
    y, x = np.mgrid[:48, :48] - 23.5
    crops[classes == 0] += 80 * (np.hypot(x, y) < 8)[..., None]
    crops[classes == 1] += 80 * ((abs(x) < 11) & (abs(y) < 2.5))[..., None]
    return TargetCrops(crops.clip(0, 255).astype(np.uint8), classes, classes * 10 + np.arange(count) % 4, classes == 0)


def test_it_learns_separable_classes_and_the_same_twice() -> None:
    learned, unseen = shapes(300, 0), shapes(90, 1)
    first = train(learned, None, HOW, SETTINGS)
    assert recall(first, unseen, HOW) > 0.95
    one, other = (train(learned, None, HOW, replace(SETTINGS, steps=20)) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))
    guesses = replace(unseen, classes=np.roll(unseen.classes, 1))
    assert recall(first, guesses, HOW) < 0.6


def test_rare_recordings_are_drawn_as_often_as_long_ones() -> None:
    recordings = np.array([1] * 90 + [2] * 10 + [3] * 400)
    classes = (recordings == 3).astype(int)
    targets = TargetCrops(np.zeros((500, 1, 1, 3), np.uint8), classes, recordings, classes > 0)
    drawn = BalancedDraw(targets, HOW.classes, seed=1).batch(4000)
    share = np.bincount(targets.recordings[drawn], minlength=4) / 4000
    assert share[1] == pytest.approx(share[2], abs=0.03)
    assert (classes[drawn] == 0).mean() == pytest.approx(
        CLASS_SHARES["uav"], abs=0.03
    )  # nothing is clutter: birds get the rest


def test_augmentation_keeps_the_target_in_sight_and_depends_on_its_generator_alone() -> None:
    crops = torch.from_numpy(shapes(40, 2).crops).permute(0, 3, 1, 2).float()
    infrared = torch.zeros(40, dtype=torch.bool)
    first, again, other = (augmented(crops, infrared, 32, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == (40, 3, 32, 32) and first.isfinite().all()
    assert torch.equal(first, again) and not torch.allclose(first, other)
    disc = crops[shapes(40, 2).classes == 0]
    turned = augmented(disc, infrared[: len(disc)], 32, torch.Generator().manual_seed(3))
    middle = turned[..., 13:19, 13:19].mean((1, 2, 3))
    edge = torch.cat([turned[..., :3, :].flatten(1), turned[..., -3:, :].flatten(1)], 1).mean(1)
    assert ((middle - edge).abs() > 10).float().mean() > 0.9


def arguments(data: Path, out: Path, *options: str) -> list[str]:
    common = ["model/weights/dasnet.safetensors", "--data", str(data), "--out", str(out)]
    return [*common, "--steps", "3", "--every", "60", *options]


def run_script(data: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/train_classifier.py", *arguments(data, out, *options)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_the_script_puts_a_classifier_beside_the_network_it_is_given(tmp_path: Path) -> None:
    data, out, cache = REPOSITORY / "tests" / "data", tmp_path / "made.safetensors", str(tmp_path / "cache")
    first = run_script(data, out, "--cache", cache)
    assert first.returncode == 0, first.stderr
    shipped, made = load(REPOSITORY / "model" / "weights" / "dasnet.safetensors"), load(out)
    assert made.metadata.classifier == ClassifierConfig() and made.metadata.thresholds == shipped.metadata.thresholds
    assert made.metadata.training["classifier"]["steps"] == 3 and made.metadata.training["classifier"]["crops"] > 10
    for name, tensor in shipped.network.state_dict().items():
        assert torch.equal(tensor, made.network.state_dict()[name])
    (kept, _) = written = sorted(Path(cache).glob("targets-*.npz"))
    assert len(written) == 2  # to learn from, and to check with
    before_ns = kept.stat().st_mtime_ns
    again = in_process(main, *arguments(data, out, "--cache", cache))
    assert again.returncode == 0 and kept.stat().st_mtime_ns == before_ns


def test_data_without_a_target_to_learn_from_is_told(tmp_path: Path) -> None:
    labels = json.loads(gzip.decompress((REPOSITORY / "tests" / "data" / "labels.json.gz").read_bytes()))
    (tmp_path / "labels.json.gz").write_bytes(gzip.compress(json.dumps(labels).encode()))
    (tmp_path / "clips").symlink_to(REPOSITORY / "tests" / "data" / "clips")
    cache, out = str(tmp_path / "cache"), tmp_path / "a.safetensors"
    ended = in_process(main, *arguments(tmp_path, out, "--cache", cache, "--sensors", "visible"))
    assert ended.returncode == 2 and "holds no labelled target" in ended.stderr, ended.stderr
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--every", "0", "1 or more"),
        ("--steps", "-1", "1 or more"),
        ("--sensors", "thermal", "one of infrared, visible"),
    ],
)
def test_options_that_make_no_sense_are_told(tmp_path: Path, option: str, value: str, expected: str) -> None:
    ended = in_process(main, *arguments(REPOSITORY / "tests" / "data", tmp_path / "a.safetensors", option, value))
    assert ended.returncode == 2 and f"error: {option} {value}; must be {expected}" in ended.stderr, ended.stderr
