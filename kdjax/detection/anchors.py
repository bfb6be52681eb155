"""Anchors: the reference boxes of a region proposal network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIZES = ((32,), (64,), (128,), (256,), (512,))
RATIOS = (0.5, 1.0, 2.0)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """The anchors of a cell, centered at its origin, `[len(ratios) * len(sizes), 4]`.

    Ratios are height / width, and are the outer loop. Coordinates are rounded half to even.
    """
    roots = np.sqrt(np.asarray(ratios, np.float64))
    widths = np.outer(1 / roots, sizes).ravel()
    heights = np.outer(roots, sizes).ravel()
    return np.round(np.stack([-widths, -heights, widths, heights], 1) / 2)


def strides(image_size: Sequence[int], grids: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Pixels per cell of every grid (rows, columns), rounded down."""
    return [(image_size[0] // rows, image_size[1] // columns) for rows, columns in grids]


def anchors(
    image_size: Sequence[int],
    grids: Sequence[Sequence[int]],
    sizes: Sequence[Sequence[float]] = SIZES,
    ratios: Sequence[Sequence[float]] | None = None,
) -> np.ndarray:
    """All anchors, `[A, 4]` float64, ordered by level, row, column, and anchor of the cell.

    The anchors of a cell are shifted by its index times the stride of its level (no half pixel).

    Args:
      image_size: height and width of the padded image.
      grids: rows and columns of every level's feature map.
      sizes: square roots of the anchors' areas, for every level.
      ratios: height / width, for every level; None for `RATIOS` in all levels.

    Source: Ren et al. 2015, section 3.1.1; Lin et al. 2017 (FPN), section 4.1.
    """
    ratios = [RATIOS] * len(sizes) if ratios is None else ratios
    levels = []
    for grid, stride, level_sizes, level_ratios in zip(
        grids, strides(image_size, grids), sizes, ratios, strict=True
    ):
        y, x = np.meshgrid(
            np.arange(grid[0]) * stride[0], np.arange(grid[1]) * stride[1], indexing="ij"
        )
        shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        levels.append((shifts + cell_anchors(level_sizes, level_ratios)).reshape(-1, 4))
    return np.concatenate(levels)
