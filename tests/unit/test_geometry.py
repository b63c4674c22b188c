"""Polygons are entered and lines crossed where they are drawn; polygons that enclose no single area are named."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import crosses, is_inside, polygon_fault

SQUARE = [(10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0)]
NOTCHED = [(0.0, 0.0), (40.0, 0.0), (40.0, 40.0), (20.0, 10.0), (0.0, 40.0)]
coordinate = st.floats(-1e4, 1e4, allow_nan=False)


def test_inside_and_outside() -> None:
    assert is_inside((20, 20), SQUARE) and is_inside((10.1, 29.9), SQUARE)
    assert not any(is_inside(point, SQUARE) for point in [(9.9, 20), (20, 30.1), (-5, -5), (20, 500)])
    assert is_inside((5, 20), NOTCHED) and is_inside((35, 20), NOTCHED) and not is_inside((20, 20), NOTCHED)


@given(coordinate, coordinate, st.floats(0, 2 * math.pi), st.floats(1, 500))
def test_a_regular_polygon_holds_what_is_nearer_than_its_edges(x: float, y: float, turn: float, radius: float) -> None:
    corners = [turn + 2 * math.pi * k / 7 for k in range(7)]
    heptagon = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in corners]
    assert polygon_fault(heptagon) is None
    for angle in np.linspace(0, 2 * math.pi, 9):
        near, far = 0.99 * math.cos(math.pi / 7) * radius, 1.01 * radius
        assert is_inside((x + near * math.cos(angle), y + near * math.sin(angle)), heptagon)
        assert not is_inside((x + far * math.cos(angle), y + far * math.sin(angle)), heptagon)


def test_a_line_is_crossed_from_its_left_to_its_right() -> None:
    up = (50.0, 100.0), (50.0, 0.0)  # seen from below, left is the left half of the image
    assert crosses(*up, (40, 50), (60, 50)) and not crosses(*up, (60, 50), (40, 50))
    assert not crosses(*up, (40, 150), (60, 150)), "beyond its end"
    assert not crosses(*up, (10, 50), (20, 50)) and not crosses(*up, (60, 50), (70, 50))
    assert crosses(*reversed(up), (60, 50), (40, 50))
    assert crosses(*up, (40, 50), (50, 50)) and not crosses(*up, (50, 50), (60, 50)), "once, where it ends on it"


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=40))
def test_a_way_crosses_an_endless_line_forth_as_often_as_back_or_once_more(way: list[tuple[int, int]]) -> None:
    first, second = (4.0, 1e3), (4.0, -1e3)
    steps = list(pairwise(way))
    forth = sum(crosses(first, second, *step) for step in steps)
    back = sum(crosses(first, second, end, start) for start, end in steps)
    assert forth - back == (way[-1][0] >= 4) - (way[0][0] >= 4)


@pytest.mark.parametrize(
    ("polygon", "fault"),
    [
        (SQUARE, None),
        (SQUARE[::-1], None),
        (NOTCHED, None),
        ([(0, 0), (10, 10), (10, 0), (0, 10)], "edges 1 and 3 cross"),
        ([*SQUARE, SQUARE[0]], "points 1 and 5 are the same"),
        ([(0, 0), (10, 0), (5, 0)], "edges 1 and 2 lie on each other"),
        ([(0, 0), (10, 0), (10, 10), (5, 0)], "edges 1 and 3 cross"),
        ([(0, 0), (10, 0), (20, 0), (20, 9)], None),
    ],
)
def test_what_is_wrong_with_a_polygon(polygon: list[tuple[float, float]], fault: str | None) -> None:
    found = polygon_fault(polygon)
    assert found is None if fault is None else found is not None and found.startswith(fault)
