"""Where clips come from: which files are one clip, what is cut off them, and how two sides differ."""

import numpy as np
import pytest

from diffusion.data import DataConfig
from diffusion.data.readers.stored import Stored
from diffusion.evaluation.clips import open_set
from diffusion.evaluation.origin import DRAWN, Origin, differences
from diffusion.evaluation.protocol import PRESETS
from diffusion.evaluation.suite import Evaluation


@pytest.fixture
def opened(cache):
    def open_folder(folder, **how):
        chosen = {"split": "all", "count": None, "frames": None, "size": None, "seed": 0} | how
        return open_set(DataConfig(source=str(folder)), **chosen)

    return open_folder


@pytest.fixture
def movie(tmp_path):
    """`movie("name.mp4", frames=12, height=16, width=16, fps=10, codec=...)`: a file with a moving pattern."""
    av = pytest.importorskip("av")

    def make(name, *, frames=12, height=16, width=16, fps=10, codec="libx264", pixels="yuv420p"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(len(name))
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=fps)
            stream.height, stream.width, stream.pix_fmt = height, width, pixels
            for _ in range(frames):
                picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        return path

    return make


def origin(**facts):
    return Origin(**{"stored": {"uint8 arrays": 6}, "lengths": (16, 16)} | facts)


def test_files_of_one_name_are_one_clip(movie, opened, tmp_path):
    pictures = pytest.importorskip("PIL.Image")
    for number in range(3):
        movie(f"s/{number:03d}.mp4")
        movie(f"s/{number:03d}.gif", codec="gif", pixels="rgb8")
    movie("s/all.gif", height=40, width=40, codec="gif", pixels="rgb8")
    pictures.new("RGB", (8, 8)).save(tmp_path / "s" / "sheet.png")
    clips = opened(tmp_path / "s")
    assert clips.count == 3
    assert sorted(clips.videos) == ["000.mp4", "001.mp4", "002.mp4"]
    assert len(clips.origin.doubles) == 4
    assert "4 files left out, other files show the same clips" in clips.origin.sentence(12, 16)


def test_files_of_other_names_or_folders_are_other_clips(movie, opened, tmp_path):
    movie("s/a/0.mp4")
    movie("s/b/0.gif", codec="gif", pixels="rgb8")
    movie("s/all.gif", codec="gif", pixels="rgb8")  # no sheet beside it: a video of that name
    clips = opened(tmp_path / "s")
    assert clips.count == 3
    assert clips.origin.doubles == ()


def test_an_array_beside_a_video_is_preferred_only_if_it_is_a_video(movie, opened, tmp_path):
    movie("s/0.mp4")
    movie("s/1.mp4")
    np.save(tmp_path / "s" / "0.npy", np.zeros((12, 4)))  # actions
    np.save(tmp_path / "s" / "1.npy", np.zeros((12, 16, 16, 3), np.uint8))
    clips = opened(tmp_path / "s")
    assert sorted(clips.videos) == ["0.mp4", "1.npy"]


def test_a_report_names_what_was_cropped_and_left_out(movie, opened, tmp_path):
    for number, (frames, height) in enumerate([(40, 16), (50, 16), (5, 16), (40, 32)]):
        movie(f"s/{number}.mp4", frames=frames, height=height, width=64, fps=25)
    (tmp_path / "s" / "broken.mp4").write_bytes(b"nonsense")
    found = opened(tmp_path / "s", frames=20, size=8).origin
    text = found.sentence(20, 8)
    for part in (
        "4 h264 yuv420p", "3 of 16 x 64 pixels, cropped to the centre square, 75% cut off, resized to 8 x 8",
        "1 of 32 x 64 pixels, cropped to the centre square, 50% cut off",
        "20 frames of 40 to 50, a window at a random position",
        "1 video left out, shorter than a clip", "1 file left out, cannot be decoded",
    ):  # fmt: skip
        assert part in text
    assert found.lossy
    assert found.to_dict()["rates"] == {"25": 4}


def test_differences_of_the_sides_are_warnings_and_in_the_record(movie, opened, videos, means, tmp_path):
    for number in range(6):
        movie(f"real/{number}.mp4", fps=24)
    real, fake = opened(tmp_path / "real", frames=12, size=8), opened(videos("fake"), frames=12)
    evaluation = Evaluation(real, fake, None, extractor=means, protocol=PRESETS["standard"], seed=0)
    list(evaluation.work())
    text = "\n".join(evaluation.warnings)
    assert "real clips are lossy (h264 yuv420p), generated ones lossless (uint8 arrays)" in text
    assert "sizes of pictures differ: 16 x 16 for real clips, 8 x 8 for generated clips" in text
    facts = evaluation.facts()
    assert facts["warnings"] == evaluation.warnings
    assert facts["sets"]["real"]["origin"]["stored"] == {"h264 yuv420p": 6}


def test_equal_sides_give_no_warning(opened, videos):
    assert differences(opened(videos("a")).origin, opened(videos("b")).origin) == []


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        ({"lossy": True, "stored": {"h264 yuv420p": 6}}, {}, "Compression alone causes a distance"),
        (
            {"lossy": True, "stored": {"h264 yuv420p": 6}},
            {"lossy": True, "stored": {"mpeg4 yuv420p": 6}},
            "codecs differ: h264 yuv420p for real clips, mpeg4 yuv420p for generated clips",
        ),
        ({"sizes": {"32 x 32": 6}}, {"sizes": {"64 x 64": 6}}, "sizes of pictures differ"),
        ({"sizes": {"64 x 64": 6}}, {"sizes": {"64 x 80": 6}}, "sizes of pictures differ"),
        ({"rates": {"10": 6}}, {"rates": {"30": 6}}, "frames per second differ"),
        ({"rates": {"10": 6}}, {"rates": {"10": 5, "30": 1}}, "frames per second differ"),
        ({"lengths": (300, 300)}, {}, "numbers of frames differ: 300 for real clips, 16 for generated clips"),
    ],
)
def test_each_difference_has_its_sentence(real, fake, message):
    (text,) = differences(origin(**real), origin(**fake))
    assert message in text
    assert differences(origin(**real), origin(**real)) == []
    assert differences(origin(**real), origin(**fake | {"stored": {DRAWN: 6}})) == []


def test_an_unknown_rate_is_not_compared():
    assert differences(origin(rates={"10": 6}), origin()) == []


@pytest.mark.parametrize(
    ("how", "lossless"),
    [
        ("uint8 arrays", True), ("png frames", True), ("jpg frames", False), ("jpeg frames", False),
        ("h264 yuv420p", False), ("h264 gbrp", False), ("gif bgra", False),
        ("ffv1 gbrp", True), ("ffv1 yuv420p", False),
    ],
)  # fmt: skip
def test_which_files_are_lossless(how, lossless):
    assert Stored(how, 8, 8, None).lossless == lossless


def test_the_origin_of_clips_whose_files_are_gone_comes_from_their_names():
    found = Origin.of_names(["a.mp4", "b.mp4", "c.npy#1"], lengths=(16, 16))
    assert found.stored == {".mp4 files": 2, ".npy files": 1}
    assert found.lossy
    assert not Origin.of_names(["c.npy#1"], lengths=(16, 16)).lossy
