"""Points, segments and polygons in an image: x to the right, y down.  Pure."""

from collections.abc import Sequence
from itertools import combinations

Point = tuple[float, float]


def is_inside(point: Point, polygon: Sequence[Point]) -> bool:
    """Return whether a point lies inside a polygon: a ray from it crosses the outline an odd number of times."""
    x, y = point
    inside = False
    for (x0, y0), (x1, y1) in edges(polygon):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
    return inside


def edges(polygon: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Return the edges of a closed polygon: the first one leads from its first point to the second."""
    return list(zip(polygon, [*polygon[1:], polygon[0]], strict=True))


def crosses(first: Point, second: Point, start: Point, end: Point) -> bool:
    """Return whether the way from `start` to `end` crosses a line from left to right, seen from `first` to `second`."""
    is_rightward = _side(first, second, start) < 0 <= _side(first, second, end)
    return is_rightward and _side(start, end, first) * _side(start, end, second) <= 0


def polygon_fault(polygon: Sequence[Point]) -> str | None:
    """Return why the points enclose no single area: two are the same, or two edges meet; None: they do.

    Points and edges are counted from 1.
    """
    for (one, point), (other, again) in combinations(enumerate(polygon, 1), 2):
        if point == again:
            return f"points {one} and {other} are the same; a polygon closes by itself"
    for (one, edge), (other, next_edge) in combinations(enumerate(edges(polygon), 1), 2):
        is_adjacent = other == one + 1 or (one == 1 and other == len(polygon))
        if is_adjacent:
            outer = [point for point in (*edge, *next_edge) if not (point in edge and point in next_edge)]
            shared = next(point for point in edge if point in next_edge)
            if _is_folded(shared, outer[0], outer[1]):
                return f"edges {one} and {other} lie on each other"
        elif _touch(*edge, *next_edge):
            return f"edges {one} and {other} cross"
    return None


def _side(first: Point, second: Point, point: Point) -> float:
    """Return a number that is positive to the right of a line, negative to its left, and 0 on it."""
    return (second[0] - first[0]) * (point[1] - first[1]) - (second[1] - first[1]) * (point[0] - first[0])


def _is_folded(corner: Point, one: Point, other: Point) -> bool:
    """Return whether both points lie in the same direction from a corner."""
    along = (one[0] - corner[0]) * (other[0] - corner[0]) + (one[1] - corner[1]) * (other[1] - corner[1])
    return _side(corner, one, other) == 0 and along > 0


def _touch(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Return whether two segments have a point in common."""
    sides = _side(a, b, c), _side(a, b, d), _side(c, d, a), _side(c, d, b)
    if not any(sides):  # on one line
        return all(min(a[k], b[k]) <= max(c[k], d[k]) and min(c[k], d[k]) <= max(a[k], b[k]) for k in (0, 1))
    return sides[0] * sides[1] <= 0 and sides[2] * sides[3] <= 0
