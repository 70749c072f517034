"""The cache of decoded videos: built once, resumed, never stale, and small while it is read."""

import json
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from click.testing import CliRunner

import diffusion.data.build as building
from diffusion.data import DataConfig, DataError, open_clips
from diffusion.data.build import build
from diffusion.data.cache import up_to_date
from diffusion.data.changes import Changes
from temporal_zoo.cli.main import zoo


def pixels(frames: int, seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)


@pytest.fixture
def source(tmp_path) -> Path:
    """Five videos: four train, one test; lengths 20, 21, 22, 23 and 9."""
    for index in range(4):
        (tmp_path / "source/train").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"source/train/{index}.npy", pixels(20 + index, index))
    (tmp_path / "source/test").mkdir()
    np.save(tmp_path / "source/test/0.npy", pixels(9, 9))
    return tmp_path / "source"


@pytest.fixture
def config(source, tmp_path) -> DataConfig:
    return DataConfig(source=str(source), size=8, frames=6, cache=str(tmp_path / "cache"))


def overwrite(path: Path, array: np.ndarray) -> None:
    """Changes a file, and its time for certain: clocks of file systems are coarse."""
    before = path.stat().st_mtime_ns
    np.save(path, array)
    os.utime(path, ns=(before, before + 10**9))


def decoded(monkeypatch) -> list[str]:
    """Names of the files decoded from now on."""
    names: list[str] = []
    decode = building._decode
    monkeypatch.setattr(building, "_decode", lambda file, *rest: names.append(file.name) or decode(file, *rest))
    return names


def test_clips_are_windows_of_the_files(config):
    clips = open_clips(config, split="train")
    assert (clips.channels, clips.size, clips.num_videos) == (3, 8, 4)
    assert clips.num_windows == sum(length - 5 for length in (20, 21, 22, 23))
    videos = [torch.from_numpy(pixels(20 + i, i)).permute(0, 3, 1, 2) for i in range(4)]
    for number in range(20):
        drawn = clips.draw(number, 0).pixels
        assert any(torch.equal(v[s : s + 6], drawn) for v in videos for s in range(len(v) - 5))


def test_every_window_can_be_drawn_and_longer_videos_are_drawn_more_often(source, config):
    np.save(source / "train/long.npy", pixels(400, 5))
    clips = open_clips(config, split="train")
    long = torch.from_numpy(pixels(400, 5)).permute(0, 3, 1, 2)
    first = {long[start, 0, 0, :4].numpy().tobytes() for start in range(395)}
    share = sum(clips.draw(n, 0).pixels[0, 0, 0, :4].numpy().tobytes() in first for n in range(300)) / 300
    assert abs(share - 400 / 486) < 0.08


def test_draws_are_the_same_in_any_order_and_from_any_cache(config, tmp_path):
    here = open_clips(config, split="train")
    there = open_clips(config.replace(cache=str(tmp_path / "other")), split="train")
    there = pickle.loads(pickle.dumps(there))
    ahead = [here.draw(number, 3).pixels for number in range(10)]
    back = [there.draw(number, 3).pixels for number in reversed(range(10))]
    assert all(torch.equal(a, b) for a, b in zip(ahead, reversed(back), strict=True))


def test_a_second_opening_decodes_nothing(config, monkeypatch, caplog):
    open_clips(config, split="train")
    assert "no decoded videos yet" in caplog.text
    caplog.clear()
    names = decoded(monkeypatch)
    open_clips(config, split="test")
    assert names == []
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda s: overwrite(s / "train/1.npy", pixels(21, 77)), ["train/1.npy"]),
        (lambda s: np.save(s / "train/new.npy", pixels(30, 77)), ["train/new.npy"]),
        (lambda s: (s / "train/1.npy").unlink(), []),
    ],
)
def test_only_the_changes_of_a_source_are_decoded_again(source, config, monkeypatch, caplog, change, again):
    open_clips(config, split="train")
    names = decoded(monkeypatch)
    change(source)
    lengths = sorted(open_clips(config, split="train").videos.lengths)
    assert "the source has changed since it was decoded" in caplog.text
    assert names == again
    assert lengths == sorted(len(np.load(path)) for path in source.glob("train/*.npy"))
    shards = list(Path(config.cache).rglob("*.u8"))
    assert len(shards) == len(list(source.rglob("*.npy")))


