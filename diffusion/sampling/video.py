"""Writes uint8 clips as mp4, gif and contact sheets, enlarged so that small frames are visible.

A file is either complete or not written.  Letters: t frames, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from diffusion.clip import Clip
from temporal_zoo._support.files import written_whole
from temporal_zoo._support.packages import need
from temporal_zoo.errors import InvalidInput

_GAP = 2
_PAPER, _INK = (255, 255, 255), (60, 60, 60)
_LINE = 14  # height of a line of text


def save_mp4(path: Path | str, clip: Clip, *, scale: int = 4) -> None:
    """Writes a clip as H.264 (yuv420p, which all players support), each pixel `scale` pixels wide and high."""
    av = need("av", "writing mp4")
    video = _even(_enlarged(clip, scale))
    with written_whole(Path(path)) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(clip.fps).limit_denominator(1000), options={"crf": "16"})
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def save_gif(path: Path | str, clips: Clip | Sequence[Clip], *, scale: int = 4, columns: int = 4) -> None:
    """Writes one clip, or several side by side, as a gif that repeats without end."""
    image = need("PIL.Image", "writing gif")
    clips = [clips] if isinstance(clips, Clip) else list(clips)
    pictures = [image.fromarray(frame) for frame in _side_by_side([_enlarged(clip, scale) for clip in clips], columns)]
    # A gif counts time in 1/100 s, and players do not show frames for less than 2/100 s.
    duration = max(20, round(100 / clips[0].fps) * 10)
    with written_whole(Path(path)) as file:
        pictures[0].save(file, "gif", save_all=True, append_images=pictures[1:], duration=duration, loop=0)


def save_sheet(
    path: Path | str, clips: Sequence[Clip], *, names: Sequence[str] = (), columns: int = 16, scale: int = 2
) -> None:
    """Writes a png with a row for each clip and up to `columns` of its frames, evenly spaced, numbered from 0.

    names: a label for each row, such as its mixer; without labels there is no left margin.
    """
    image = need("PIL.Image", "writing png")
    from PIL import ImageDraw, ImageFont

    if names and len(names) != len(clips):
        raise InvalidInput(f"{len(names)} names for {len(clips)} clips; give one name for each clip")
    numbers = [_spaced(clip.frames, columns) for clip in clips]
    height, width = (scale * edge for edge in clips[0].pixels.shape[2:])
    font = ImageFont.load_default(size=_LINE - 4)
    margin = max((int(font.getlength(name)) + 8 for name in names), default=0)
    across = margin + max(map(len, numbers)) * (width + _GAP)
    sheet = image.new("RGB", (across, len(clips) * (height + _LINE + _GAP)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, (clip, shown) in enumerate(zip(clips, numbers, strict=True)):
        top = row * (height + _LINE + _GAP)
        if names:
            pen.text((2, top + _LINE + height // 2 - 6), names[row], _INK, font)
        pictures = _enlarged(clip, scale)
        for column, number in enumerate(shown):
            left = margin + column * (width + _GAP)
            pen.text((left + 1, top + 1), str(number), _INK, font)
            sheet.paste(image.fromarray(pictures[number]), (left, top + _LINE))
    with written_whole(Path(path)) as file:
        sheet.save(file, "png")


def _enlarged(clip: Clip, scale: int) -> np.ndarray:
    """Repeats each pixel `scale` times in both directions: (t, h, w, 3) uint8."""
    if scale < 1:
        raise InvalidInput(f"scale must be at least 1, not {scale}")
    if clip.pixels.shape[1] not in (1, 3):
        raise InvalidInput(f"pictures have 1 or 3 channels, not {clip.pixels.shape[1]}")
    pixels = clip.pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(pixels.repeat(scale, 1).repeat(scale, 2))


def _even(video: np.ndarray) -> np.ndarray:
    """Repeats the last row or column of odd sizes: yuv420p needs even sizes, because it halves those of colour."""
    height, width = video.shape[1:3]
    return np.pad(video, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")


def _side_by_side(videos: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """One video of all videos, `columns` in a row; shorter videos repeat their last frame."""
    frames = max(map(len, videos))
    videos = [np.concatenate([v, v[-1:].repeat(frames - len(v), 0)]) for v in videos]
    height, width = videos[0].shape[1:3]
    columns = min(columns, len(videos))
    rows = -(-len(videos) // columns)
    tall, wide = rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP
    canvas = np.full((frames, tall, wide, 3), 255, np.uint8)
    for index, video in enumerate(videos):
        top, left = index // columns * (height + _GAP), index % columns * (width + _GAP)
        canvas[:, top : top + height, left : left + width] = video
    return canvas


def _spaced(frames: int, count: int) -> list[int]:
    """Up to `count` frame numbers from the first to the last one."""
    if frames <= count:
        return list(range(frames))
    return [round(number) for number in np.linspace(0, frames - 1, count)]
