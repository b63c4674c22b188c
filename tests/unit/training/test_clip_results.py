"""Figures of groups of clips with their bounds, their tables, and the file that is pooled and compared."""

import json
from collections import Counter
from pathlib import Path

import pytest

from pipeline.bounds import clopper_pearson, poisson_rate
from pipeline.errors import ConfigError
from training.datasets import DataError
from training.evaluation import clip_report
from training.evaluation.clip_metrics import ClipMetrics
from training.evaluation.clip_report import ClipReport, pooled, read_report
from training.evaluation.clip_results import ClipResult, by_size, compared, figure, grouped, total
from training.evaluation.clip_tables import tables


def drone(
    name: str, right: int, camera: str = "a", scale: float = 1.0, size: str = "5-8 px", **more: float
) -> ClipResult:
    delays = [more.get("delay_s", 0.1)] if right else []
    metrics = ClipMetrics(
        drone_clips=1, found=int(right > 0), labelled=100, rows=100, right_centre=right, right_iou=right // 2,
        labelled_of_size=Counter({size: 100}), right_of_size=Counter({size: right}), delays_s=delays,
        missed=[] if right else [name],
    )  # fmt: skip
    return ClipResult(name, "set hard", camera, "infrared", "drone", scale, more.get("apparent_px", 6.0), metrics)


def bird(name: str, false_tracks: int, camera: str = "a") -> ClipResult:
    alarmed = [name] if false_tracks else []
    metrics = ClipMetrics(negative_clips=1, alarmed=alarmed, false_tracks=false_tracks, negative_s=30.0)
    return ClipResult(name, "set hard", camera, "infrared", "bird", 1.0, float("nan"), metrics)


CLIPS = [drone("d1", 100), drone("d2", 50, "b"), drone("d3", 0), bird("n1", 3), bird("n2", 0)]


def test_groups_are_by_sensor_and_class_camera_set_and_sensor():
    names = {group: [one.name for one in results] for group, results in grouped(CLIPS).items()}
    every = ["d1", "d2", "d3", "n1", "n2"]
    assert names == {
        "infrared bird": ["n1", "n2"], "infrared drone": ["d1", "d2", "d3"], "a": ["d1", "d3", "n1", "n2"],
        "b": ["d2"], "set hard": every, "infrared": every, "all": every,
    }  # fmt: skip


def test_every_figure_has_the_bounds_of_its_kind():
    assert figure("drones found", CLIPS).bounds == clopper_pearson(2, 3)
    assert figure("negative clips alarmed", CLIPS).bounds == clopper_pearson(1, 2)
    assert figure("false tracks/min", CLIPS).value == 3 and figure("false tracks/min", CLIPS).bounds == poisson_rate(
        3, 1
    )
    f1 = figure("F1", CLIPS)
    assert f1.value == 0.5 and f1.bounds is not None and f1.bounds == pytest.approx((0, 1), abs=0.01)
    assert figure("F1", CLIPS[1:2]).bounds is None  # one recording says nothing of others


def test_scales_of_one_recording_are_drawn_together():
    alike = [drone(name, right, scale=scale) for name, right in (("1", 90), ("2", 10)) for scale in (1.0, 0.5, 0.25)]
    apart = [drone(str(number), right) for number, right in enumerate((90, 90, 90, 10, 10, 10))]
    recall = [figure("recall", results) for results in (alike, apart)]
    assert recall[0].value == recall[1].value == 0.5
    assert recall[0].bounds == (0.1, 0.9) and recall[1].bounds is not None and recall[1].bounds[0] > 0.1
    assert figure("drones found", alike).bounds is None  # not Clopper-Pearson: two recordings, not six


def test_recall_and_delay_by_apparent_size():
    sizes = by_size([drone("d1", 90, delay_s=0.2), drone("d2", 0), drone("d3", 50, size="3-5 px", apparent_px=4.0)])
    assert list(sizes) == ["3-5 px", "5-8 px"]
    near, far = sizes["5-8 px"], sizes["3-5 px"]
    assert (near.labels, near.recall.value, near.clips, near.found.value) == (200, 0.45, 2, 0.5)
    assert near.delay_s == float("inf")  # the missed one: half of the drones took 0.2 s, half for ever
    assert (far.labels, far.recall.value, far.delay_s) == (100, 0.5, 0.1)