def test_an_interrupted_build_is_resumed(source, config, tmp_path, monkeypatch):
    folder = up_to_date(source, config.replace(cache=str(tmp_path / "whole")))
    steps = build(source, tmp_path / "halves", size=8)
    next(steps), next(steps)
    steps.close()
    assert not (tmp_path / "halves/meta.json").exists()
    names = decoded(monkeypatch)
    assert [step.done for step in build(source, tmp_path / "halves", size=8)] == [1, 2, 3, 4, 5]
    assert names == ["train/1.npy", "train/2.npy", "train/3.npy"]
    assert json.loads((tmp_path / "halves/index.json").read_text()) == json.loads((folder / "index.json").read_text())


def test_a_crash_while_decoding_leaves_no_partial_file(source, tmp_path, monkeypatch):
    def crash(recording, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "_write", crash)
    with pytest.raises(KeyboardInterrupt):
        list(build(source, tmp_path / "cache", size=8))
    assert list((tmp_path / "cache/videos").iterdir()) == []


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_damaged_shards_are_decoded_again(config, damage, caplog):
    clips = open_clips(config, split="train")
    expected = [clips.draw(number, 0).pixels for number in range(8)]
    damage(next(Path(config.cache).rglob("*.u8")))
    again = open_clips(config, split="train")
    assert "missing or damaged" in caplog.text
    assert all(torch.equal(pixels, again.draw(number, 0).pixels) for number, pixels in enumerate(expected))


def test_a_shard_that_is_deleted_during_training_is_named(config):
    clips = open_clips(config, split="test")
    for shard in Path(config.cache).rglob("*.u8"):
        shard.unlink()
    with pytest.raises(DataError, match=r"test/0\.npy is lost: .*\.u8 cannot be read .*; run zoo data build again"):
        clips.draw(0, 0)


def test_another_format_is_not_read(config, caplog, monkeypatch):
    open_clips(config, split="train")
    monkeypatch.setattr(building, "FORMAT", building.FORMAT + 1)
    monkeypatch.setattr("diffusion.data.cache.FORMAT", building.FORMAT)
    names = decoded(monkeypatch)
    open_clips(config, split="train")
    assert "another format or size" in caplog.text
    assert len(names) == 5


def test_a_built_cache_is_a_source(source, config, tmp_path, caplog):
    list(build(source, tmp_path / "built", size=8))
    whole = config.replace(source=str(tmp_path / "built"))
    expected = open_clips(config, split="train").draw(4, 4).pixels
    assert torch.equal(open_clips(whole, split="train").draw(4, 4).pixels, expected)
    with pytest.raises(DataError, match="holds videos of 8 pixels, not 16; set size=8"):
        open_clips(whole.replace(size=16), split="train")
    np.save(source / "train/new.npy", pixels(30, 77))
    assert open_clips(whole, split="train").num_videos == 5
    assert "the source has changed" in caplog.text
    source.rename(tmp_path / "elsewhere")
    assert open_clips(whole, split="train").num_videos == 5


def test_changes_of_a_source_as_a_value_and_as_text(source, config, caplog):
    before = open_clips(config, split="train").contents
    assert list(before) == [f"train/{index}.npy" for index in range(4)]
    assert not Changes.between(before, open_clips(config, split="train").contents)
    overwrite(source / "train/1.npy", pixels(21, 77))
    overwrite(source / "train/2.npy", np.load(source / "train/2.npy"))  # another time, the same frames
    (source / "train/3.npy").unlink()
    np.save(source / "train/4.npy", pixels(30, 4))
    now = open_clips(config, split="train").contents
    changes = Changes.between(before, now)
    assert changes == Changes(added=("train/4.npy",), removed=("train/3.npy",), changed=("train/1.npy",))
    assert str(changes) == "1 added: train/4.npy; 1 removed: train/3.npy; 1 changed: train/1.npy"
    assert (
        "has changed since it was decoded "
        "(1 added: train/4.npy; 1 removed: train/3.npy; 2 changed: train/1.npy, train/2.npy)" in caplog.text
    )


