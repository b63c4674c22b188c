"""Training: a tiny run from end to end, exact resumption, augmentation, and errors that help."""

import csv
import gzip
import json
import os
import signal
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import yaml

from model import build
from model.checkpoint import load, save
from model.metadata import Metadata, Preprocessing
from pipeline.errors import ConfigError
from training.augment import CropSampler, resized_labels
from training.cache import cache_frames, every_nth
from training.config import Augmentation, CropSampling, TrainingConfig, Trapezoid, load_config, parse_config, snapshot
from training.datasets import CLASSES, open_dataset
from training.losses import segmentation_loss
from training.optimisation import learning_rate
from training.samples import CropSamples
from training.state import start_run
from training.synthetic import DECOY, add_decoys
from training.train import main, train

TINY = Path(__file__).parents[3] / "configs" / "training" / "tiny.yaml"
MINIMAL = {"data": "somewhere", "steps": 10}
CROPS = {"sampling": {"kind": "crops"}, "schedule": {"kind": "trapezoid", "decay_steps": 2}}
for name in ("DASNET_CLIPS", "DASNET_DATA"):  # the shipped configurations name their data by them
    os.environ.setdefault(name, "data")


@pytest.fixture(scope="module")
def clip_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short clips in the dronedet format: a bright spot drifts over noise."""
    folder = tmp_path_factory.mktemp("clip_set")
    (folder / "clips").mkdir()
    described = {}
    for name, sensor, shown in (("A", "infrared", "drone"), ("B", "visible", "bird"), ("C", "visible", "drone")):
        frames = []
        with av.open(str(folder / "clips" / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=30)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 128, "yuv420p", 4_000_000
            for number in range(12):
                x, y = 40 + 4 * number, 60
                image = np.random.default_rng(number).normal(90, 3, (128, 160, 3))
                image[y : y + 6, x : x + (10 if shown == "drone" else 5)] += 110
                frame = av.VideoFrame.from_ndarray(np.clip(image, 0, 255).astype(np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
                frames.append([{"id": 0, "class": shown, "box": [x - 3, y - 3, 16, 12]}])
            container.mux(stream.encode())
        sizes = {"width": 160, "height": 128, "fps": 30.0}
        described[name] = {"sensor": sensor, "clip_class": shown, "split": "train", **sizes, "frames": frames}
    with gzip.open(folder / "labels.json.gz", "wt") as file:
        json.dump(described, file)
    return folder


@pytest.fixture
def tiny(clip_set: Path, tmp_path: Path) -> TrainingConfig:
    """The shipped tiny configuration on the synthetic clips."""
    changes = {"data": clip_set, "cache": tmp_path / "cache", "every_drone_frame": 2, "every_other_frame": 3}
    changed = [f"{key}={value}" for key, value in changes.items()]
    return load_config(TINY, [*changed, "clips=[]", "check_clips=[]", "threads=1"])


def sampler(clip_set: Path, tmp_path: Path, seed: int, **changes: float) -> CropSampler:
    clips = open_dataset(clip_set)
    frames = cache_frames(tmp_path / "cache", clips, every_nth(clips, 2, 3))
    return CropSampler(frames, Augmentation(crop_px=128, **changes), seed)  # type: ignore[arg-type]


def test_samples_without_colour_have_none_whatever_is_drawn_into_them(clip_set: Path, tmp_path: Path) -> None:
    for grey in (True, False):
        made = sampler(clip_set, tmp_path, 1, grey=grey, overlay_share=1.0)
        images = [made.sample(step, 0, 128)[0] for step in range(8)]
        assert any(np.ptp(image, axis=2).any() for image in images) != grey


# --- the run ---


def test_tiny_run_learns_and_exports(tiny: TrainingConfig, tmp_path: Path) -> None:
    schedule = tiny.schedule.model_copy(update={"decay_steps": 10})
    train(
        tiny.model_copy(update={"steps": 20, "schedule": schedule, "check_every_steps": 20}),
        tmp_path / "run",
        resume=False,
    )
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [10, 20]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert rows[-1]["train_found"] != ""
    loaded = load(tmp_path / "run" / "ema.safetensors")
    assert loaded.metadata.classes == CLASSES
    assert loaded.metadata.preprocessing == Preprocessing("scale", scale={"infrared": 1.0, "visible": 0.5}, grey=True)
    assert loaded.metadata.training["step"] == 20
    assert loaded.metadata.training["config"]["seed"] == 3


@pytest.mark.parametrize("extended", [False, True], ids=["same steps", "more steps"])
@pytest.mark.slow
def test_resumed_run_equals_straight_run(tiny: TrainingConfig, tmp_path: Path, extended: bool) -> None:
    falling = tiny.schedule.model_copy(update={"decay_steps": 4})
    changes = {"steps": 12, "schedule": falling, "check_every_steps": 100, "save_every_steps": 6}
    short = tiny.model_copy(update=changes)
    straight = train(short, tmp_path / "straight", resume=False)
    if extended:  # a finished shorter run goes on from before its learning rate fell
        train(short.model_copy(update={"steps": 8}), tmp_path / "halves", resume=False)
    else:
        stop_after_save(short, tmp_path / "halves")
    resumed = train(short, tmp_path / "halves", resume=True)
    assert resumed.step == straight.step == 12
    for left, right in ((straight.network, resumed.network), (straight.average, resumed.average)):
        for name, tensor in left.state_dict().items():
            assert torch.equal(tensor, right.state_dict()[name]), name


def stop_after_save(config: TrainingConfig, folder: Path) -> None:
    """Half of a run: ended by SIGTERM, as a service manager would."""
    from training import train as module

    def step_then_stop(run: Any, *others: Any) -> Any:
        loss = original(run, *others)
        if run.step == config.steps // 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    original = module.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "train_step", step_then_stop)
        assert train(config, folder, resume=False).step == config.steps // 2


def test_learning_rate_rises_holds_and_falls() -> None:
    schedule = Trapezoid(warmup_steps=10, decay_steps=20)
    rates = [learning_rate(schedule, 1.0, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == [1.0] * 72
    assert rates[90] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.06


def test_small_crops_are_mixed_in_until_the_decay(clip_set: Path, tmp_path: Path) -> None:
    frames = sampler(clip_set, tmp_path, seed=0).frames
    samples = CropSamples(frames, CropSampling(small_share=0.5), batch=4, processes=1, seed=0, decay_start=80)
    shapes = [samples.shape(step) for step in range(100)]
    assert set(shapes[:80]) == {(4, 256), (8, 128)}
    assert set(shapes[80:]) == {(4, 256)}


def test_resume_without_state_says_what_is_missing(tiny: TrainingConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--resume: .*state.pt is missing; expected"):
        train(tiny, tmp_path / "empty", resume=True)


# --- augmentation and loss ---


def test_samples_depend_on_seed_step_and_index_only(clip_set: Path, tmp_path: Path) -> None:
    first, second = (sampler(clip_set, tmp_path, seed=4) for _ in range(2))
    second.sample(0, 0, 128)  # what was drawn before must not matter
    image, labels = first.sample(7, 1, 128)
    again, labels_again = second.sample(7, 1, 128)
    assert np.array_equal(image, again) and np.array_equal(labels, labels_again)
    assert not np.array_equal(image, first.sample(7, 2, 128)[0])
    assert not np.array_equal(image, sampler(clip_set, tmp_path, seed=5).sample(7, 1, 128)[0])


def test_samples_have_the_promised_shape_and_labels(clip_set: Path, tmp_path: Path) -> None:
    source = sampler(clip_set, tmp_path, seed=1, paste_share=1.0, decoy_share=0.8, overlay_share=0.8)
    seen = set()
    for step in range(30):
        image, labels = source.sample(step, 0, 128)
        assert image.shape == (128, 128, 3) and image.dtype == np.uint8
        assert labels.shape == (128, 128) and labels.dtype == np.uint8
        seen |= set(np.unique(labels).tolist())
    assert seen == {0, 1, 2, DECOY}


def test_a_shrunken_object_never_vanishes() -> None:
    labels = np.zeros((256, 256), np.uint8)
    labels[100:102, 100:102] = 3
    assert (resized_labels(labels, 64) == 3).sum() == 1


def test_decoys_leave_labels_alone() -> None:
    labels = np.zeros((128, 128), np.uint8)
    labels[60:66, 60:70] = 1
    image = np.full((128, 128, 3), 100, np.uint8)
    for seed in range(20):
        _, changed = add_decoys(np.random.default_rng(seed), image, labels, is_infrared=True)
        assert np.array_equal(changed == 1, labels == 1)


def test_loss_prefers_the_right_class_and_punishes_decoys() -> None:
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    labels[0, 4:8, 4:8] = 1
    right, wrong = (torch.full((1, 4, 16, 16), -6.0) for _ in range(2))
    right[0, 0, 4:8, 4:8] = 6.0
    wrong[0, 1, 4:8, 4:8] = 6.0
    assert segmentation_loss("field", right, [], labels).total < segmentation_loss("field", wrong, [], labels).total
    labels[labels == 1] = DECOY
    silent = torch.full((1, 4, 16, 16), -6.0)
    assert segmentation_loss("field", silent, [], labels).total < segmentation_loss("field", right, [], labels).total


# --- errors ---


def crops(**changes: Any) -> dict[str, Any]:
    return {**CROPS, "sampling": {"kind": "crops", **changes}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 1}, r"config: stepz = 1: unknown key; must be one of data, steps, .*"),
        ({"steps": "many"}, r"steps = 'many'; must be a valid integer"),
        ({"steps": True}, r"steps = True; must be a valid integer"),
        ({"batch": 0}, r"batch = 0; must be greater than 0"),
        ({"schedule": {"kind": "trapezoid", "decay_steps": 11}}, r"schedule.decay_steps = 11; must be 0 to 10"),
        ({"schedule": {"kind": "trapezoid", "decay": 11}}, r"schedule.decay = 11: unknown key; must be .*decay_steps"),
        ({"schedule": {"kind": "cosine", "warmup_steps": -1}}, r"schedule.warmup_steps = -1; must be greater than or"),
        ({"schedule": {"kind": "linear"}}, r"schedule.kind = 'linear'; must be one of plateau, cosine, trapezoid"),
        ({"schedule": {"factor": 0.1}}, r"schedule.kind = None; must be one of plateau, cosine, trapezoid"),
        ({"schedule": {"kind": "plateau", "factor": 1.5}}, r"schedule.factor = 1.5; must be less than 1"),
        ({"optimizer": {"kind": "lion"}}, r"optimizer.kind = 'lion'; must be 'adamw', 'adam' or 'sgd'"),
        ({"optimizer": {"lr": "fast"}}, r"optimizer.lr = 'fast'; must be a valid number"),
        ({"optimizer": {"lr": True}}, r"optimizer.lr = True; must be a valid number"),
        ({"optimizer": 3}, r"optimizer = 3; must be a mapping of settings"),
        ({"loss": "l2"}, r"loss = 'l2'; must be 'dice', 'bce', 'jaccard', 'compound' or 'field'"),
        ({"epochs": 3}, r"steps = 10, epochs = 3; must be one of them"),
        ({"steps": 0}, r"steps = 0, epochs = 0; must be one of them"),
        ({"ema": 1.0}, r"ema = 1.0; must be less than 1"),
        ({"splits": ["tset"]}, r"splits\[0\] = 'tset'; must be one of train, val, hard"),
        ({"sensors": ["radar"]}, r"sensors\[0\] = 'radar'; must be one of infrared, visible"),
        ({"sensors": []}, r"sensors = \[\]; must have at least 1 entry"),
        ({"network": {"num_class": 9}}, r"network.num_class = 9; must be 1 to 4"),
        ({"sampling": {"kind": "crops"}}, r"schedule.kind = 'plateau'; must be cosine or trapezoid with crops"),
        ({**CROPS, "early_stopping": {"patience": 3}}, r"early_stopping.patience = 3; must be 0 with crops"),
        (crops(small_crop_px=100), r"sampling.small_crop_px = 100; must be a multiple of 128"),
        (crops(augmentation={"crop_px": 100}), r"sampling.augmentation.crop_px = 100; must be a multiple of 128"),
        (
            crops(augmentation={"invert_share": 2.0}),
            r"augmentation.invert_share = 2.0; must be less than or equal to 1",
        ),
        (crops(augmentation={"grey": "dark"}), r"augmentation.grey = 'dark'; must be a valid boolean"),
        (crops(augmentation={"sensor_scale": {"infrared": 1.0}}), r"sensor_scale = .*; must have infrared and visible"),
        (crops(augmentation={"scale_min": 3}), r"augmentation.scale_min = 3.0; must be below 2.0"),
    ],
)
def test_bad_config_names_key_value_and_what_is_expected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({**MINIMAL, **changes})


def test_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="config: data: is required"):
        parse_config({"steps": 1})


def test_every_fault_of_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("data: x\nsteps: 9\nschedule:\n  kind: cosine\n  warmup_steps: soon\nbatch: 0\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["batch=-1", "optimizer.speed=1"])
    assert str(caught.value).splitlines() == [
        f"{path}: batch = -1; must be greater than 0",
        f"{path}: optimizer.speed = 1: unknown key; must be one of kind, lr, weight_decay, momentum",
        f"{path}:5: schedule.warmup_steps = 'soon'; must be a valid integer",
    ]


def test_command_line_reports_errors_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(yaml.safe_dump({**MINIMAL, "data": str(tmp_path)}))
    assert main([str(config), "--out", str(tmp_path / "run")]) == 2
    assert "is in no known format (found: bad.yaml); expected dronedet" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(TINY.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid_and_survive_their_snapshot(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    copy = tmp_path / "config.yaml"
    copy.write_text(snapshot(config))
    assert load_config(copy) == config
    with torch.device("meta"):
        build(**config.network)


def test_a_run_may_start_from_a_checkpoint_with_every_class_a_copy_of_the_first(tmp_path: Path):
    network = {"num_class": 4, "start_out_channels": 16}
    first = build("dasnet", **network)
    save(tmp_path / "objects.safetensors", first, Metadata(arguments=network, classes=CLASSES))
    start = {"start_from": str(tmp_path / "objects.safetensors"), "spread_first_class": True, "network": network}
    run = start_run(parse_config({**MINIMAL, **start}))
    wanted, got = first.state_dict(), run.network.state_dict()
    heads = [name for name in wanted if "output_block.1" in name or "aux_heads" in name]
    assert len(heads) == 8
    for name, tensor in wanted.items():
        expected = tensor[:1].expand_as(tensor) if name in heads else tensor
        assert torch.equal(got[name], expected), name


def test_folders_of_data_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_CLIPS", "/data/clips")
    assert parse_config({**MINIMAL, "data": "${SOME_CLIPS}/x"}).data == "/data/clips/x"
    with pytest.raises(ConfigError, match=r"data = '\$\{NOT_SET_HERE\}'; expected a folder, or"):
        parse_config({**MINIMAL, "data": "${NOT_SET_HERE}"})
