"""Decoding: each kind of file gives back the frames that went in, and each bad file says what is wrong with it."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from diffusion.data import DataError
from diffusion.data.layouts import search
from diffusion.data.readers import UnreadableVideo, recordings
from diffusion.data.readers.pixels import centre_square
from diffusion.data.splits import select
from temporal_zoo._support.packages import MissingPackage

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")


def smooth_video(frames: int, height: int = 16, width: int = 16) -> np.ndarray:
    """(frames, height, width, 3) uint8 of slow gradients, which codecs keep."""
    t, y, x = np.mgrid[:frames, :height, :width].astype(float)
    channels = (60 + 8 * t + 0 * x, 40 + 100 * x / width, 200 - 100 * y / height)
    return np.stack(np.broadcast_arrays(*channels), -1).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray, codec: str, pix_fmt: str = "yuv420p", fps: int = 10) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def decode(path: Path, size: int = 16) -> list[np.ndarray]:
    return [np.concatenate(list(recording.blocks)) for recording in recordings(path, size)]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tolerance"),
    [
        ("a.mp4", "libx264", "yuv420p", 4),
        ("a.mkv", "ffv1", "bgr0", 0),
        ("a.avi", "mpeg4", "yuv420p", 8),
        ("a.webm", "libvpx-vp9", "yuv420p", 4),
        ("a.gif", "gif", "rgb8", 30),  # eight colours a channel, dithered
    ],
)
def test_video_files_are_decoded(tmp_path, name, codec, pix_fmt, tolerance):
    frames = smooth_video(9)
    write_video(tmp_path / name, frames, codec, pix_fmt)
    recording = next(videos := recordings(tmp_path / name, 16))
    assert (recording.height, recording.width, recording.channels) == (16, 16, 3)
    assert recording.fps == pytest.approx(10)
    back = np.concatenate(list(recording.blocks))
    assert not list(videos)
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() <= tolerance


def test_a_video_of_another_shape_is_cropped_and_resized(tmp_path):
    frames = smooth_video(70, 32, 48)
    write_video(tmp_path / "wide.mkv", frames, "ffv1", "bgr0")
    (back,) = decode(tmp_path / "wide.mkv", 8)
    assert back.shape == (70, 8, 8, 3)
    assert np.abs(back.astype(int) - centre_square(frames, 8)).max() <= 3


def test_resizing_averages_areas():
    frames = np.random.default_rng(0).integers(0, 256, (3, 12, 18, 3), dtype=np.uint8)
    centre = frames[:, :, 3:15].astype(float)
    halves = centre.reshape(3, 6, 2, 6, 2, 3).mean((2, 4))
    assert np.abs(centre_square(frames, 6) - halves).max() <= 0.5 + 1e-4
    assert np.abs(centre_square(frames, 5).mean((1, 2)) - centre.mean((1, 2))).max() < 1
    assert np.array_equal(centre_square(frames, 12), frames[:, :, 3:15])
    assert centre_square(frames, 30).shape == (3, 30, 30, 3)


@pytest.mark.parametrize("shape", [(7, 16, 16, 3), (7, 16, 16, 1), (2, 7, 16, 16, 3)])
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_are_read(tmp_path, shape, channels_first, suffix):
    videos = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    stored = np.moveaxis(videos, -1, -3) if channels_first else videos
    path = tmp_path / f"a{suffix}"
    np.save(path, stored) if suffix == ".npy" else np.savez_compressed(path, video=stored, actions=np.zeros(7))
    back = decode(path)
    assert len(back) == (2 if len(shape) == 5 else 1)
    assert np.array_equal(np.stack(back), videos.reshape(len(back), *shape[-4:]))


def test_frame_folders_are_read_in_the_order_of_their_numbers(tmp_path):
    frames = smooth_video(12)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{number}.png")
    (tmp_path / ".DS_Store").write_text("noise")
    (back,) = decode(tmp_path)
    assert np.array_equal(back, frames)


def test_a_wrong_number_of_frames_in_a_header_is_ignored(tmp_path):
    path = tmp_path / "liar.avi"
    write_video(path, smooth_video(9), "mpeg4")
    content = path.read_bytes()
    for tag, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # total frames, length of the stream
        place = content.index(tag) + offset
        content = content[:place] + (4000).to_bytes(4, "little") + content[place + 4 :]
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 4000
    assert len(decode(path)[0]) == 9


FLOATS = np.linspace(0, 1, 4 * 8 * 8 * 3).reshape(4, 8, 8, 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (FLOATS, r"float64 in \[0, 1\]; store \(255"),
        (FLOATS.astype(np.float32) * 2 - 1, r"float32 in \[-1, 1\]; store \(127.5"),
        (FLOATS * 255, "float64; store uint8"),
        ((FLOATS * 255).astype(np.int64), "int64; store uint8"),
        (np.zeros((4, 8, 8), np.uint8), r"shape is \(4, 8, 8\); store \(frames, height, width, channels\)"),
        (np.zeros((4, 8, 8, 4), np.uint8), r"neither the last axis nor the third from the end is 1 or 3 channels"),
        (np.zeros((20, 100, 8, 8), np.uint8), "neither the last axis"),
        (np.zeros((4, 3, 8, 3), np.uint8), "both the last axis and the third from the end could be"),
        (np.zeros((0, 8, 8, 3), np.uint8), "there are no frames"),
        (np.array([{"a": 1}], dtype=object), "Python objects"),
    ],
)
def test_arrays_that_are_not_videos_are_errors_with_the_reason(tmp_path, array, message):
    np.save(tmp_path / "odd.npy", array, allow_pickle=True)
    with pytest.raises(UnreadableVideo, match=message) as caught:
        decode(tmp_path / "odd.npy")
    assert "odd.npy" in str(caught.value)


def test_the_error_for_an_npz_without_a_video_names_its_arrays(tmp_path):
    np.savez(tmp_path / "poses.npz", pose=np.zeros(3), action=np.zeros(3))
    with pytest.raises(UnreadableVideo, match=r'poses.npz: none of its arrays \(pose, action\) is called "video"'):
        decode(tmp_path / "poses.npz")


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.avi", "a.webm", "a.npy", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"this is no video at all, whatever its name may say"])
def test_files_with_a_wrong_extension_are_errors(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableVideo, match=name):
        decode(tmp_path / name)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_files_are_errors_without_a_traceback(tmp_path, keep):
    path = tmp_path / "cut.mp4"
    write_video(path, smooth_video(30), "libx264")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(UnreadableVideo, match=r"cut\.mp4"):
        decode(path)
    np.savez_compressed(tmp_path / "cut.npz", video=smooth_video(30))
    content = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UnreadableVideo, match=r"cut\.npz"):
        decode(tmp_path / "cut.npz")


def test_damage_in_the_middle_is_an_error_while_decoding(tmp_path):
    path = tmp_path / "hole.npz"
    np.savez(path, video=smooth_video(30))
    content = bytearray(path.read_bytes())
    content[5000:5100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(UnreadableVideo, match=r"hole\.npz"):
        decode(path)


def test_a_file_with_only_sound_is_not_a_video(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    with pytest.raises(UnreadableVideo, match="there is no video in it"):
        decode(tmp_path / "sound.mp4")


def test_a_broken_frame_is_named(tmp_path):
    Image.fromarray(smooth_video(1)[0]).save(tmp_path / "1.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(UnreadableVideo, match=r"1\.png"):
        decode(tmp_path)


@pytest.mark.parametrize(("name", "module"), [("a.mp4", "av"), ("frames", "PIL.Image")])
def test_a_missing_package_is_an_error_of_one_line_with_the_command(tmp_path, monkeypatch, name, module):
    path = tmp_path / name
    if name == "frames":
        path.mkdir()
        Image.fromarray(smooth_video(1)[0]).save(path / "0.png")
    else:
        write_video(path, smooth_video(2), "libx264")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=r"pip install .temporal-zoo\[train\].") as caught:
        decode(path)
    assert not isinstance(caught.value, UnreadableVideo)
    assert "\n" not in str(caught.value)


def test_a_source_is_searched_and_sorted(tmp_path):
    for name in ("b/10.gif", "b/9.gif", "a.npy", "c/act.mp4", "c/act.npz", ".hidden/x.mp4", "notes.txt", ".x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "d/walk").mkdir(parents=True)
    (tmp_path / "d/walk/1.jpg").touch()
    assert [file.name for file in search(tmp_path).files] == ["a.npy", "b/9.gif", "b/10.gif", "c/act.mp4", "d/walk"]


def test_with_train_and_test_folders_other_files_are_ignored(tmp_path):
    for name in ("train/1.mp4", "test/2.mp4", "train/deep/3.mp4", "other/4.mp4", "5.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [file.name for file in search(tmp_path).files]
    assert names == ["test/2.mp4", "train/1.mp4", "train/deep/3.mp4"]
    assert select(names, "train", 0.1) == [1, 2]
    assert select(names, "test", 0.1) == [0]
    assert select(names, "all", 0.1) == [0, 1, 2]


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("hello")])
def test_a_source_without_videos_is_an_error_that_names_it(tmp_path, make):
    make(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=r"notes\.txt"):
        search(tmp_path / "notes.txt")


def test_videos_keep_their_split_when_others_are_added():
    names = [f"{number}.mp4" for number in range(200)]
    test = {names[video] for video in select(names, "test", 0.1)}
    assert 8 <= len(test) <= 35
    more = names + [f"new{number}.mp4" for number in range(100)]
    assert test <= {more[video] for video in select(more, "test", 0.1)}
    assert set(select(names, "train", 0.1)).isdisjoint(select(names, "test", 0.1))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_no_split_of_a_small_source_is_empty(count):
    names = [f"{number}.mp4" for number in range(count)]
    train, test = select(names, "train", 0.1), select(names, "test", 0.1)
    assert train
    assert test
    assert set(train).isdisjoint(test) or count == 1
    assert select(names, "test", 0.0) == []
