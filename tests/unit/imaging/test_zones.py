"""Zones are drawn where they are, and the arrow of a line points to where it is crossed to."""

import numpy as np

from pipeline.geometry import crosses
from pipeline.imaging.zones import COLOUR, draw_zones

GREY = np.full((200, 300), 90, np.uint8)


def drawn(image: np.ndarray) -> np.ndarray:
    return np.abs(image.astype(int) - COLOUR).sum(axis=2) < 60


def test_a_polygon_is_drawn_along_its_edges_and_partly_outside_the_frame() -> None:
    image = draw_zones(GREY, {"gate": [(20, 20), (280, 20), (280, 900)]})
    assert image.shape == (200, 300, 3) and (GREY == 90).all()
    assert drawn(image)[20, 30:270].all() and drawn(image)[30:190, 280].all()
    assert (image[100:190, 2:15] == 90).all()
    assert draw_zones(np.stack([GREY] * 3, axis=2), {}, scale=2).shape == (400, 600, 3)


def test_the_arrow_of_a_line_points_in_its_direction() -> None:
    for line in ([(150.0, 190.0), (150.0, 10.0)], [(150.0, 10.0), (150.0, 190.0)]):
        sides = drawn(draw_zones(GREY, {"": line}))[60:140]
        left, right = sides[:, :147].sum(), sides[:, 153:].sum()
        assert bool(right > left) is crosses(*line, (100, 100), (200, 100))
        assert bool(left > right) is crosses(*line, (200, 100), (100, 100))
