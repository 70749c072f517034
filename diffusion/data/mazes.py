"""`builtin:mazes`: walks through random mazes, in first-person view.  Video i of a seed is always the same video.

The walker often returns to earlier places, where the walls must look the same, so a model needs a long memory.
"""

from __future__ import annotations

import colorsys
import math
from collections import deque

import numpy as np

from diffusion.data.raycast import TEXELS, World, render

FPS = 12.0
FRAMES = 300
_STRIDE = 0.1  # cells that the walker moves in one frame
_TURN = math.radians(10)  # largest turn in one frame
_MARGIN = 0.25  # distance from walls, so that no wall fills the picture
_RETURNS = 0.6  # fraction of goals that were goals before
_PAUSES = 0.25  # fraction of goals before which the walker stops and looks around

Cell = tuple[int, int]


def video(seed: int, index: int, *, size: int = 32, frames: int = FRAMES) -> np.ndarray:
    """Renders video `index` of a seed, (frames, size, size, 3) uint8; a longer video begins with the same frames."""
    rng = np.random.default_rng((seed, index))
    world = make_world(rng)
    return render(world, walk(world.open, rng, frames), size)


def make_world(rng: np.random.Generator) -> World:
    """A maze on 3 x 3 or 4 x 4 crossings with a few loops and random colours; some walls are landmarks."""
    nodes = int(rng.integers(3, 5))
    is_open = _carve(rng, nodes)
    cells = len(is_open)
    num_regions = int(rng.integers(2, 5))
    region = _regions(rng, cells, num_regions)
    hue = rng.random()
    colour = iter((hue + np.arange(99) * 0.381966) % 1)  # steps of the golden angle, so that neighbours differ
    walls = [_texture(rng, next(colour), bright=True) for _ in range(num_regions)]
    landmarks = [_texture(rng, next(colour), bright=True) for _ in range(6)]
    floors = [_texture(rng, next(colour), bright=False) for _ in range(num_regions)]
    ceilings = [_texture(rng, next(colour), bright=False) for _ in range(num_regions)]
    is_landmark = rng.random((cells, cells)) < 0.15
    wall = np.where(is_landmark, num_regions + rng.integers(0, len(landmarks), (cells, cells)), region)
    floor = num_regions + len(landmarks) + region
    textures = np.stack(walls + landmarks + floors + ceilings)
    return World(open=is_open, wall=wall, floor=floor, ceiling=floor + num_regions, textures=textures)


