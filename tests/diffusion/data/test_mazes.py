"""Built-in mazes: the same video for the same number, places that come back, and the draw of clips."""

import math

import numpy as np
import psutil
import pytest
import torch

from diffusion.data import DataConfig, mazes, open_clips
from diffusion.data.maze_videos import FIRST_TEST
from diffusion.data.raycast import TEXELS, World, render


@pytest.fixture
def config(tmp_path):
    return DataConfig(videos=3, size=8, frames=5, cache=str(tmp_path))


def room(wall: tuple[float, float, float] = (200, 100, 50)) -> World:
    """One open cell row of three, grey above and below, walls of one colour."""
    is_open = np.zeros((5, 5), bool)
    is_open[2, 1:4] = True
    textures = np.empty((3, TEXELS, TEXELS, 3), np.float32)
    textures[0], textures[1], textures[2] = wall, 30, 60
    texture = np.zeros((5, 5), int)
    return World(open=is_open, wall=texture, floor=texture + 1, ceiling=texture + 2, textures=textures)


def test_a_video_depends_only_on_seed_and_number():
    first = mazes.video(3, 7, size=8, frames=20)
    mazes.video(3, 8, size=8, frames=20)
    assert first.shape == (20, 8, 8, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, mazes.video(3, 7, size=8, frames=20))
    assert not np.array_equal(first, mazes.video(3, 8, size=8, frames=20))
    assert not np.array_equal(first, mazes.video(4, 7, size=8, frames=20))


def test_a_longer_video_begins_with_the_shorter_one():
    assert np.array_equal(mazes.video(0, 0, size=8, frames=60)[:31], mazes.video(0, 0, size=8, frames=31))


@pytest.mark.parametrize("index", range(6))
def test_every_open_cell_can_be_reached_and_there_are_loops(index):
    is_open = mazes.make_world(np.random.default_rng((0, index))).open
    assert not is_open[[0, -1]].any()
    assert not is_open[:, [0, -1]].any()
    cells = [tuple(map(int, cell)) for cell in np.argwhere(is_open)]
    paths = [mazes.shortest_path(is_open, cells[0], cell) for cell in cells]
    assert all(path[-1] == cell for path, cell in zip(paths[1:], cells[1:], strict=True))
    doors = (is_open[1:] & is_open[:-1]).sum() + (is_open[:, 1:] & is_open[:, :-1]).sum()
    assert doors >= len(cells)  # a tree has one door less than cells


@pytest.mark.parametrize("index", range(4))
def test_the_walker_keeps_its_distance_from_walls_moves_smoothly_and_returns(index):
    rng = np.random.default_rng((0, index))
    world = mazes.make_world(rng)
    x, y, heading = mazes.walk(world.open, rng, 300).T
    for dx in (-0.1, 0.1):
        assert world.open[y.astype(int), (x + dx).astype(int)].all()
        assert world.open[(y + dx).astype(int), x.astype(int)].all()
    assert np.abs(np.diff(heading)).max() <= math.radians(10) + 1e-9
    assert np.hypot(np.diff(x), np.diff(y)).max() <= 0.1 + 1e-9
    visited = list(zip(x.astype(int), y.astype(int), strict=True))
    assert len(set(visited)) >= 6
    assert any(visited[t] in visited[: t - 64] for t in range(65, 300))


def test_a_room_has_the_expected_picture():
    picture = render(room(), np.array([[1.5, 2.5, 0.0]]), 16)[0].astype(int)
    assert (picture[7:9, 8] == picture[8, 8]).all()
    distant, near = picture[8, 8], picture[8, 0]
    # The end of the corridor is 2.5 cells away and lit by 1 / (1 + 0.1 * 2.5); walls along it are a fifth darker.
    assert np.abs(distant - np.array([200, 100, 50]) / 1.25).max() <= 1
    assert near[0] < 200 * 0.8
    assert np.array_equal(picture[:, 3], picture[:, 12])  # the corridor is symmetric
    assert picture[0, 8].tolist() == [picture[0, 8, 0]] * 3
    assert picture[0, 8, 0] > picture[15, 8, 0]  # ceiling 60, floor 30


