"""The console's colours: distinguishable with any colour vision, and readable, by day and by night."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from support.colours import contrast, least_difference

import pipeline.console

STATIC = Path(pipeline.console.__file__).parent / "static"
DAY, NIGHT = 0, 1
STATES = ("good", "late", "bad")
LABELS = ("uav", "unknown", "bird", "airplane", "helicopter", "other")
CHARTS = tuple(f"chart-{number}" for number in range(1, 9))
GROUNDS = ("back", "panel", "raised", "waiting", "alarm")
READABLE, VISIBLE = 4.5, 3.0  # WCAG: of text, of shapes
DIFFERENT = 12.0  # CIEDE2000


def palette(theme: int) -> dict[str, str]:
    text = (STATIC / "palette.css").read_text()
    return {name: pair.split(", ")[theme] for name, pair in re.findall(r"--([\w-]+): light-dark\(([^)]*)\);", text)}


def test_the_differences_are_those_of_the_standard() -> None:
    assert least_difference("#123456", "#123456") == 0
    assert least_difference("#000", "#fff") == pytest.approx(100, abs=0.1)
    assert least_difference("#ff0000", "#00ff00") < 60, "alike without red or green, as far as hue goes"
    assert contrast("#000", "#fff") == pytest.approx(21)


@pytest.mark.parametrize("theme", [DAY, NIGHT])
@pytest.mark.parametrize("names", [STATES, LABELS])
def test_colours_are_told_apart_with_any_colour_vision(theme: int, names: tuple[str, ...]) -> None:
    colours = palette(theme)
    alike = {
        pair: difference
        for pair in combinations(names, 2)
        if (difference := least_difference(*(colours[name] for name in pair))) < DIFFERENT
    }
    assert not alike


@pytest.mark.parametrize("theme", [DAY, NIGHT])
def test_text_is_readable_on_every_ground(theme: int) -> None:
    colours = palette(theme)
    texts = ("text", "dim", "focus", *STATES, *LABELS)
    pairs = [(text, ground) for text in texts for ground in GROUNDS] + [("alarm-text", "alarm-back")]
    assert not [pair for pair in pairs if contrast(*(colours[name] for name in pair)) < READABLE]
    faint = [name for name in CHARTS if contrast(colours[name], colours["panel"]) < VISIBLE]
    assert not faint


def test_labels_are_readable_on_images() -> None:
    text = (STATIC / "palette.css").read_text()
    back = re.findall(r"--image-back: (#\w+);", text)[0]
    on_images = dict(re.findall(r"--((?:image|zone|mask)[\w-]*): (#\w+);", text))
    assert set(on_images) > {"zone", "mask", "image-text", "image-bad"}
    names = [name for name in on_images if name not in ("image-back", "image-line")]
    assert not [name for name in names if contrast(on_images[name], back) < READABLE]
    assert not [name for name in LABELS if contrast(palette(NIGHT)[name], back) < READABLE]


def test_every_page_has_its_colours_from_the_palette() -> None:
    own = {
        path.name: re.findall(r"#[0-9a-fA-F]{3,8}\b(?!-)", "\n".join(re.findall(r":[^;{}]*;", path.read_text())))
        for path in STATIC.glob("*.css")
        if path.name != "palette.css"
    }
    assert not {name: colours for name, colours in own.items() if colours}
    scripts = {
        path.name: re.findall(r"[\"'`]#[0-9a-fA-F]{3,8}[\"'`]", path.read_text()) for path in STATIC.glob("*.js")
    }
    assert not {name: colours for name, colours in scripts.items() if colours}
