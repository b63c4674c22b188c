"""Track while scan: which tiles of a frame the network processes where it may process a share only.  Pure.

Each place of the view waits for the network, and the longer, the more urgent it is: as many times as fast where a
target is expected, and faster where something moves.  A frame's share of pixels is spent on tiles, each centred on the
most urgent place that is left.  So targets are processed often, what moves soon, and every place within a bounded
time.  Motion is found, and chips are judged, in the whole frame all the while.
"""

import numpy as np
from numpy.typing import NDArray

TILE_PX = 128  # side of a tile; all units here are pixels of the network's input
LONGEST_S = 0.5  # between two tiles of a camera, however small the share: enough for a target that is followed
MARGIN_PX = 16  # of a tile, where too little of the surroundings is inside it
CELL_PX = 32  # of the map of waiting times
TILE_COST = 1.3  # of a tile's pixels against a frame's: its edges are computed as well
TARGET_WEIGHT = 20.0  # times as fast does a place with a target become urgent
MOTION_WEIGHT = 5.0

Tile = tuple[int, int, int, int]  # x0, y0, x1, y1


class Scan:
    """Chooses the tiles of one camera's frames."""

    def __init__(self) -> None:
        self._scanned_s = np.zeros((0, 0))  # of each cell: when it was last processed
        self._budget_px = 0.0
        self._now_s = 0.0

    @property
    def revisit_s(self) -> float:
        """How long the place that has waited longest has waited; 0 while whole frames are processed."""
        return float(self._now_s - self._scanned_s.min()) if self._scanned_s.size else 0.0

    def overdue(self, revisit_s: float) -> float:
        """Return the share of the view, 0 to 1, that has waited for longer than this."""
        return float(np.mean(self._now_s - self._scanned_s > revisit_s)) if self._scanned_s.size else 0.0

    def covered(self) -> None:
        """Note that a whole frame is processed."""
        self._scanned_s = np.zeros((0, 0))

    def tiles(
        self,
        size_px: tuple[int, int],
        pts_s: float,
        share: float,
        targets: NDArray[np.float32],
        moving: NDArray[np.float32],
    ) -> list[Tile]:
        """Return the tiles of a frame to process, most urgent first; perhaps none.

        Args:
            size_px: width and height of the frame.
            pts_s: its presentation time.
            share: of the pixels that may be processed, on average.
            targets: where targets are expected (N, 2).
            moving: where something moves (N, 2).
        """
        width, height = size_px
        shape = -(-height // CELL_PX), -(-width // CELL_PX)
        if self._scanned_s.shape != shape or pts_s < self._now_s:
            self._scanned_s = np.full(shape, pts_s)
            self._now_s = pts_s
        area_px, cost_px = width * height, TILE_COST * TILE_PX**2
        allowed_px = max(share * area_px, cost_px * min((pts_s - self._now_s) / LONGEST_S, 1.0))
        self._budget_px = min(self._budget_px + allowed_px, allowed_px + 2 * cost_px)
        self._now_s = pts_s
        weights = self._weights(targets, moving)
        centres = _cell_centres(shape)
        tiles: list[Tile] = []
        while self._budget_px >= cost_px and len(tiles) * cost_px < area_px:
            urgency = weights * (pts_s - self._scanned_s)
            row, column = np.unravel_index(int(urgency.argmax()), shape)
            if urgency[row, column] <= 0:
                break
            x, y = centres[row, column]
            near = [point for point in targets if abs(point[0] - x) <= CELL_PX and abs(point[1] - y) <= CELL_PX]
            tile = _tile((float(near[0][0]), float(near[0][1])) if near else (x, y), size_px)
            x0, y0, x1, y1 = core(tile, size_px)
            inside = (centres >= (x0, y0)) & (centres < (x1, y1))
            self._scanned_s[inside.all(axis=2)] = pts_s
            self._scanned_s[row, column] = pts_s
            self._budget_px -= cost_px
            tiles.append(tile)
        return tiles

    def _weights(self, targets: NDArray[np.float32], moving: NDArray[np.float32]) -> NDArray[np.float64]:
        weights = np.ones(self._scanned_s.shape)
        for points, weight in ((moving, MOTION_WEIGHT), (targets, TARGET_WEIGHT)):
            cells = (points // CELL_PX).astype(int).reshape(-1, 2)
            rows, columns = (np.clip(cells[:, 1 - axis], 0, weights.shape[axis] - 1) for axis in (0, 1))
            weights[rows, columns] = weight
        return weights


def core(tile: Tile, size_px: tuple[int, int]) -> Tile:
    """Return the part of a tile whose targets lie in it with their surroundings: all but its margins."""
    x0, y0, x1, y1 = tile
    width, height = size_px
    return (
        x0 + MARGIN_PX if x0 > 0 else 0,
        y0 + MARGIN_PX if y0 > 0 else 0,
        x1 - MARGIN_PX if x1 < width else width,
        y1 - MARGIN_PX if y1 < height else height,
    )


def _tile(centre: tuple[float, float], size_px: tuple[int, int]) -> Tile:
    sides = [min(TILE_PX, side) for side in size_px]
    x0, y0 = (
        min(max(round(middle - side / 2), 0), whole - side)
        for middle, side, whole in zip(centre, sides, size_px, strict=True)
    )
    return x0, y0, x0 + sides[0], y0 + sides[1]


def _cell_centres(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the centres (h, w, 2) of the cells: x, y."""
    rows, columns = np.indices(shape)
    return np.asarray((np.stack([columns, rows], axis=2) + 0.5) * CELL_PX, np.float64)