def test_rotating_world_and_walker_does_not_change_the_picture():
    rng = np.random.default_rng(2)
    world = mazes.make_world(rng)
    plain = np.zeros_like(world.textures) + world.textures.mean((1, 2), keepdims=True)
    plain[: world.wall.max() + 1] = 0  # walls along x and along y are lit differently
    turned = World(*(np.rot90(grid, -1) for grid in (world.open, world.wall, world.floor, world.ceiling)), plain)
    x, y, heading = poses = mazes.walk(world.open, rng, 5).T + np.array([[0], [0], [0.4]])
    there = np.stack([len(world.open) - y, x, heading + math.pi / 2], -1)
    here = render(World(world.open, world.wall, world.floor, world.ceiling, plain), poses.T, 16)
    assert np.abs(here.astype(int) - render(turned, there, 16)).mean() < 0.5
    assert np.abs(here.astype(int) - here[:, :, ::-1]).mean() > 5


def test_a_turn_moves_the_picture_and_a_full_turn_restores_it():
    world = mazes.make_world(np.random.default_rng(0))
    y, x = np.argwhere(world.open)[0] + 0.5
    poses = np.array([[x, y, 0.3], [x, y, 0.3 + math.pi], [x, y, 0.3 + math.tau]])
    here, behind, again = render(world, poses, 16).astype(int)
    assert np.abs(here - behind).mean() > 5
    assert np.abs(here - again).mean() < 0.5


def test_draws_depend_on_seed_and_number_in_any_order(config, tmp_path):
    clips = open_clips(config, split="train")
    forwards = [clips.draw(number, 5).pixels for number in range(12)]
    elsewhere = open_clips(config.replace(cache=str(tmp_path / "b")), split="train")
    for number in reversed(range(12)):
        assert torch.equal(forwards[number], elsewhere.draw(number, 5).pixels)
    assert not all(torch.equal(a, clips.draw(n, 6).pixels) for n, a in enumerate(forwards))
    assert len({pixels.numpy().tobytes() for pixels in forwards}) > 9


def test_a_clip_is_a_window_of_its_video(config):
    clips = open_clips(config.replace(stride=3), split="train")
    drawn = clips.draw(0, 0)
    assert drawn.pixels.shape == (5, 3, 8, 8)
    assert drawn.fps == mazes.FPS / 3
    videos = [torch.from_numpy(mazes.video(0, i, size=8)).permute(0, 3, 1, 2) for i in range(3)]
    assert any(torch.equal(v[s : s + 13 : 3], drawn.pixels) for v in videos for s in range(288))


def test_half_of_the_draws_are_mirrored_with_flip(config):
    plain, flipped = (open_clips(config.replace(flip=flip), split="train") for flip in (False, True))
    mirrored = 0
    for number in range(40):
        a, b = plain.draw(number, 0).pixels, flipped.draw(number, 0).pixels
        assert torch.equal(a, b) or torch.equal(a.flip(-1), b)
        mirrored += not torch.equal(a, b)
    assert 10 <= mirrored <= 30


def test_fixed_clips_are_spread_evenly_and_always_the_same(config):
    clips = open_clips(config, split="test")
    fixed = clips.fixed(6)
    assert len({clip.pixels.numpy().tobytes() for clip in fixed}) == 6
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(fixed, clips.fixed(6), strict=True))
    assert clips.fixed(0) == []


def test_no_maze_is_in_both_splits(config):
    train, test, both = (open_clips(config, split=split) for split in ("train", "test", "all"))
    assert test.videos.names[0] == f"maze {FIRST_TEST}"
    assert set(train.videos.names).isdisjoint(test.videos.names)
    assert both.num_videos == train.num_videos + test.num_videos


def test_mazes_are_as_long_as_the_clips_need(config):
    clips = open_clips(config.replace(frames=200, stride=2, videos=1), split="train")
    assert clips.draw(0, 0).frames == 200


def test_only_rendered_videos_are_written(config, tmp_path):
    clips = open_clips(config.replace(videos=1), split="train")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    clips.draw(0, 0)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.suffix for path in kept] == [".u8"]
    before = kept[0].stat().st_mtime_ns
    clips.draw(1, 0)
    assert kept[0].stat().st_mtime_ns == before


def test_drawing_clips_does_not_leak_memory(config):
    clips = open_clips(config, split="train")
    for number in range(200):
        clips.draw(number, 0)
    process = psutil.Process()
    before = process.memory_info().rss
    for number in range(1500):
        clips.draw(number, 1)
    assert process.memory_info().rss - before < 8 * 2**20
    assert not [file.path for file in process.open_files() if file.path.endswith(".u8")]
