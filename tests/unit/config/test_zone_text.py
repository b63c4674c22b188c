"""Zones are changed in a site's text, and nothing else is: comments, order and spelling stay."""

import difflib

import pytest

from pipeline.config.zone_text import Areas, areas_in, with_areas
from pipeline.errors import ConfigError

SITE = """\
# The site
cameras:
  - id: north   # by the tower
    uri: "rtsp://user:${CAM_PASSWORD}@192.0.2.10/stream"
    zones:
      # the roof of the hangar
      roof: [[60, 40], [260, 40], [260, 220]]  # measured in May
      fence:
        - [0, 240]
        - [320, 240]
    # the gate camera
  - {id: gate, uri: "rtsp://192.0.2.11/axis-media/media.amp", rate_fps: 15}   # flow

retention:
    days: 30
"""
ROOF = [(60.0, 40.0), (260.0, 40.0), (260.0, 220.0)]
FENCE = [(0.0, 240.0), (320.0, 240.0)]


def changed(camera: str, zones: dict[str, list[tuple[float, float]]], *masks: list[tuple[float, float]]) -> list[str]:
    """The lines that differ from SITE."""
    after = with_areas(SITE, "site.yaml", camera, Areas(zones, masks))
    assert areas_in(after, "site.yaml", camera).zones == zones
    lines = difflib.unified_diff(SITE.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in [*lines][2:] if line[0] != "@"]


def test_an_unchanged_site_keeps_every_byte() -> None:
    assert changed("north", {"roof": ROOF, "fence": FENCE}) == []
    assert changed("gate", {}) == []


def test_only_the_zone_that_moved_is_rewritten() -> None:
    moved = {"roof": [(1.0, 2.0), (3.0, 4.5), (9.0, 0.0)], "fence": FENCE}
    assert changed("north", moved) == [
        "-      roof: [[60, 40], [260, 40], [260, 220]]  # measured in May",
        "+      roof: [[1, 2], [3, 4.5], [9, 0]]  # measured in May",
    ]


def test_a_removed_zone_takes_its_lines_and_no_comment_behind_it() -> None:
    assert changed("north", {"roof": ROOF}) == ["-      fence:", "-        - [0, 240]", "-        - [320, 240]"]
    assert "-    # the gate camera" not in changed("north", {})


def test_new_zones_and_masks_are_added_in_the_style_of_the_entry() -> None:
    new = {"roof": ROOF, "fence": FENCE, "yes": FENCE}
    assert changed("north", new, ROOF) == [
        '+      "yes": [[0, 240], [320, 240]]',
        "+    ignore:",
        "+      - [[60, 40], [260, 40], [260, 220]]",
    ]
    (_, line) = changed("gate", {"road": FENCE}, ROOF)
    assert line.endswith(
        "rate_fps: 15, zones: {road: [[0, 240], [320, 240]]}, ignore: [[[60, 40], [260, 40], [260, 220]]]}   # flow"
    )


def test_line_ends_of_another_system_stay() -> None:
    site = "cameras:\r\n- uri: 'demo:'\r\n  id: north # x"
    after = with_areas(site, "site.yaml", "north", Areas({"roof": ROOF}, []))
    assert after == site + "\r\n  zones:\r\n    roof: [[60, 40], [260, 40], [260, 220]]\r\n"


@pytest.mark.parametrize(
    "site",
    [
        "cameras: [{id: north, zones: &z {a: [[0,0],[1,1]]}}, {id: south, zones: *z}]",
        "x: &z {a: [[0,0],[1,1]]}\ncameras:\n- id: north\n  zones: *z\n",
        "x: &b {zones: {a: [[0,0],[1,1]]}}\ncameras:\n- id: north\n  <<: *b\n- id: south\n  <<: *b\n",
    ],
)
def test_what_others_share_is_not_changed(site: str) -> None:
    with pytest.raises(ConfigError, match="shares zones or ignore by an alias"):
        with_areas(site, "site.yaml", "north", Areas({"a": [(0, 0), (5, 5)]}, []))


def test_a_camera_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="no camera 'west'"):
        areas_in(SITE, "site.yaml", "west")
