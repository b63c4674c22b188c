"""The report, in one file into which no file name can inject anything, and drawn frames."""

import dataclasses
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import msgspec
import numpy as np
import pytest

from pipeline.imaging import overlay
from pipeline.replay.report import write_report
from pipeline.replay.summary import ModelSummary, Percentiles, Summary, TrackSummary
from pipeline.replay.thumbnails import Thumbnails
from pipeline.types import Band, Detections, Frame, FrameRef, Mask, Track, TrackState

HOSTILE = "<script>alert(1)</script>&amp;'\"><img src=x onerror=alert(2)>\u202eexe"


def ref(seq: int) -> FrameRef:
    return FrameRef("north", "0123abcd", seq, seq / 30, 0, 0)


def summary(source: str = "north.mp4", **changes: Any) -> Summary:
    tracks = (TrackSummary(3, "uav", 4, 99, 0.1, 3.3, 90, 0.93), TrackSummary(5, "bird", 40, 140, 1.3, 4.6, 80, 0.7))
    attributes: dict[str, Any] = {
        "source": source, "frames": 305, "tracks": 1, "alerts": 1, "first_detection_s": 0.1, "complete": True,
        "latency_ms": {"inference": Percentiles.of([20.0])}, "engine": "torch-cpu", "end_s": 10.1, "fps": 30.0,
        "model": ModelSummary("das_net", "ab" * 32, ("uav", "bird")), "size_px": (320, 256), "per_track": tracks,
    }  # fmt: skip
    return Summary(**(attributes | changes))


def seen(
    number: int, score: float, at: tuple[int, int] = (150, 120), side: int = 10, label: str = "uav"
) -> tuple[Detections, Track]:
    left, top = at
    box = np.array([[left, top, left + side, top + side]], np.float32)
    one = np.array([score], np.float32)
    mask = Mask.pack(left, top, np.ones((side, side), np.bool_))
    detections = Detections(
        ref(5),
        Band.INFRARED,
        (320, 256),
        ("uav", "bird"),
        box,
        one,
        one,
        0 * one,
        0 * one,
        np.stack([one, 1 - one], axis=1),
        one,
        box[:, :2],
        [mask],
    )
    xyxy = (float(left), float(top), float(left + side), float(top + side))
    track = Track(
        number, "01HZ", "north", "0123abcd", TrackState.CONFIRMED, label, {}, xyxy, (9.0, 0.0), score, 9, ref(0), ref(5)
    )
    return detections, track


def frame(seq: int, width: int = 320, height: int = 256, shade: int = 60) -> Frame:
    return Frame(ref(seq), Band.INFRARED, np.full((height, width), shade, np.uint8))