def test_tables_have_bounds_and_leave_out_groups_that_say_the_same():
    text = tables(CLIPS)
    assert "| all | 2 of 3 (0.094-0.992) | 0.500 (" in text
    assert "| all | 1 of 2 (0.013-0.987) | 3.0 (0.6-8.8) | 465.2 | 0.017 h |" in text
    assert "| set hard |" not in text and "range ladder" not in text and "| b | 1 of 1 (0.025-1.000) |" in text
    laddered = tables([*CLIPS, drone("d1", 40, scale=0.5, size="3-5 px", apparent_px=3.0)])
    assert "range ladder: recall" in laddered and "| infrared x 0.5 | 1 of 1 (0.025-1.000) | 0.400 |" in laddered


def test_two_runs_are_compared_clip_by_clip():
    before = [drone(str(number), right) for number, right in enumerate((20, 50, 90, 60))] + [drone("gone", 1)]
    after = [
        drone(one.name, one.metrics.right_centre + gain) for one, gain in zip(before, (9, 11, 9, 11), strict=False)
    ] + [bird("new", 0)]
    differences, others = compared(before, after)
    assert others == ["gone", "new"]
    recall = differences["all"]["recall"]
    assert (recall.before, recall.after) == (0.55, 0.65) and recall.bounds == pytest.approx((0.1, 0.1), abs=0.011)
    assert "false tracks/min" not in differences["all"]
    with pytest.raises(DataError, match="no clip in common"):
        compared(before, [bird("new", 0)])


def test_the_file_gives_the_results_back_and_says_all_that_follows(tmp_path: Path):
    report = ClipReport("f00d", "reference", [*CLIPS, drone("d1", 40, scale=0.5)])
    report.write(tmp_path / "a.json")
    read = read_report(tmp_path / "a.json")
    assert total(read.clips) == total(report.clips) and tables(read.clips) == tables(report.clips)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["groups"]["all"]["figures"]["drones found"] == {
        "value": pytest.approx(2 / 3), "bounds": pytest.approx(list(clopper_pearson(2, 3)))
    }  # fmt: skip
    assert content["groups"]["infrared bird"]["figures"]["F1"] == {"value": None, "bounds": None}
    assert content["ladder"]["all"]["5-8 px"]["labels"] == 400
    assert {row["camera"] for row in content["clips"]} == {"a", "b"}


def test_folds_are_pooled_once_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ClipReport("f00d", "reference", CLIPS[:2]).write(tmp_path / "1.json")
    ClipReport("beef", "reference", CLIPS[2:]).write(tmp_path / "2.json")
    report = pooled([tmp_path / "1.json", tmp_path / "2.json"])
    assert report.checkpoint == "f00d beef" and tables(report.clips) == tables(CLIPS)
    clip_report.run([tmp_path / "1.json", tmp_path / "2.json"], [tmp_path / "1.json"], None)
    printed = capsys.readouterr().out
    assert "0.750 -> 0.750 |" in printed
    assert "not compared, since only one side has them: d3, n1, n2" in printed
    (tmp_path / "3.json").write_bytes((tmp_path / "2.json").read_bytes())
    with pytest.raises(ConfigError, match=r"3\.json: clip d3 is in .*2\.json too"):
        pooled([tmp_path / "2.json", tmp_path / "3.json"])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"groups": {}}', '{"checkpoint": "", "engine": "", "clips": [{"name": 1}]}']
)
def test_what_is_no_result_is_named(tmp_path: Path, text: str):
    (tmp_path / "no.json").write_text(text)
    with pytest.raises(
        ConfigError, match=r"no\.json: cannot be read .*expected the JSON file of `dasnet evaluate-clips`"
    ):
        read_report(tmp_path / "no.json")
