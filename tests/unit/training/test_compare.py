"""`dasnet compare` on evaluations with a known effect; figures that show what they say; errors that help."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.program import dasnet_in_process

from model.checkpoint import Loaded
from model.metadata import Metadata
from model.registry import build
from pipeline.errors import ConfigError
from training.evaluation.compare import compare, read_run, run_compare
from training.evaluation.figures import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    TRUE_POSITIVE,
    error_map,
    plot_samples,
    plot_training,
)
from training.evaluation.mask_metrics import count, diameter_px, image_metrics, threshold_histogram
from training.evaluation.qualitative import QualitativeSample, write_samples
from training.evaluation.report import Evaluation, ImageResult, as_json

SEEDS = (42, 2024, 8888)
MISSES = {"dasnet": 0.2, "unet": 0.35, "pan": 0.2}  # the share of target pixels that each misses
IMAGES = 12


def write_run(folder: Path, model: str, seed: int, misses: float) -> Path:
    """What `evaluate --out` leaves, of a network that finds each target pixel by chance; and a log of its training."""
    rng = np.random.default_rng([seed, *model.encode()])
    network = build("dasnet", start_out_channels=16, size=3)
    evaluation = Evaluation()
    for number in range(IMAGES):
        truth = np.zeros((40, 40), bool)
        truth[5:25, 5 + number : 25 + number] = True
        probabilities = np.where(truth & (rng.random(truth.shape) > misses), 0.9, 0.1).astype(np.float32)
        mask = probabilities > 0.5
        result = ImageResult(f"A/{number}", "infrared", diameter_px(truth), {"uav": count(mask, truth)}, None)
        evaluation.images.append(result)
        added = threshold_histogram(probabilities, truth)
        evaluation.histograms["uav"] = evaluation.histograms.get("uav", 0) + added
        if number < 2:
            image = np.repeat(truth[..., None] * np.uint8(90) + np.uint8(60), 3, axis=2)
            evaluation.samples.append(QualitativeSample(f"A/{number}", image, truth, mask))
    loaded = Loaded(network, Metadata(model), folder / "best.safetensors")
    data = {"folder": "clips", "split": "val", "every": 1}
    write_samples(folder / "samples", evaluation.samples)
    (folder / "evaluation.json").write_text(json.dumps(as_json(evaluation, loaded, seed, data, None)))
    with (folder / "log.csv").open("w", newline="") as file:
        rows = [(step, 1 / step + misses, "" if step % 20 else 1 - misses) for step in range(10, 60, 10)]
        csv.writer(file).writerows([("step", "loss", "val_iou"), *rows])
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_run(folder / f"{model}-{seed}", model, seed, part) for model, part in MISSES.items() for seed in SEEDS
    ]


def assert_shows_something(path: Path, colours: int = 8) -> None:
    """Neither blank nor a frame alone: several colours, each on more than a few pixels."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert picture is not None and min(picture.shape[:2]) > 150
    _, counts = np.unique(picture.reshape(-1, 3) // 32, axis=0, return_counts=True)
    assert (counts > 20).sum() >= colours, f"{path}: {counts}"


def test_a_known_effect_is_found_and_none_where_there_is_none(runs: list[Path]):
    comparison = compare([read_run(path) for path in runs])
    assert comparison["seeds"] == [42, 2024, 8888] and comparison["reference"] == "dasnet"
    for model, part in MISSES.items():  # nothing is found wrongly, so that IoU is recall
        metrics = comparison["models"][model]["metrics"]
        assert metrics["iou"]["mean"] == pytest.approx(1 - part, abs=0.01)
        assert metrics["iou"] == metrics["recall"] and metrics["precision"]["mean"] == 1
        assert metrics["iou"]["deviation"] == pytest.approx(np.std(metrics["iou"]["by_seed"], ddof=1))
    for level, pairs, limit in (("seed", 3, 0.05), ("image", IMAGES, 1e-6)):
        worse, same = comparison["tests"]["iou"][level]["unet"], comparison["tests"]["iou"][level]["pan"]
        assert worse["pairs"] == pairs and worse["difference"] == pytest.approx(-0.15, abs=0.02)
        assert worse["t_p_holm"] == pytest.approx(2 * worse["t_p"]) and worse["t_p_holm"] < limit
        assert worse["d_paired"] < -3 and worse["d_pooled"] < -3
        assert same["t_p"] > 0.02 and abs(same["difference"]) < 0.01
    assert comparison["tests"]["iou"]["seed"]["unet"]["wilcoxon_p"] == 0.25


def test_images_without_a_target_do_not_hide_what_is_missed(tmp_path: Path):
    """Two images of which the one without a target is right: 1 and 0 on average 0.5, but 0 of the targets."""
    path = write_run(tmp_path / "unet-1", "unet", 1, misses=1.0)
    report = json.loads((path / "evaluation.json").read_text())
    images = {"name": ["A/0", "A/1"], "band": ["infrared"] * 2, "diameter_px": [None, 20.0]}
    (path / "evaluation.json").write_text(json.dumps({**report, "images": {**images, "uav": [[0, 0, 0], [0, 0, 400]]}}))
    metrics = compare([read_run(path)])["models"]["unet"]["metrics"]
    assert metrics["iou"]["mean"] == pytest.approx(0.5, abs=1e-6)
    assert metrics["iou, images with a target"]["mean"] == pytest.approx(0, abs=1e-6)


def test_images_are_paired_by_their_mean_over_seeds(runs: list[Path]):
    """Recomputed from the files alone."""
    read = [json.loads((path / "evaluation.json").read_text()) for path in runs]
    iou = {
        model: np.mean([image_metrics(np.array(r["images"]["uav"]))[:, 3] for r in read if r["model"] == model], axis=0)
        for model in MISSES
    }
    difference = iou["unet"] - iou["pan"]
    test = compare([read_run(path) for path in runs], "pan")["tests"]["iou"]["image"]["unet"]
    assert test["difference"] == pytest.approx(difference.mean())
    assert test["d_paired"] == pytest.approx(difference.mean() / difference.std(ddof=1))


@pytest.mark.slow
def test_the_command_writes_tables_and_figures(runs: list[Path], tmp_path: Path):
    out = tmp_path / "new" / "comparison"
    result = dasnet_in_process("compare", *runs, "--out", out)
    assert result.returncode == 0, result.stderr
    text = (out / "comparison.md").read_text()
    assert text in result.stdout and "skipped" not in result.stdout
    assert "12 images of clips, val; seeds 42, 2024, 8888." in text
    assert "## iou against dasnet, by seed (means over images)" in text and "(Holm, 1979)" in text
    assert json.loads((out / "comparison.json").read_text()) == compare([read_run(path) for path in runs])
    for name in ("precision_recall", "parameters", "training_curves", "qualitative"):
        assert f"({name}.png)" in text
        assert_shows_something(out / f"{name}.png", colours=4)


def test_what_cannot_be_drawn_is_said(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for path in runs[:6]:
        copy = tmp_path / f"{path.name}.json"
        copy.write_bytes((path / "evaluation.json").read_bytes())
    run_compare(sorted(tmp_path.glob("*.json")), tmp_path / "out", None)
    said = capsys.readouterr().out
    assert "training_curves.png is skipped" in said and "qualitative.png is skipped" in said
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["parameters.png", "precision_recall.png"]


def test_one_seed_has_no_deviation_and_no_test_by_seed(runs: list[Path]):
    comparison = compare([read_run(path) for path in (runs[0], runs[3])])
    assert comparison["models"]["dasnet"]["metrics"]["iou"]["deviation"] is None
    assert comparison["tests"]["iou"]["seed"]["unet"]["t_p"] is None
    assert comparison["tests"]["iou"]["image"]["unet"]["t_p"] < 1e-4


# --- figures ---


def test_a_mask_is_coloured_by_whether_it_is_right():
    truth = np.array([[True, True, False, False]])
    mask = np.array([[True, False, True, False]])
    picture = error_map(QualitativeSample("A", np.zeros((1, 4, 3), np.uint8), truth, mask))
    assert picture[0].tolist() == [list(TRUE_POSITIVE), list(FALSE_NEGATIVE), list(FALSE_POSITIVE), [0, 0, 0]]


def test_the_grid_has_a_row_an_image_and_a_column_a_model(tmp_path: Path):
    mask = np.zeros((32, 32), bool)
    mask[8:24, 8:24] = True
    sizes = []
    for models, images in ((1, 1), (3, 1), (3, 2)):
        samples = [QualitativeSample(f"A-{k}", np.full((32, 32, 3), 90, np.uint8), mask, ~mask) for k in range(images)]
        plot_samples({f"model {k}": samples for k in range(models)}, tmp_path / "grid.png")
        sizes.append(cv2.imread(str(tmp_path / "grid.png")).shape[:2])
    assert sizes[0][0] == sizes[1][0] < sizes[2][0] and sizes[0][1] < sizes[1][1] == sizes[2][1]
    with pytest.raises(ValueError, match="share no image"):
        plot_samples({"a": samples[:1], "b": samples[1:]}, tmp_path / "grid.png")


def test_training_curves_are_drawn_by_column(tmp_path: Path):
    logs = {}
    for model in ("dasnet", "unet"):
        logs[model] = [tmp_path / f"{model}.csv"]
        logs[model][0].write_text("step,loss,lr,val_iou\n1,0.9,0.1,\n2,0.5,0.1,0.3\n3,0.4,0.1,0.5\n")
    plot_training(logs, tmp_path / "curves.png")
    assert_shows_something(tmp_path / "curves.png", colours=4)
    height, width = cv2.imread(str(tmp_path / "curves.png")).shape[:2]
    assert width > 2 * height  # loss and val_iou side by side


# --- what goes wrong ---


def test_a_missing_seed_is_named(runs: list[Path]):
    read = [read_run(path) for path in runs if path.name != "unet-2024"]
    with pytest.raises(ConfigError, match=r"model unet: no evaluation of seed 2024; .*\(42, 2024, 8888\)"):
        compare(read)


def test_runs_that_do_not_fit_are_named(runs: list[Path], tmp_path: Path):
    read = [read_run(path) for path in runs]
    with pytest.raises(ConfigError, match=r"dasnet-42.*seed 42 is in .*dasnet-42.* too"):
        compare([*read, read_run(runs[0])])
    with pytest.raises(ConfigError, match=r"--reference pspnet: .*must be one of dasnet, unet, pan"):
        compare(read, "pspnet")
    report = json.loads((runs[0] / "evaluation.json").read_text())
    for change, text in (
        ({"images": {**report["images"], "name": ["other"] * IMAGES}}, "images are not those of"),
        ({"seed": None}, "seed is unknown"),
        ({"images": {}}, "no evaluation"),
    ):
        path = tmp_path / "changed.json"
        path.write_text(json.dumps({**report, "seed": 1, **change}))
        with pytest.raises(ConfigError, match=rf"changed\.json: .*{text}"):
            compare([read[0], read_run(path)])


@pytest.mark.parametrize("content", [None, "not json", "[]"])
def test_what_is_no_evaluation_ends_with_two(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(ConfigError, match=r"evaluation\.json: no evaluation") as error:
        run_compare([tmp_path], tmp_path / "out", None)
    assert error.value.exit_code == 2