class Page(HTMLParser):
    """The elements, links, images and scripts that a browser would find."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        attributes = {name: value or "" for name, value in attrs}
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
        self.handlers += [name for name in attributes if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE.replace("/", "_")
    folder.mkdir()
    (folder / "tracks.txt").touch()
    track = TrackSummary(1, HOSTILE, 1, 2, 0.0, 0.1, 2, 0.5)
    one = summary(
        HOSTILE, error=f"{HOSTILE}: cut off", complete=False, engine=HOSTILE, per_track=(track,),
        model=ModelSummary(HOSTILE, HOSTILE, ()),
    )  # fmt: skip
    page = Page(write_report(tmp_path, [(one, Thumbnails(folder)), (summary("caf\udce9"), Thumbnails(folder))]))
    assert page.tags.count("script") == 1 and "img" not in page.tags and not page.handlers
    assert page.text.count(HOSTILE) >= 4  # its name, its error above and below, its label
    files = [link for link in page.links if not link.startswith("#")]
    assert len(files) == 2 and all((tmp_path / unquote(link)).is_file() for link in files)


def test_nothing_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    thumbnails = Thumbnails(tmp_path / "north")
    detections, track = seen(3, 0.9)
    thumbnails.update(frame(5), detections, [track])
    text = write_report(tmp_path, [(summary(), thumbnails)]).read_text()
    page = Page(tmp_path / "report.html")
    assert len(page.sources) == 1 and page.sources[0].startswith("data:image/jpeg;base64,")
    assert not {"link", "iframe"} & set(page.tags)
    script = text.partition("<script>")[2].partition("</script>")[0]
    assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in text, "the only script that may run"
    assert "http" not in text.replace("http-equiv", "") and "@import" not in text and "url(" not in text


def test_links_lead_to_files_that_are_there(tmp_path: Path) -> None:
    names = ("tracks.txt", "tracks.csv", "detections.jsonl", "events.jsonl", "summary.json")
    (tmp_path / "north").mkdir()
    for name in names:
        (tmp_path / "north" / name).touch()
    page = Page(write_report(tmp_path, [(summary(), Thumbnails(tmp_path / "north"))]))
    assert [link for link in page.links if link[0] != "#"] == [f"./north/{name}" for name in names]
    (tmp_path / "north" / "annotated.mp4").touch()
    assert "./north/annotated.mp4" in Page(write_report(tmp_path, [(summary(), Thumbnails(tmp_path / "north"))])).links


def test_totals_and_errors_are_in_plain_sight(tmp_path: Path) -> None:
    broken = summary("b.mp4", error="b.mp4: no frame after 2.1 s", complete=False, per_track=(), alerts=0)
    inputs = [(summary(), Thumbnails(tmp_path / "north")), (broken, Thumbnails(tmp_path / "b"))]
    page = Page(write_report(tmp_path, inputs))
    words = " ".join(page.text.split())
    for expected in ("2inputs", "610frames", "2tracks", "1 uav", "1 bird", "1alerts", "1broken inputs"):
        assert expected in words, expected
    assert words.count("no frame after 2.1 s") == 2 and "#i2" in page.links
    assert "No track was confirmed." in words and "das_net abababababab on torch-cpu" in words


def test_the_same_summaries_give_the_same_bytes(tmp_path: Path) -> None:
    def once() -> bytes:
        thumbnails = Thumbnails(tmp_path / "north")
        detections, track = seen(3, 0.9)
        thumbnails.update(frame(5), detections, [track])
        return write_report(tmp_path, [(summary(), thumbnails)]).read_bytes()

    assert once() == once()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("per_track", [1, 300])
def test_the_timeline_stays_within_its_width(tmp_path: Path, per_track: int) -> None:
    tracks = tuple(TrackSummary(i, "unknown", i, i, i / 30, i / 30, 1, 0.5) for i in range(1, per_track + 1))
    text = write_report(tmp_path, [(summary(per_track=tracks), Thumbnails(tmp_path / "north"))]).read_text()
    bars = [part.split('"') for part in text.split("<rect x=")[1:]]
    assert len(bars) == per_track
    assert all(float(bar[1].rstrip("%")) + float(bar[5].rstrip("%")) <= 100.01 for bar in bars)
    assert ("<details open>" in text) == (per_track == 1)


def test_an_input_of_one_frame_or_none_has_a_card(tmp_path: Path) -> None:
    single = TrackSummary(1, "uav", 1, 1, 0.0, 0.0, 1, 0.5)
    inputs = [summary(per_track=(single,), end_s=0.0), summary(frames=0, per_track=(), first_detection_s=None)]
    page = Page(write_report(tmp_path, [(one, Thumbnails(tmp_path / "north")) for one in inputs]))
    assert page.tags.count("section") == 2
    assert Page(write_report(tmp_path, [])).tags.count("section") == 0


def test_recordings_of_known_time_share_a_time_line(tmp_path: Path) -> None:
    inputs = [
        (summary("west.mp4", start_time_utc="2026-05-04T03:02:11.000Z"), Thumbnails(tmp_path / "west")),
        (summary("east.mp4", start_time_utc="2026-05-04T03:02:01.000Z"), Thumbnails(tmp_path / "east")),
        (summary("north.mp4"), Thumbnails(tmp_path / "north")),
    ]
    page = Page(write_report(tmp_path, inputs))
    text = page.text.partition("one clock")[2]
    assert "1 recording without tracks or wall-clock time" in text
    assert text.index("east.mp4") < text.index("west.mp4") and "03:02:05" in text
    assert "one clock" not in Page(write_report(tmp_path, inputs[1:])).text


def test_first_sighting_and_confirmation_are_apart(tmp_path: Path) -> None:
    known = {"first_sighting_frame": 1, "first_sighting_s": 0.02, "first_sighting_time_utc": "2026-05-04T03:02:01.020Z"}
    track = msgspec.structs.replace(summary().per_track[0], **known)
    page = Page(write_report(tmp_path, [(summary(per_track=(track,)), Thumbnails(tmp_path / "north"))]))
    words = " ".join(page.text.split())
    assert "0.02 s03:02:01.020Z 0.10 s" in words and "first sighting 0.02 s, confirmed 0.10 s" in words


def test_a_damaged_table_is_told_and_the_report_is_written(tmp_path: Path) -> None:
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "tracks.csv").write_text("frame,time_s,time_utc,id,label,x,y,w,h,score,state\n1,soon\n")
    page = Page(write_report(tmp_path, [(summary(), Thumbnails(tmp_path / "north"))]))
    assert "not a tracks.csv of dasnet" in page.text and "3 tracks" not in page.text


# thumbnails


def test_each_target_keeps_its_best_frame(tmp_path: Path) -> None:
    thumbnails = Thumbnails(tmp_path)
    for seq, score in enumerate((0.5, 0.9, 0.7, 0.9)):
        detections, track = seen(3, score)
        thumbnails.update(frame(seq, shade=40 * seq), detections, [track])
    for state, label in ((TrackState.TENTATIVE, "uav"), (TrackState.COASTING, "uav"), (TrackState.CONFIRMED, "bird")):
        detections, track = seen(4, 0.99, label=label)
        thumbnails.update(frame(9), detections, [msgspec.structs.replace(track, state=state)])
    (best,) = thumbnails.by_track()
    assert (best.track_id, best.label, best.score, best.pts_s) == (3, "uav", 0.9, 1 / 30)
    image = cv2.imdecode(np.frombuffer(best.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape == (240, 320, 3)
    assert abs(int(image[5, 5, 0]) - 40) < 6  # of the second frame
    assert image[..., 2].max() > 200 > image[..., 0].max()  # a red mark


@pytest.mark.parametrize(("at", "side"), [((0, 0), 4), ((310, 246), 10), ((20, 10), 230), ((100, 100), 60)])
def test_any_target_fits_its_thumbnail(tmp_path: Path, at: tuple[int, int], side: int) -> None:
    thumbnails = Thumbnails(tmp_path)
    detections, track = seen(1, 0.9, at, side)
    thumbnails.update(frame(0), detections, [track])
    image = cv2.imdecode(np.frombuffer(thumbnails.by_track()[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape[0] <= 240 and image.shape[1] <= 320
    assert image[..., 2].max() > 180


def test_few_thumbnails_are_kept_and_those_of_uavs_first(tmp_path: Path) -> None:
    thumbnails = Thumbnails(tmp_path, limit=2)
    for number, score, label in (
        (1, 0.9, "unknown"),
        (2, 0.8, "uav"),
        (3, 0.7, "uav"),
        (4, 0.95, "unknown"),
        (5, 0.6, "uav"),
    ):
        detections, track = seen(number, score, label=label)
        thumbnails.update(frame(0), detections, [track])
    assert [shot.track_id for shot in thumbnails.by_track()] == [2, 3]


def test_a_target_that_turned_out_to_be_a_bird_is_not_shown(tmp_path: Path) -> None:
    thumbnails = Thumbnails(tmp_path / "north")
    detections, track = seen(5, 0.9, label="unknown")
    thumbnails.update(frame(0), detections, [track])
    assert not Page(write_report(tmp_path, [(summary(), thumbnails)])).sources


# the overlay


def scaled(detections: Detections, scale: float) -> Detections:
    """The same mask, from a smaller or larger input of the network."""
    return dataclasses.replace(detections, xyxy=detections.xyxy * np.float32(scale), mask_scale=(scale, scale))


@pytest.mark.parametrize("at", [(150, 120), (0, 0), (310, 246), (2, 200)])
def test_a_target_is_marked_but_never_covered(at: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (256, 320, 3)).astype(np.uint8)
    before = pixels.copy()
    detections, track = seen(3, 0.9, at)
    neighbour = seen(4, 0.9, (at[0] + 4, at[1]), 30)[1]  # whose mark would lie on it
    drawn = overlay.draw(pixels, detections, [track, neighbour])
    assert np.array_equal(pixels, before)
    own = slice(at[1], at[1] + 10), slice(at[0], at[0] + 10)
    tinted = before[own] * (1 - overlay.TINT) + np.array(overlay.colour("uav")) * overlay.TINT
    assert np.abs(drawn[own] - tinted).max() <= 0.5
    assert (drawn != before).any(axis=2).sum() > 600  # brackets and labels are there


def test_a_grey_image_is_enlarged_with_its_marks() -> None:
    detections, track = seen(3, 0.9, (100, 100), 8)
    drawn = overlay.draw(np.zeros((256, 320), np.uint8), detections, [track], scale=2)
    assert drawn.shape == (512, 640, 3) and drawn.dtype == np.uint8
    assert drawn[208, 208].any() and not drawn[104, 104].any()


def test_a_window_of_the_frame_is_drawn_in_the_frames_coordinates() -> None:
    pixels = np.zeros((256, 320, 3), np.uint8)
    detections, track = seen(3, 0.9, (100, 100), 8)
    whole = overlay.draw(pixels, detections, [track], labels=False)
    window = overlay.draw(pixels[80:140, 70:150], detections, [track], origin_px=(70, 80), labels=False)
    assert whole.any() and np.array_equal(whole[80:140, 70:150], window)


def test_each_state_is_drawn_differently() -> None:
    pixels = np.full((256, 320, 3), 90, np.uint8)
    tracks = [msgspec.structs.replace(seen(1, 0.9)[1], state=state) for state in TrackState]
    images = [overlay.draw(pixels, None, [track], labels=False).tobytes() for track in tracks]
    assert len(set(images)) == len(TrackState)
    assert images[list(TrackState).index(TrackState.LOST)] == pixels.tobytes()


def test_what_is_tentative_does_not_look_like_an_alarm() -> None:
    detections, track = seen(1, 0.9)
    images = {}
    for state in (TrackState.CONFIRMED, TrackState.TENTATIVE):
        marked = msgspec.structs.replace(track, state=state)
        images[state] = overlay.draw(np.zeros((256, 320, 3), np.uint8), detections, [marked]).astype(int)
    redder = {state: (drawn[..., 0] - drawn[..., 2]).max() for state, drawn in images.items()}
    assert redder[TrackState.CONFIRMED] > 150 and redder[TrackState.TENTATIVE] <= 0


def test_a_detection_without_a_track_is_marked_too() -> None:
    detections, _ = seen(1, 0.9)
    drawn = overlay.draw(np.zeros((256, 320), np.uint8), detections, [])
    assert drawn[125, 155, 0] > drawn[125, 155, 2] and drawn.any(axis=2).sum() > 400


def test_targets_outside_the_image_do_no_harm() -> None:
    detections, far = seen(1, 0.9, (5000, 5000))
    around = msgspec.structs.replace(far, id=2, xyxy=(-50.0, -50.0, 500.0, 500.0))
    assert overlay.draw(np.zeros((64, 80, 3), np.uint8), detections, [far, around], scale=3).shape == (192, 240, 3)


def mask_image(detections: Detections, width_px: int, height_px: int) -> np.ndarray:
    """The pixels of all masks, 255 on 0."""
    canvas = overlay._Canvas(np.zeros((height_px, width_px), np.uint8))
    for mask in detections.masks:
        window, inside = overlay._place(canvas, mask, detections.mask_scale)
        canvas.image[window][inside] = 255
    return canvas.image


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.25, 0.5])
def test_the_mask_image_is_in_frame_pixels(scale: float) -> None:
    drawn = mask_image(scaled(seen(1, 0.9, (20, 30), 12)[0], scale), 320, 256)
    assert drawn.shape == (256, 320) and set(np.unique(drawn)) == {0, 255}
    assert cv2.boundingRect(drawn) == pytest.approx((20 * scale, 30 * scale, 12 * scale, 12 * scale), abs=1)
    assert (drawn > 0).sum() == pytest.approx((12 * scale) ** 2, rel=0.15)


def test_the_smallest_target_leaves_a_pixel_in_the_mask_image() -> None:
    drawn = mask_image(scaled(seen(1, 0.9, (21, 31), 1)[0], 0.4), 320, 256)
    assert np.argwhere(drawn).tolist() == [[12, 8]]
    assert not mask_image(seen(1, 0.9, (5000, 31))[0], 320, 256).any()
