"""Renders a grid world in first-person view by ray casting: one ray per column, all frames at once, NumPy only.

Cells are 1 x 1 with walls 1 high; the eye is at half height.  Letters: t frames, r rows, q columns of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

TEXELS = 16  # texels along the edge of a texture
FIELD_OF_VIEW = math.radians(80)
_LEVELS = 5  # 16, 8, 4, 2, 1 texels along an edge
_LEVEL_SIZE = np.array([TEXELS >> level for level in range(_LEVELS)])
_NEAREST = 0.05
_CHUNK = 25  # frames rendered at once; more do not fit into the processor's cache
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class World:
    """A grid of cells and the textures of its surfaces.

    open: (cells, cells) bool, False at the whole border; a row is y, a column is x.
    wall, floor, ceiling: (cells, cells) texture number of a cell; a wall has the texture of its own cell.
    textures: (textures, TEXELS, TEXELS, 3) float32 in 0..255.
    """

    open: np.ndarray
    wall: np.ndarray
    floor: np.ndarray
    ceiling: np.ndarray
    textures: np.ndarray


def render(world: World, poses: np.ndarray, size: int) -> np.ndarray:
    """Renders one picture for each pose.

    Pictures are rendered at twice the size and averaged 2 x 2.  Far surfaces use coarser copies of their texture.

    Args:
        poses: (t, 3): x and y in cells, heading in radians (0 = along x).

    Returns:
        (t, size, size, 3) uint8.
    """
    fine = _SUPERSAMPLING * size
    texels, first = _pyramid(world.textures)
    pictures = np.empty((len(poses), size, size, 3), np.uint8)
    for start in range(0, len(poses), _CHUNK):
        texel, light = _surfaces(world, first, poses[start : start + _CHUNK].astype(np.float32), fine)
        colours = texels.take(texel, axis=0)
        colours *= light[..., None]
        colours = colours.reshape(-1, size, _SUPERSAMPLING, fine, 3).sum(2)
        colours = colours.reshape(-1, size, size, _SUPERSAMPLING, 3).sum(3)
        pictures[start : start + _CHUNK] = colours / _SUPERSAMPLING**2 + 0.5
    return pictures


def _pyramid(textures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All texels of all textures and of their halved copies, (texels, 3), and the index at which each level starts."""
    levels = [textures.astype(np.float32)]
    while levels[-1].shape[1] > 1:
        n, edge = levels[-1].shape[0], levels[-1].shape[1] // 2
        levels.append(levels[-1].reshape(n, edge, 2, edge, 2, 3).mean((2, 4)))
    flat = [level.reshape(-1, 3) for level in levels]
    return np.concatenate(flat), np.cumsum([0, *(len(level) for level in flat[:-1])])


def _surfaces(world: World, first: np.ndarray, poses: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel (t, r, q): the index of its texel, and its brightness."""
    focal = size / 2 / math.tan(FIELD_OF_VIEW / 2)
    across = ((np.arange(size) + 0.5 - size / 2) / focal).astype(np.float32)
    x, y, heading = poses.T[:, :, None]
    ray_x = np.cos(heading) - across * np.sin(heading)
    ray_y = np.sin(heading) + across * np.cos(heading)
    distance, along, across_x, cell = _cast(world.open, x, y, ray_x, ray_y)

    level, edge = _level(distance / focal, first)
    column = level + world.wall.ravel()[cell] * edge**2 + (along * edge).astype(np.int32)
    height = across[:, None] * distance[:, None, :] + np.float32(0.5)  # 0 at the ceiling, 1 at the floor
    is_wall = (height >= 0) & (height < 1)
    texel = column[:, None, :] + (height * edge[:, None, :]).astype(np.int32) * edge[:, None, :]
    light = np.broadcast_to((_light(distance) * np.where(across_x, 1, 0.8))[:, None, :], is_wall.shape)

    reach = 0.5 / np.abs(across)  # distance at which rays hit floor or ceiling, by row of the picture
    level, edge = (rows[:, None] for rows in _level(reach**1.5 / focal, first))
    flat_x, flat_y = (p[:, None, :] + reach[:, None] * ray[:, None, :] for p, ray in ((x, ray_x), (y, ray_y)))
    cell_x, cell_y = flat_x.astype(np.int32), flat_y.astype(np.int32)
    texel_x, texel_y = ((flat_x - cell_x) * edge).astype(np.int32), ((flat_y - cell_y) * edge).astype(np.int32)
    cells = len(world.open)
    cell = np.clip(cell_y, 0, cells - 1) * cells + np.clip(cell_x, 0, cells - 1)
    half = size // 2
    texture = np.empty_like(cell)
    texture[:, :half] = world.ceiling.ravel()[cell[:, :half]]
    texture[:, half:] = world.floor.ravel()[cell[:, half:]]
    flat = level + (texture * edge + texel_y) * edge + texel_x
    return np.where(is_wall, texel, flat), np.where(is_wall, light, _light(reach)[:, None])


def _cast(is_open: np.ndarray, x: np.ndarray, y: np.ndarray, ray_x: np.ndarray, ray_y: np.ndarray):
    """Follows each ray (t, q) from wall-free x, y (t, 1) through the grid to the first wall.

    Returns:
        The distance along the view direction, the position on the wall in [0, 1), whether the wall faces along x, and
        the wall's cell (flattened).
    """
    cells = len(is_open)
    solid = ~is_open.ravel()
    per_x, per_y = (1 / np.maximum(np.abs(ray), np.float32(1e-6)) for ray in (ray_x, ray_y))
    cell_x, cell_y = np.floor(x), np.floor(y)
    next_x = np.where(ray_x < 0, x - cell_x, cell_x + 1 - x) * per_x
    next_y = np.where(ray_y < 0, y - cell_y, cell_y + 1 - y) * per_y
    step_x = np.where(ray_x < 0, -1, 1)
    step_y = np.where(ray_y < 0, -cells, cells)
    cell = np.broadcast_to((cell_y * cells + cell_x).astype(np.int64), ray_x.shape).copy()
    across_x = np.zeros(ray_x.shape, bool)
    distance = np.zeros_like(ray_x)
    walking = np.ones(ray_x.shape, bool)
    while walking.any():
        nearer_x = next_x < next_y
        across_x = np.where(walking, nearer_x, across_x)
        distance = np.where(walking, np.minimum(next_x, next_y), distance)
        cell += walking * np.where(nearer_x, step_x, step_y)
        next_x += nearer_x * per_x
        next_y += ~nearer_x * per_y
        walking &= ~solid[cell]
    distance = np.maximum(distance, np.float32(_NEAREST))
    along = np.where(across_x, y + distance * ray_y, x + distance * ray_x)
    return distance, along - np.floor(along), across_x, cell


def _level(footprint: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the copies of the textures whose texels are about as large as a pixel's footprint.

    Returns:
        The index at which these copies start, and the number of texels along their edge.
    """
    level = np.clip(np.log2(np.maximum(footprint * TEXELS, 1)), 0, _LEVELS - 1).astype(np.int32)
    return first[level].astype(np.int32), _LEVEL_SIZE[level].astype(np.int32)


def _light(distance: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.float32(0.1) * distance)).astype(np.float32)