def test_changes_as_text_count_all_names_and_show_three():
    names = {f"{number}.mp4": "digest" for number in range(9)}
    assert str(Changes.between({}, names)) == "9 added: 0.mp4, 1.mp4, 2.mp4 and 6 more"
    assert str(Changes.between(names, {})).startswith("9 removed: ")
    assert not Changes.between(names, names)
    assert not Changes.between(dict.fromkeys(names, ""), names)  # an old cache, which knows no digests


def test_rendered_videos_have_no_contents(tmp_path):
    assert open_clips(DataConfig(size=8, cache=str(tmp_path)), split="train").contents == {}


def as_format_1(folder: Path) -> None:
    """Makes a cache look as the first format did."""
    meta, index = (json.loads((folder / name).read_text()) for name in ("meta.json", "index.json"))
    meta = {key: meta[key] for key in ("kind", "size", "source", "fingerprint", "num_videos")} | {"format": 1}
    videos = [{key: value for key, value in video.items() if key != "digest"} for video in index["videos"]]
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "index.json").write_text(json.dumps({"videos": videos}))


def test_a_cache_of_the_first_format_is_decoded_again_or_used_unchanged(source, config, tmp_path, caplog):
    list(build(source, tmp_path / "built", size=8))
    built = config.replace(source=str(tmp_path / "built"))
    expected = open_clips(built, split="train").draw(4, 4).pixels
    as_format_1(tmp_path / "built")
    assert CliRunner().invoke(zoo, ["data", "inspect", str(tmp_path / "built"), "--size=8"]).exit_code == 0
    assert torch.equal(open_clips(built, split="train").draw(4, 4).pixels, expected)
    assert caplog.text.count("another format or size") == 1
    assert json.loads((tmp_path / "built/meta.json").read_text())["format"] == building.FORMAT
    as_format_1(tmp_path / "built")
    source.rename(tmp_path / "elsewhere")
    caplog.clear()
    assert torch.equal(open_clips(built, split="train").draw(4, 4).pixels, expected)
    assert len(caplog.messages) == 1
    assert "decoded by an older version" in caplog.text


def test_a_cache_of_a_newer_format_is_an_error_if_its_source_is_gone(source, config, tmp_path):
    list(build(source, tmp_path / "built", size=8))
    meta = json.loads((tmp_path / "built/meta.json").read_text())
    (tmp_path / "built/meta.json").write_text(json.dumps(meta | {"format": building.FORMAT + 1}))
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="install a newer version"):
        open_clips(config.replace(source=str(tmp_path / "built")), split="train")


