"""Videos and pictures are read as a viewer shows them: orientation, shape of pixels, transparency, depth, rates."""

import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from diffusion.data.readers import Recording, UnreadableVideo, movies, recordings
from diffusion.data.readers import pixels as pixel_math
from diffusion.data.readers.pixels import centre_square
from diffusion.data.videos import several_rates

av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")

CORNERS = np.zeros((2, 2, 3), np.uint8)
CORNERS[0, 0], CORNERS[0, 1], CORNERS[1, 0], CORNERS[1, 1] = (
    (220, 30, 30),
    (30, 200, 30),
    (30, 30, 220),
    (230, 230, 230),
)


def corners(height: int = 32, width: int = 32) -> np.ndarray:
    """A picture with another colour in each quarter: red, green above blue, white."""
    return CORNERS.repeat(height // 2, 0).repeat(width // 2, 1)


def write(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "ffv1",
    pix_fmt: str = "bgr0",
    *,
    aspect: str | None = None,
    times: Iterable[int] | None = None,
    rate: int = 10,
) -> Path:
    """Writes a video; `times` are frame numbers at that rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = list(frames)
    with av.open(str(path), "w") as container:
        options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}  # else it refuses an alpha channel
        stream = container.add_stream(codec, rate=Fraction(rate), options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pix_fmt
        if aspect:
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        for time, pixels in zip(times or range(len(frames)), frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def set_matrix(path: Path, a: float, b: float, c: float, d: float) -> None:
    """Writes a display matrix into the track header of an mp4, as phones do."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = (round(number * 65536) for number in (a, b, c, d))
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def damage(path: Path, *packets: int) -> None:
    """Overwrites some packets of a video with noise."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place, size in (places[packet] for packet in packets):
        data[place : place + size] = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(data)


def read(path: Path, size: int = 32) -> tuple[np.ndarray, Recording]:
    (pair,) = ((np.concatenate(list(video.blocks)), video) for video in recordings(path, size))
    return pair


def differ(pixels: np.ndarray, expected: np.ndarray) -> float:
    return np.abs(pixels.astype(int) - expected).mean()


# ---------------------------------------------------------------- videos


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "libx264", "yuv420p10le"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_ordinary_videos_are_resized_and_cropped_to_the_same_bits_as_before(tmp_path, name, codec, pix_fmt):
    y, x = np.mgrid[:40, :56]
    frames = [np.stack([4 * x, 6 * y, 3 * (x + y)], -1).astype(np.uint8) + np.uint8(t) for t in range(70)]
    path = write(tmp_path / name, frames, codec, pix_fmt)
    resize = av.video.reformatter.VideoReformatter()
    expected = []
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            small = resize.reformat(frame, 22, 16, format="rgb24", interpolation="AREA").to_ndarray()
            expected.append(centre_square(small[None], 16)[0])
    pixels, video = read(path, 16)
    assert np.array_equal(pixels, np.stack(expected))
    assert (video.height, video.width, video.fps, video.lost, video.notes) == (40, 56, pytest.approx(10), 0, [])


@pytest.mark.parametrize(
    ("matrix", "stored"),
    [
        ((0, 1, -1, 0), lambda shown: np.rot90(shown, 1)),
        ((-1, 0, 0, -1), lambda shown: np.rot90(shown, 2)),
        ((0, -1, 1, 0), lambda shown: np.rot90(shown, 3)),
        ((-1, 0, 0, 1), lambda shown: shown[:, ::-1]),
        ((1, 0, 0, -1), lambda shown: shown[::-1]),
        ((0, 1, 1, 0), lambda shown: shown.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda shown: np.rot90(shown, 2).swapaxes(0, 1)),
        ((0, 2, -2, 0.001), lambda shown: np.rot90(shown, 1)),
    ],
)
def test_rotation_tags_are_applied(tmp_path, matrix, stored):
    shown = corners(32, 48)
    path = write(tmp_path / "phone.mp4", [np.ascontiguousarray(stored(shown))] * 4, "libx264", "yuv420p")
    set_matrix(path, *matrix)
    pixels, video = read(path)
    assert (video.height, video.width) == (32, 48)
    assert differ(pixels, corners(32, 32)) < 12


def test_other_angles_are_errors_that_name_the_file(tmp_path):
    path = write(tmp_path / "odd.mp4", [corners()] * 4, "libx264", "yuv420p")
    set_matrix(path, 0.866, 0.5, -0.5, 0.866)
    with pytest.raises(UnreadableVideo, match=r"odd\.mp4: its rotation tag is not a multiple of 90 degrees"):
        read(path)


def disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < 24**2
    return np.where(inside[..., None], 255, 20).astype(np.uint8).repeat(3, -1)


@pytest.mark.parametrize(("aspect", "step"), [("2/1", (1, 2)), ("1/2", (2, 1))])
@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square_are_stretched(tmp_path, aspect, step, turned):
    frames = [disc(64, 128)[:: step[0], :: step[1]]] * 4
    path = write(tmp_path / "wide.mp4", frames, "libx264", "yuv420p", aspect=aspect)
    if turned:
        set_matrix(path, 0, 1, -1, 0)
    pixels, video = read(path, 64)
    lit = pixels[0, ..., 0] > 128
    assert abs(int(lit.any(1).sum()) - int(lit.any(0).sum())) <= 3
    ratio = video.width / video.height
    assert ratio == pytest.approx(1 / 2 if turned else 2)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("vp8.webm", "libvpx", "yuva420p"),
        ("vp9.webm", "libvpx-vp9", "yuva420p"),
        ("ffv1.mkv", "ffv1", "bgra"),
        ("png.mov", "png", "rgba"),
    ],
)
def test_transparent_pixels_of_videos_show_the_background(tmp_path, name, codec, pix_fmt):
    rgba = np.full((32, 32, 4), 100, np.uint8)
    rgba[..., 3] = 255
    rgba[:, 16:, 3] = 0
    pixels, _ = read(write(tmp_path / name, [rgba] * 4, codec, pix_fmt), 8)
    assert differ(pixels[:, :, :4], np.uint8(100)) < 3
    assert differ(pixels[:, :, 4:], np.uint8(pixel_math.BACKGROUND)) < 3


def test_colours_mix_with_the_background_by_their_alpha():
    rgba = np.array([[[0, 100, 200, 255], [0, 100, 200, 51], [0, 100, 200, 0]]], np.uint8)
    assert pixel_math.over_background(rgba).tolist() == [[[0, 100, 200], [204, 224, 244], [255, 255, 255]]]


def needs_disposition() -> None:
    if not hasattr(av.stream, "Disposition"):
        pytest.skip("this PyAV does not write dispositions")


def test_a_song_with_a_cover_picture_is_not_a_video(tmp_path):
    needs_disposition()
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(corners(), format="rgb24")))
        container.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 44100
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with pytest.raises(UnreadableVideo, match=r"song\.mp4: it holds no moving picture"):
        read(tmp_path / "song.mp4")


@pytest.mark.parametrize("default", [0, 1])
def test_a_file_with_several_videos_gives_the_default_one(tmp_path, default):
    needs_disposition()
    flags = av.stream.Disposition
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams = []
        for number in range(2):
            stream = container.add_stream("ffv1", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
            stream.disposition = flags.default if number == default else flags(0)
            streams.append(stream)
        for _ in range(4):
            for number, stream in enumerate(streams):
                grey = np.full((32, 32, 3), (50, 200)[number], np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    assert read(tmp_path / "two.mkv")[0].mean() == (50, 200)[default]


@pytest.mark.parametrize("packets", [(0,), (3,), (8,), (2, 3, 6)])
def test_frames_around_damaged_packets_are_kept_and_lost_frames_are_counted(tmp_path, packets):
    path = write(tmp_path / "hole.avi", [corners()] * 9, "mjpeg", "yuvj420p")
    damage(path, *packets)
    pixels, video = read(path)
    lost = len(packets)
    assert (len(pixels), video.lost, video.fps) == (9 - lost, lost, 10)
    assert differ(pixels, corners()) < 12
    (note,) = video.notes
    assert f"{lost} of its 9 frames cannot be decoded, {9 - lost} are kept" in note


def test_a_video_of_damaged_packets_only_gives_the_error_of_the_decoder(tmp_path):
    path = write(tmp_path / "noise.avi", [corners()] * 5, "mjpeg", "yuvj420p")
    damage(path, *range(5))
    with pytest.raises(UnreadableVideo, match=r"noise\.avi: after frame 0: Invalid data"):
        read(path)


def test_frames_whose_size_changes_are_read_with_a_note(tmp_path):
    with av.open(str(tmp_path / "grows.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuvj420p"
        for time in range(6):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width, encoder.pix_fmt = (32, 32, "yuvj420p") if time < 3 else (64, 96, "yuvj420p")
            encoder.time_base = Fraction(1, 10)
            picture = corners(encoder.height, encoder.width)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = time, Fraction(1, 10)
            for packet in [*encoder.encode(frame), *encoder.encode()]:
                packet.stream = stream
                container.mux(packet)
    pixels, video = read(tmp_path / "grows.mkv")
    assert pixels.shape == (6, 32, 32, 3)
    assert differ(pixels, corners()) < 12
    assert video.notes == ["the size of its frames changes from 32 x 32 to 96 x 64 pixels"]


def test_a_variable_rate_is_noted_and_comes_from_the_time_stamps(tmp_path):
    times = [0, 1, 2, 6, 7, 8, 12, 13, 14, 18]
    _, video = read(write(tmp_path / "phone.mp4", [corners()] * 10, "libx264", "yuv420p", times=times))
    assert video.fps == pytest.approx(9 / 1.8)
    (note,) = video.notes
    assert "variable frame rate: its frames are 100 to 400 ms apart" in note
    late = write(tmp_path / "late.mkv", [corners()] * 10, times=range(50, 60))
    assert read(late)[1].fps == pytest.approx(10, rel=0.02)


def test_interlaced_frames_are_noted(tmp_path):
    with av.open(str(tmp_path / "tv.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"flags": "+ilme+ildct"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(corners(64, 64), format="rgb24")))
        container.mux(stream.encode())
    _, video = read(tmp_path / "tv.mp4")
    assert any("interlaced" in note for note in video.notes)


def test_reading_of_an_endless_container_stops():
    endless = SimpleNamespace(demux=lambda stream: repeat(SimpleNamespace(size=0)))
    stream = SimpleNamespace(
        codec_context=SimpleNamespace(name="h264", decode=lambda packet: []), metadata={}, time_base=None
    )
    tally = movies._Tally()
    assert list(movies._frames(av, endless, stream, tally, most_bytes=1000)) == []
    assert "again and again" in tally.stopped


def test_pictures_too_large_for_memory_are_errors_that_name_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_math, "MOST_PIXELS", 1000)
    write(tmp_path / "large.mkv", [corners()] * 4)
    Image.fromarray(corners()).save(tmp_path / "0.png")
    np.save(tmp_path / "large.npy", np.zeros((4, 32, 32, 3), np.uint8))
    for path in (tmp_path / "large.mkv", tmp_path, tmp_path / "large.npy"):
        with pytest.raises(UnreadableVideo, match="a picture of 32 x 32 pixels is too large"):
            read(path)


def test_a_long_strip_is_an_error_and_is_not_enlarged(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_math, "MOST_PIXELS", 10_000)
    path = write(tmp_path / "strip.mkv", [np.zeros((2, 400, 3), np.uint8)] * 2)
    with pytest.raises(UnreadableVideo, match=r"strip\.mkv: a picture of 12800 x 64 pixels is too large"):
        read(path, 64)


def test_a_recording_need_not_be_read_to_its_end(tmp_path):
    path = write(tmp_path / "a.mp4", [corners()] * 150, "libx264", "yuv420p")
    video = next(recordings(path, 8))  # the reader is gone when its blocks are read
    assert sum(len(block) for block in video.blocks) == 150
    half = next(recordings(path, 8))
    next(half.blocks)
    del half
    assert len(read(path, 8)[0]) == 150


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile a.mkv\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.mkv\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_list_of_files_with_the_name_of_a_video_opens_no_file(tmp_path, content):
    write(tmp_path / "a.mkv", [corners()] * 3)
    (tmp_path / "list.mp4").write_text(content)
    with pytest.raises(UnreadableVideo, match=r"list\.mp4"):
        read(tmp_path / "list.mp4")


def test_relative_names_that_look_like_addresses_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.mkv", [corners()] * 3).rename("data:text.mkv")
    assert len(read(Path("data:text.mkv"))[0]) == 3


# ---------------------------------------------------------------- pictures


def save(folder: Path, *pictures: Image.Image, ending: str = "png", **how) -> Path:
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.{ending}", **how)
    return folder


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_orientation_tags_of_pictures_are_applied(tmp_path, tag, ending):
    shown = Image.fromarray(corners(32, 48))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that lead back to what is stored
    stored = shown.transpose(Image.Transpose(undo[tag])) if tag > 1 else shown
    exif = Image.Exif()
    exif[0x0112] = tag
    pixels, video = read(save(tmp_path / "v", stored, ending=ending, exif=exif))
    assert (video.height, video.width) == (32, 48)
    assert differ(pixels, corners(32, 32)) < 12


RAMP = np.linspace(0, 1, 1024).reshape(32, 32)


@pytest.mark.parametrize(
    ("array", "ending"),
    [
        ((RAMP * 65535).round().astype(np.uint16), "png"),
        ((RAMP * 65535).round().astype(np.uint16), "tif"),
        (RAMP.astype(np.float32), "tif"),
        ((RAMP * 255).round().astype(np.uint8), "png"),
    ],
)
def test_values_of_any_depth_are_scaled_to_eight_bits_by_their_full_range(tmp_path, array, ending):
    pixels, _ = read(save(tmp_path / "v", Image.fromarray(array), ending=ending))
    full = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    assert np.array_equal(pixels[0], np.rint(255 * (array.astype(float) / full))[..., None].repeat(3, -1))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (RAMP.astype(np.float32) * 250 - 3, r"0\.tif: its numbers are floats from -3 to 247; store floats in 0\.\.1"),
        (np.full((8, 8), np.nan, np.float32), "its numbers are floats from nan"),
        (np.zeros((8, 8), np.int32), "32-bit integers; store 8 or 16 bits"),
    ],
)
def test_values_without_a_known_range_are_errors_that_name_the_file(tmp_path, array, message):
    with pytest.raises(UnreadableVideo, match=message):
        read(save(tmp_path / "v", Image.fromarray(array), ending="tif"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"])
def test_every_kind_of_picture_looks_the_same(tmp_path, mode):
    black_and_white = np.zeros((32, 32, 3), np.uint8)
    black_and_white[:16] = 255
    picture = Image.fromarray(black_and_white).convert(mode)
    ending = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    pixels, _ = read(save(tmp_path / "v", picture, ending=ending))
    assert differ(pixels[0], black_and_white) < 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_of_pictures_show_the_background(tmp_path, mode):
    if mode == "P":
        picture = Image.new("P", (32, 32), 0)
        picture.putpalette([10, 20, 30] + [0] * 765)
        how = {"transparency": 0}
    else:
        picture, how = Image.new(mode, (32, 32)), {}
    pixels, _ = read(save(tmp_path / "v", picture, **how))
    assert (pixels == pixel_math.BACKGROUND).all()


@pytest.mark.parametrize("ending", ["png", "apng", "webp", "gif"])
def test_animated_pictures_are_videos(tmp_path, ending):
    frames = [Image.fromarray(np.roll(corners(), 4 * t, 1)) for t in range(5)]
    path = tmp_path / f"moves.{ending}"
    kind = "png" if ending == "apng" else ending
    how = {"lossless": True} if ending == "webp" else {}
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=200, loop=0, **how)
    pixels, video = read(path)
    assert video.fps == pytest.approx(5)
    assert np.array_equal(pixels, np.stack([np.asarray(frame) for frame in frames]))


def test_an_animation_that_is_cut_short_is_read_to_its_last_frame(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    frames = [Image.fromarray(frame) for frame in noise]
    path = tmp_path / "cut.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=200)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pixels, video = read(path)
    assert 1 <= len(pixels) <= 3
    assert np.array_equal(pixels, noise[: len(pixels)])
    assert video.lost == 6 - len(pixels)
    assert f"only {len(pixels)} of its 6 frames" in video.notes[0]


def test_a_broken_picture_loses_one_frame(tmp_path):
    folder = save(tmp_path / "v", *[Image.fromarray(corners())] * 4)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    pixels, video = read(folder)
    assert (len(pixels), video.lost) == (3, 1)
    assert "1 of its 4 pictures are left out; the first: " in video.notes[0]
    assert "2.png" in video.notes[0]


def test_pictures_that_differ_in_size_are_noted(tmp_path):
    _, video = read(save(tmp_path / "v", Image.fromarray(corners()), Image.fromarray(corners(16, 48))))
    assert video.notes == ["its pictures differ in size, for example 32 x 32 and 48 x 16 pixels"]


def test_damaged_metadata_loses_no_frame(tmp_path):
    folder = save(tmp_path / "v", Image.fromarray(corners()), ending="jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert read(folder)[0].shape == (1, 32, 32, 3)


# ---------------------------------------------------------------- rates of a set


@pytest.mark.parametrize("rates", [[], [12.0], [30.0, 29.97, 30.0], [25.0, 25.0]])
def test_equal_rates_give_no_warning(rates):
    assert several_rates(rates) is None


def test_different_rates_are_counted():
    def rates() -> Iterator[float]:
        yield from [10.0, 60.0, 60.0, 24.0, 50.0]

    message = several_rates(rates())
    assert message is not None
    assert message.startswith("several frame rates: 60 in 2, 10 in 1, 24 in 1 and 1 more of 5 videos; data.stride")