def walk(is_open: np.ndarray, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Walks along shortest paths to random goals and turns smoothly.

    Returns:
        (frames, 3): x and y in cells, heading in radians.
    """
    cells = [(int(y), int(x)) for y, x in np.argwhere(is_open)]
    row, column = cells[rng.integers(len(cells))]
    x, y, heading, turn = column + 0.5, row + 0.5, rng.random() * math.tau, 0.0
    path: list[Cell] = []
    goals: list[Cell] = []
    look_around = 0.0  # radians left to turn
    poses = np.empty((frames, 3))
    for frame in range(frames):
        poses[frame] = x, y, heading
        here = int(y), int(x)
        while not path:
            old = goals and rng.random() < _RETURNS
            goal = goals[rng.integers(len(goals))] if old else cells[rng.integers(len(cells))]
            goals.append(goal)
            path = shortest_path(is_open, here, goal)
            if rng.random() < _PAUSES:
                look_around = float(rng.choice((-1.0, 1.0)) * (1 + rng.random()) * math.pi / 2)
        aim_y, aim_x = path[0][0] + 0.5, path[0][1] + 0.5
        error = math.remainder(math.atan2(aim_y - y, aim_x - x) - heading, math.tau)
        if look_around:
            wanted_turn, speed = math.copysign(min(_TURN, abs(look_around)), look_around), 0.0
            look_around = 0.0 if abs(look_around) <= _TURN else look_around - wanted_turn
        else:
            wanted_turn, speed = max(-_TURN, min(_TURN, error / 2)), _STRIDE * max(0.0, math.cos(error)) ** 2
        turn += (wanted_turn - turn) / 2
        heading += turn
        x, y = _step(is_open, x, y, speed * math.cos(heading), speed * math.sin(heading))
        if math.hypot(aim_x - x, aim_y - y) < 0.3:
            path.pop(0)
    return poses


def shortest_path(is_open: np.ndarray, start: Cell, goal: Cell) -> list[Cell]:
    """The cells after `start` up to `goal`, by breadth-first search; empty when start is the goal."""
    came_from: dict[Cell, Cell] = {goal: goal}
    queue = deque([goal])
    while start not in came_from:
        row, column = queue.popleft()
        for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if is_open[near] and near not in came_from:
                came_from[near] = (row, column)
                queue.append(near)
    path = []
    while start != goal:
        start = came_from[start]
        path.append(start)
    return path


def _step(is_open: np.ndarray, x: float, y: float, dx: float, dy: float) -> tuple[float, float]:
    """Moves by (dx, dy); near a wall, moves along it."""
    if is_open[int(y), int(x + dx + math.copysign(_MARGIN, dx))]:
        x += dx
    if is_open[int(y + dy + math.copysign(_MARGIN, dy)), int(x)]:
        y += dy
    return x, y


def _carve(rng: np.random.Generator, nodes: int) -> np.ndarray:
    """Carves open cells by depth-first search over nodes x nodes crossings, then removes some walls between them."""
    cells = 2 * nodes + 1
    is_open = np.zeros((cells, cells), bool)
    stack = [(1 + 2 * int(rng.integers(nodes)), 1 + 2 * int(rng.integers(nodes)))]
    is_open[stack[0]] = True
    while stack:
        row, column = stack[-1]
        steps = [
            (dy, dx)
            for dy, dx in ((2, 0), (-2, 0), (0, 2), (0, -2))
            if 0 < row + dy < cells and 0 < column + dx < cells
        ]
        steps = [(dy, dx) for dy, dx in steps if not is_open[row + dy, column + dx]]
        if not steps:
            stack.pop()
            continue
        dy, dx = steps[rng.integers(len(steps))]
        is_open[row + dy // 2, column + dx // 2] = is_open[row + dy, column + dx] = True
        stack.append((row + dy, column + dx))
    between = [(r, c) for r in range(1, cells - 1) for c in range(1, cells - 1) if (r + c) % 2 and not is_open[r, c]]
    for wall in rng.permutation(between)[: max(1, len(between) // 3)]:
        is_open[tuple(wall)] = True
    return is_open


def _regions(rng: np.random.Generator, cells: int, count: int) -> np.ndarray:
    """(cells, cells) region numbers: each cell belongs to the nearest of `count` random centres."""
    centres = rng.random((count, 2)) * cells
    centres_of_cells = np.stack(list(np.mgrid[:cells, :cells]), -1) + 0.5
    return ((centres_of_cells[:, :, None] - centres) ** 2).sum(-1).argmin(-1)


def _texture(rng: np.random.Generator, hue: float, *, bright: bool) -> np.ndarray:
    """A pattern in two colours, (TEXELS, TEXELS, 3) in 0..255."""
    y, x = np.mgrid[:TEXELS, :TEXELS]
    patterns = (
        (x // 4 + y // 4) % 2,  # checks
        (y % 4 == 3) | ((x + 4 * (y // 4 % 2)) % 8 == 7),  # bricks
        x // 2 % 4 == 0,  # planks
        y // 4 % 2,  # bands
        (x + y) // 4 % 2,  # diagonals
        (x % 8 - 3.5) ** 2 + (y % 8 - 3.5) ** 2 < 7,  # dots
        (x < 2) | (y < 2),  # tiles
        np.maximum(abs(x - 7.5), abs(y - 7.5)) // 2 % 2,  # frames
    )
    mask = np.asarray(patterns[rng.integers(len(patterns))], np.float32)[..., None]
    if bright:
        saturation, value, contrast = (
            0.2 + 0.4 * rng.random(),
            0.75 + 0.25 * rng.random(),
            0.25 + 0.35 * rng.random(),
        )
    else:
        saturation, value, contrast = 0.1 + 0.3 * rng.random(), 0.45 + 0.25 * rng.random(), 0.1 + 0.2 * rng.random()
    light = np.array(colorsys.hsv_to_rgb(hue, saturation, value)) * 255
    dark = light * (1 - contrast)
    grain = rng.normal(0, 6, (TEXELS, TEXELS, 1))
    return np.clip(light * (1 - mask) + dark * mask + grain, 0, 255).astype(np.float32)
