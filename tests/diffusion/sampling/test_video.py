"""Video files: readers get the enlarged frames back, and files are complete or not written."""

import sys

import numpy as np
import pytest
import torch

from diffusion.clip import Clip
from diffusion.data.readers import recordings
from diffusion.sampling import video
from temporal_zoo._support.packages import MissingPackage

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")


def clip(frames: int = 5, channels: int = 3, height: int = 8, width: int = 8) -> Clip:
    """Slow gradients, brighter from frame to frame."""
    t, c, y, x = np.mgrid[:frames, :channels, :height, :width]
    values = 40 + 20 * t + 10 * c + 80 * y / height + 40 * x / width
    return Clip(torch.from_numpy(values.astype(np.uint8)), fps=10.0)


def frames_of(path, size: int) -> np.ndarray:
    return np.concatenate([block for recording in recordings(path, size) for block in recording.blocks])


def test_mp4_is_read_back_enlarged(tmp_path):
    video.save_mp4(tmp_path / "deep/a.mp4", clip(), scale=4)
    recording = next(recordings(tmp_path / "deep/a.mp4", 8))
    assert (recording.height, recording.width, recording.fps) == (32, 32, 10)
    back = frames_of(tmp_path / "deep/a.mp4", 8)
    expected = clip().pixels.permute(0, 2, 3, 1).numpy()
    assert back.shape == expected.shape
    assert np.abs(back.astype(int) - expected).mean() < 4
    with av.open(str(tmp_path / "deep/a.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_mp4_of_an_odd_size_gets_an_even_one(tmp_path):
    video.save_mp4(tmp_path / "a.mp4", clip(height=7, width=9), scale=1)
    recording = next(recordings(tmp_path / "a.mp4", 8))
    assert (recording.height, recording.width) == (8, 10)


def test_gif_is_read_back_enlarged_and_repeats(tmp_path):
    video.save_gif(tmp_path / "a.gif", clip(), scale=3)
    with Image.open(tmp_path / "a.gif") as picture:
        assert (picture.n_frames, picture.size) == (5, (24, 24))
        assert picture.info["loop"] == 0
        assert picture.info["duration"] == 100
    back = frames_of(tmp_path / "a.gif", 8)
    assert np.abs(back.astype(int) - clip().pixels.permute(0, 2, 3, 1).numpy()).mean() < 6


def test_gif_of_several_clips_shows_them_side_by_side(tmp_path):
    video.save_gif(tmp_path / "a.gif", [clip(3), clip(5), clip(4)], scale=1, columns=2)
    with Image.open(tmp_path / "a.gif") as picture:
        assert (picture.n_frames, picture.size) == (5, (18, 18))


def test_grey_clips_are_written(tmp_path):
    video.save_gif(tmp_path / "a.gif", clip(channels=1), scale=2)
    video.save_sheet(tmp_path / "a.png", [clip(channels=1)])
    with Image.open(tmp_path / "a.gif") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert np.ptp(pixels.astype(int), axis=-1).max() == 0


def test_a_sheet_has_a_row_for_each_clip_and_numbered_columns(tmp_path):
    clips = [clip(40), clip(3)]
    video.save_sheet(tmp_path / "a.png", clips, columns=4, scale=2)
    with Image.open(tmp_path / "a.png") as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (2 * (16 + 14 + 2), 4 * 18, 3)
    for row, shown in enumerate(([0, 13, 26, 39], [0, 1, 2])):
        for column, frame in enumerate(shown):
            top, left = row * 32 + 14, column * 18
            expected = clips[row].pixels[frame].permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1)
            assert np.array_equal(sheet[top : top + 16, left : left + 16], expected)
            assert sheet[top - 14 : top, left : left + 16].min() < 150  # its number
    assert (sheet[32 + 14 : 62, 3 * 18 :] == 255).all()


def test_names_add_a_margin(tmp_path):
    video.save_sheet(tmp_path / "plain.png", [clip(), clip()])
    video.save_sheet(tmp_path / "named.png", [clip(), clip()], names=["bimamba", "attn"])
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "named.png") as named:
        assert named.width > plain.width + 20
        assert named.height == plain.height
    with pytest.raises(ValueError, match="1 names for 2 clips"):
        video.save_sheet(tmp_path / "x.png", [clip(), clip()], names=["attn"])


@pytest.mark.parametrize("save", [video.save_mp4, video.save_gif])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, save):
    path = tmp_path / "a.out"
    path.write_text("old")
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        save(path, clip(channels=2))
    with pytest.raises(ValueError, match="scale must be at least 1"):
        save(path, clip(), scale=0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.out"]
    assert path.read_text() == "old"


def test_an_error_halfway_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_text("old")
    monkeypatch.setattr(video, "_even", lambda frames: [frames[0], "no frame"])
    with pytest.raises(AttributeError):
        video.save_mp4(path, clip())
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(("save", "module"), [(video.save_mp4, "av"), (video.save_gif, "PIL.Image")])
def test_a_missing_package_is_one_line_with_the_command(tmp_path, monkeypatch, save, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=r"pip install .temporal-zoo\[train\]."):
        save(tmp_path / "a", clip())
