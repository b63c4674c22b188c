"""The comparison of engines: who is asked when, what is measured, and what becomes of one that fails."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from support.program import CLIPS, REPOSITORY
from torch import Tensor

from model import build
from model.checkpoint import Loaded, save
from model.metadata import Metadata
from pipeline.bench import run as bench
from pipeline.bench import worker
from pipeline.bench.results import MaskComparison, Report, Timing, Variant, mask_rows, rows
from pipeline.bench.run import BenchOptions, Candidate, run_bench
from pipeline.bench.worker import Forward, Task
from pipeline.errors import ConfigError

ARGUMENTS = {"start_out_channels": 16, "size": 3, "num_class": 2}  # multiple of 8
KEPT = ("reference", "reference-kept", "torch")
ROUNDS = 2


def dying(loaded: Loaded, _task: Task) -> Forward:
    """A candidate whose process is killed when it is given more than the two inputs of the comparison."""

    def forward(batch: Tensor) -> Tensor:
        if len(batch) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return loaded.network(batch)

    return forward


def coarse(loaded: Loaded, _task: Task) -> Forward:
    """Takes no real frame."""
    return worker.FixedMultiple(loaded.network, 1024)


def raising(_loaded: Loaded, _task: Task) -> Forward:
    raise RuntimeError("no such instruction")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save(path, build("dasnet", **ARGUMENTS), Metadata(arguments=ARGUMENTS, classes=("uav", "bird")))
    return path


@pytest.fixture(scope="module")
def measured(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    out = tmp_path_factory.mktemp("out") / "new" / "bench.json"
    table = [candidate for candidate in bench.CANDIDATES if candidate.name in KEPT]
    table[2:2] = [Candidate("dying", "test_bench:dying"), Candidate("raising", "test_bench:raising")]
    table += [
        Candidate("coarse", "test_bench:coarse"),
        Candidate("absent", "test_bench:dying", required_packages=("no_such_package",)),
        Candidate("cuda", "pipeline.bench.worker:engine", arguments={"kind": "no such engine"}),
    ]
    options = BenchOptions(
        sizes="24x32,40x16",
        batches="1,3",
        precisions="fp32",
        threads="1",
        rounds=ROUNDS,
        frames=CLIPS / "IR_DRONE_015.mp4",
        json=out,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "CANDIDATES", tuple(table))
        patch.setenv("PYTHONPATH", f"{Path(__file__).parent}{os.pathsep}{REPOSITORY / 'tests'}")
        code = run_bench(checkpoint, options)
    return code, json.loads(out.read_text())


@pytest.mark.slow
def test_everything_measured_is_in_the_json(measured: tuple[int, dict[str, Any]], checkpoint: Path):
    _, found = measured
    assert found["machine"]["processor"]
    assert found["machine"]["packages"]["torch"] == torch.__version__
    assert found["machine"]["cores_usable"] >= 1
    assert found["checkpoint"]["file"] == checkpoint.name and str(checkpoint.parent) not in json.dumps(found)
    assert found["settings"]["allocators"]["reference"] == "stock"
    settings = {(row["height_px"], row["width_px"], row["batch"]) for row in found["results"]}
    assert settings == {(24, 32, 1), (24, 32, 3), (40, 16, 1), (40, 16, 3)}
    for row in found["results"]:
        assert 0 < row["median_ms_per_frame"] <= row["p95_ms_per_frame"]
        assert row["times_reference"] > 0
        assert row["times_reference_kept"] > 0
        assert row["times_reference_thp"] is None  # it did not take part
        assert row["threads"] == 1
    assert all(row["times_reference"] == 1 for row in found["results"] if row["candidate"] == "reference")


@pytest.mark.slow
def test_fp32_candidates_are_exact(measured: tuple[int, dict[str, Any]]):
    _, found = measured
    assert all(row["max_logit_error"] <= 1e-3 for row in found["results"])
    masks = {row["candidate"]: row for row in found["masks"]}
    assert masks["torch"]["frames"] == len(found["frames"]) == 3
    assert masks["torch"]["frames_with_target"] == 3
    assert masks["torch"]["worst_iou"] >= 0.99
    assert masks["torch"]["worst_frame"] in found["frames"]


@pytest.mark.slow
def test_candidates_are_asked_in_turn_each_round_on_an_input_of_its_own(measured: tuple[int, dict[str, Any]]):
    _, found = measured
    asked = [(s["height_px"], s["batch"], s["round"], s["candidate"]) for s in found["samples"]]
    turn = ["reference", "reference-kept", "dying", "torch", "coarse"]
    assert asked[: 2 * len(turn)] == [(24, 1, number, name) for number in range(ROUNDS) for name in turn]
    seeds: dict[tuple[int, int, int], set[int]] = {}
    for sample in found["samples"]:
        seeds.setdefault((sample["height_px"], sample["batch"], sample["round"]), set()).add(sample["seed"])
    assert all(len(of_round) == 1 for of_round in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds) == 2 * 2 * ROUNDS


@pytest.mark.slow
def test_one_that_dies_or_raises_is_reported_and_the_others_go_on(measured: tuple[int, dict[str, Any]]):
    code, found = measured
    assert code == 1
    failed = {row["candidate"]: row["reason"] for row in found["failed"]}
    assert set(failed) == {"dying", "raising"}
    assert "24x32, batch 3" in failed["dying"]
    assert "SIGKILL" in failed["dying"]
    assert failed["raising"] == "starting: RuntimeError: no such instruction"
    last = found["samples"][-1]
    assert (last["candidate"], last["height_px"], last["batch"]) == ("coarse", 40, 3)
    assert [row["batch"] for row in found["results"] if row["candidate"] == "dying"] == [1]


@pytest.mark.slow
def test_what_cannot_be_had_is_listed_with_the_reason(measured: tuple[int, dict[str, Any]]):
    _, found = measured
    reasons = {row["candidate"]: row["reason"] for row in found["unavailable"]}
    assert reasons["absent"] == "not installed: no_such_package"
    assert "engine 'no such engine'" in reasons["cuda"]


def test_ratios_are_taken_within_rounds():
    slow, fast = Variant("reference", "fp32", 1), Variant("torch", "fp32", 1)
    report = Report({}, {}, {})
    for number, (reference_ms, own_ms) in enumerate([(10, 5), (20, 10), (90, 10)]):
        report.samples.append(Timing(slow, 8, 8, 2, number, number, reference_ms))
        report.samples.append(Timing(fast, 8, 8, 2, number, number, own_ms))
    row = rows(report)[1]
    assert (row.candidate, row.median_ms_per_frame, row.times_reference) == ("torch", 5, 2)


def test_frames_without_a_target_do_not_raise_the_agreement():
    variant = Variant("torch", "bf16", 1)
    masks = [MaskComparison(variant, "a", 0, 0), MaskComparison(variant, "b", 3, 4), MaskComparison(variant, "c", 1, 4)]
    row = mask_rows(Report({}, {}, {}, masks=masks))[0]
    assert (row.frames, row.frames_with_target, row.mean_iou, row.worst_iou, row.worst_frame) == (3, 2, 0.5, 0.25, "c")
    empty = mask_rows(Report({}, {}, {}, masks=masks[:1]))[0]
    assert (empty.mean_iou, empty.worst_iou, empty.worst_frame) == (None, None, None)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (BenchOptions(sizes="30x32"), r"size '30x32'; must be HEIGHTxWIDTH, both multiples of 8"),
        (BenchOptions(sizes="512"), r"size '512'; must be"),
        (BenchOptions(sizes="64x0"), r"size '64x0'; must be"),
        (BenchOptions(batches="1,zero"), r"batch 'zero'; must be a whole number from 1 to 1024"),
        (BenchOptions(threads="4096"), r"threads '4096'; must be a whole number from 1 to"),
        (BenchOptions(precisions="fp32,int8"), r"precision 'int8'; must be one of fp32, bf16, fp16"),
        (BenchOptions(rounds=0), r"rounds 0; must be 1 or more"),
        (BenchOptions(plot=Path("out.jpg")), r"plot out\.jpg: must be a path ending in \.png"),
        (BenchOptions(json=Path("/dev/null/bench.json")), r"/dev/null/bench\.json: cannot be written"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(checkpoint: Path, options: BenchOptions, match: str):
    with pytest.raises(ConfigError, match=match):
        run_bench(checkpoint, options)


@pytest.mark.slow
def test_masks_of_frames_that_a_candidate_does_not_take_are_left_out(measured: tuple[int, dict[str, Any]]):
    _, found = measured
    assert "coarse" in {row["candidate"] for row in found["results"]}
    assert "coarse" not in {row["candidate"] for row in found["masks"]}