def test_lost_frames_are_listed_and_are_an_error_with_strict(tmp_path, caplog):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "source/v").mkdir(parents=True)
    for number in range(4):
        image.fromarray(pixels(1, number)[0]).save(tmp_path / f"source/v/{number}.png")
    (tmp_path / "source/v/2.png").write_bytes(b"noise")
    config = DataConfig(source=str(tmp_path / "source"), size=8, frames=3, cache=str(tmp_path / "cache"))
    assert open_clips(config, split="train").videos.lengths == [3]
    assert f"{tmp_path / 'source/v'}: 1 of its 4 pictures are left out" in caplog.text
    (listed,) = Path(config.cache).rglob("bad_files.txt")
    assert "1 of its 4 pictures" in listed.read_text()
    result = CliRunner().invoke(zoo, ["data", "build", config.source, "--size=8", f"--out={tmp_path / 'out'}"])
    assert "1 are kept, with a note" in result.stderr
    with pytest.raises(DataError, match=r"1 of its 4 pictures .*; without strict, the build keeps the other frames"):
        list(build(tmp_path / "source", tmp_path / "strict", size=8, strict=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_clips_have_the_rate_of_their_video_and_several_rates_give_a_warning(tmp_path, caplog, stride):
    image = pytest.importorskip("PIL.Image")
    for name, milliseconds in (("slow", 200), ("fast", 50)):
        frames = [image.fromarray(frame) for frame in pixels(12, 0)]
        (tmp_path / "source").mkdir(exist_ok=True)
        frames[0].save(tmp_path / f"source/{name}.webp", save_all=True, append_images=frames[1:], duration=milliseconds)
    config = DataConfig(
        source=str(tmp_path / "source"), size=8, frames=3, stride=stride, test_share=0, cache=str(tmp_path / "cache")
    )
    clips = open_clips(config, split="train")
    assert "several frame rates: 5 in 1, 20 in 1 of 2 videos; data.stride counts frames" in caplog.text
    assert {clips.draw(number, 0).fps for number in range(20)} == {5 / stride, 20 / stride}
    for command in ("inspect", "build"):
        result = CliRunner().invoke(zoo, ["data", command, config.source], env={"ZOO_CACHE": str(tmp_path / "other")})
        assert "several frame rates" in result.output


def test_a_folder_that_is_not_a_cache_is_not_changed(source, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("")
    with pytest.raises(DataError, match="is not empty and is not a cache of videos"):
        list(build(source, tmp_path / "mine", size=8))
    list(build(source, tmp_path / "cache", size=8))
    (tmp_path / "second").mkdir()
    np.save(tmp_path / "second/a.npy", pixels(9, 1))
    with pytest.raises(DataError, match=r"holds the videos of .*source, not of .*second"):
        list(build(tmp_path / "second", tmp_path / "cache", size=8))


def test_bad_files_are_left_out_and_listed(source, config, caplog):
    (source / "train/broken.npy").write_bytes(b"")
    np.save(source / "train/floats.npy", np.zeros((9, 8, 8, 3)))
    clips = open_clips(config, split="train")
    assert clips.num_videos == 4
    (listed,) = Path(config.cache).rglob("bad_files.txt")
    first, second = listed.read_text().splitlines()
    assert "broken.npy: the file is empty" in first
    assert "floats.npy: its numbers are float64" in second
    assert "left out: " in caplog.text
    (source / "train/broken.npy").unlink()
    (source / "train/floats.npy").unlink()
    open_clips(config, split="train")
    assert not listed.exists()


def test_strict_stops_at_the_first_bad_file_also_in_a_second_build(source, tmp_path):
    (source / "train/broken.npy").write_bytes(b"")
    list(build(source, tmp_path / "cache", size=8))
    with pytest.raises(DataError, match=r"broken\.npy: the file is empty; without strict"):
        list(build(source, tmp_path / "cache", size=8, strict=True))


def test_a_source_of_bad_files_only_is_an_error_every_time(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.mp4").write_bytes(b"")
    config = DataConfig(source=str(tmp_path / "source"), cache=str(tmp_path / "cache"))
    for _ in range(2):
        with pytest.raises(DataError, match=r"none of the 1 videos .* can be decoded; the first: .*a\.mp4.* is empty"):
            open_clips(config, split="train")


def test_grey_videos_get_three_channels_if_others_have_three(source, config):
    grey = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)
    np.save(source / "train/grey.npy", grey)
    clips = open_clips(config, split="train")
    assert (clips.channels, clips.num_videos) == (3, 5)
    video = clips.videos.names.index("train/grey.npy")
    assert np.array_equal(clips.videos.read(video, slice(2, 8, 2)), grey[2:8:2].repeat(3, -1))


def test_too_little_disk_space_is_an_error_before_decoding(source, tmp_path, monkeypatch):
    usage = building.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(building.shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    with pytest.raises(DataError, match=r"its disk has 1\.00 MiB left; free some space"):
        list(build(source, tmp_path / "cache", size=8))


def test_a_folder_that_cannot_be_written_is_named(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write in .*file.*ZOO_CACHE"):
        open_clips(config.replace(cache=str(tmp_path / "file")), split="train")


def test_the_users_cache_folder(source, tmp_path, monkeypatch):
    config = DataConfig(source=str(source), size=8, frames=6)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("ZOO_CACHE", raising=False)
    assert up_to_date(source, config).parent == tmp_path / "xdg/temporal_zoo"
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "zoo"))
    assert up_to_date(source, config).parent == tmp_path / "zoo"


def test_clips_longer_than_every_video_are_an_error_with_the_longest_length(config):
    with pytest.raises(DataError, match=r"spans 31 frames \(16 at stride 2\).* longest video .* has 23"):
        open_clips(config.replace(frames=16, stride=2), split="train")


def test_short_videos_are_dropped_an_error_or_padded(config, caplog):
    long = config.replace(frames=22)
    assert open_clips(long, split="train").num_videos == 2
    assert "2 of 4 videos are shorter and are left out, such as train/0.npy with 20" in caplog.text
    with pytest.raises(DataError, match=r"2 of 4 videos are shorter, such as train/0\.npy with 20"):
        open_clips(long.replace(short="error"), split="train")
    padded = open_clips(long.replace(short="pad"), split="train")
    assert {padded.draw(number, 0).frames for number in range(40)} == {20, 21, 22}


def test_the_number_of_videos_can_be_limited(config):
    clips = open_clips(config.replace(videos=2), split="train")
    assert clips.videos.names == ["train/0.npy", "train/1.npy"]


def test_one_file_with_many_videos(tmp_path):
    np.save(tmp_path / "many.npy", np.stack([pixels(10, index) for index in range(30)]))
    config = DataConfig(source=str(tmp_path / "many.npy"), size=8, frames=4, cache=str(tmp_path / "cache"))
    train, test = (open_clips(config, split=split) for split in ("train", "test"))
    assert train.num_videos + test.num_videos == 30
    assert set(train.videos.names).isdisjoint(test.videos.names)
    for video, name in enumerate(train.videos.names):
        index = int(name.partition("#")[2] or 0)
        assert np.array_equal(train.videos.read(video, slice(2, 5)), pixels(10, index)[2:5])


def test_a_single_video_is_in_both_splits_with_a_warning(tmp_path, caplog):
    np.save(tmp_path / "one.npy", pixels(30, 0))
    config = DataConfig(source=str(tmp_path / "one.npy"), size=8, frames=4, cache=str(tmp_path / "cache"))
    assert open_clips(config, split="train").num_videos == open_clips(config, split="test").num_videos == 1
    assert "used for training and for testing" in caplog.text


def test_a_split_without_videos_is_an_error(source, config):
    np.save(source / "a.npy", pixels(9, 0))
    (source / "test/0.npy").unlink()
    flat = config.replace(source=str(source / "train"), test_share=0)
    with pytest.raises(DataError, match="no videos in its test split"):
        open_clips(flat, split="test")


def test_reading_does_not_leak_memory_and_leaves_no_file_open(config):
    clips = open_clips(config, split="train")
    for number in range(200):
        clips.draw(number, 0)
    process = psutil.Process()
    before = process.memory_info().rss
    for number in range(3000):
        clips.draw(number, 1)
    assert process.memory_info().rss - before < 8 * 2**20
    assert not [file.path for file in process.open_files() if file.path.endswith(".u8")]
    assert len(pickle.dumps(clips)) < 10_000


def test_a_build_logs_its_progress(config, caplog):
    caplog.set_level(logging.INFO)
    open_clips(config, split="train")
    assert "5 of 5: train/3.npy, 23 frames" in caplog.text


def test_the_built_in_walks(tmp_path):
    pytest.importorskip("av")
    config = DataConfig(source="builtin:doom", cache=str(tmp_path), frames=256)
    train, test = (open_clips(config, split=split) for split in ("train", "test"))
    assert (train.num_videos, test.num_videos) == (16, 4)
    assert set(train.videos.lengths) == {300}
    assert train.fps == 12
    clip = test.fixed(1)[0]
    assert clip.pixels.shape == (256, 3, 32, 32)
    assert 40 < clip.pixels.float().mean() < 120
