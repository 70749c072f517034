"""Video files (mp4, mov, mkv, webm, avi, gif) by PyAV, as a viewer shows them.

Applied before frames are cut: the rotation tag, the shape of the pixels (sample aspect ratio), edit lists, alpha over
the background.  Frames are counted and timed as they come, because headers are known to lie.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from diffusion.data.recording import (
    UNKNOWN_FPS,
    Orientation,
    Recording,
    UnreadableVideo,
    in_blocks,
    over_background,
    shrink,
    too_many_pixels,
    uneven,
)
from temporal_zoo._support.packages import need

# FFmpeg's own VP8 and VP9 decoders skip the alpha channel; those of libvpx give it.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_LEAST_PACKET = 8  # bytes that a packet takes in a file, with its entry in the index
_REPEATS = 4  # edit lists may show a part again; whole files are not read so often
_FASTEST = 1000.0  # a header that declares more frames a second is not believed


@dataclass
class _Tally:
    """What happens while packets are decoded."""

    packets: int = 0
    bytes: int = 0
    frames: int = 0
    errors: int = 0
    damaged: int = 0
    first_error: str = ""
    stopped: str = ""
    interlaced: bool = False
    sizes: list[tuple[int, int]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def error(self, error: Exception) -> None:
        self.errors += 1
        self.first_error = self.first_error or f"after frame {self.frames}: {_reason(error)}"

    def frame(self, frame: Any, time_base: Fraction | None) -> None:
        self.frames += 1
        self.damaged += frame.is_corrupt
        self.interlaced |= bool(frame.interlaced_frame)
        if frame.pts is not None and time_base:
            self.times.append(float(frame.pts * time_base))
        if (size := (frame.width, frame.height)) not in self.sizes[-1:]:
            self.sizes.append(size)

    def finish(self, recording: Recording, declared: float | None) -> None:
        """Writes down what is known now that all frames were read."""
        recording.lost = max(self.errors, self.packets - self.frames) if self.errors else 0
        recording.fps = self.rate(declared, whole=not recording.lost)
        notes = recording.notes
        if recording.lost:
            notes.append(
                f"{recording.lost} of its {self.frames + recording.lost} frames cannot be decoded, "
                f"{self.frames} are kept; the first error came {self.first_error}"
            )
        elif note := uneven(np.diff(self.times), recording.fps):
            notes.append(note)
        if self.stopped:
            recording.lost += 1
            notes.append(f"reading stopped after {self.frames} frames: {self.stopped}")
        if self.damaged:
            notes.append(f"{self.damaged} of its frames are damaged, they are kept as they decode")
        if self.interlaced:
            notes.append("its frames are interlaced; they are not deinterlaced, so moving edges look like combs")
        if len(self.sizes) > 1:
            (w0, h0), (w1, h1) = self.sizes[:2]
            notes.append(f"the size of its frames changes from {w0} x {h0} to {w1} x {h1} pixels")

    def rate(self, declared: float | None, *, whole: bool = True) -> float:
        """Frames a second: what the header says, unless the time stamps say clearly otherwise."""
        span = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        if span <= 0 or (declared and not whole):
            return declared or UNKNOWN_FPS
        measured = (len(self.times) - 1) / span
        return declared if declared and abs(measured / declared - 1) < 0.02 else measured


def movie(path: Path, size: int) -> Iterator[Recording]:
    """The video of one file: the stream that its author marked as default, else the first.

    Raises: UnreadableVideo, naming the file; DataError when PyAV is missing.
    """
    av = need("av", f"reading {path.name}")
    with _naming(path, av):
        container = av.open(str(path.absolute()))  # FFmpeg takes some relative names for the address of a stream
    try:
        with _naming(path, av):
            recording = _recording(av, container, path, size)
    except UnreadableVideo:
        container.close()
        raise
    yield recording


def _recording(av: ModuleType, container: Any, path: Path, size: int) -> Recording:
    """The video of an open container, which is closed when all its blocks were read."""
    if container.format.name == "concat":
        raise UnreadableVideo(path, "it is a list of other files and no video")
    stream = _moving(container, path)
    if reason := too_many_pixels(stream.height, stream.width):
        raise UnreadableVideo(path, reason)
    tally = _Tally()
    frames = _frames(av, container, stream, tally, most_bytes=_REPEATS * path.stat().st_size + 2**20)
    first = next(frames, None)
    if first is None:
        raise UnreadableVideo(path, tally.first_error or tally.stopped or "there are no frames in it")
    orientation = _orientation(first, path)
    aspect = float(stream.sample_aspect_ratio or 1)
    height, width = orientation.shown(first.height, round(first.width * aspect))
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    declared = rate if 0 < rate <= _FASTEST else None
    square = _Square(av, path, size, aspect, orientation)

    def blocks() -> Iterator[np.ndarray]:
        with container, _naming(path, av):
            yield from in_blocks(square(frame) for frame in chain([first], frames))
        tally.finish(recording, declared)

    recording = Recording(declared or UNKNOWN_FPS, height, width, 3, blocks())
    return recording


def _moving(container: Any, path: Path) -> Any:
    """The stream to show, and never a cover picture."""
    streams = list(container.streams.video)
    if not streams:
        raise UnreadableVideo(path, "there is no video in it")
    moving = [stream for stream in streams if not _is_cover(stream, container)]
    if not moving:
        raise UnreadableVideo(path, "there is no moving picture in it, only sound and a cover picture")
    stream = next((stream for stream in moving if "default" in _disposition(stream)), moving[0])
    stream.codec_context.thread_count = 1
    return stream


def _is_cover(stream: Any, container: Any) -> bool:
    if hasattr(type(stream), "disposition"):
        return "attached_pic" in _disposition(stream)
    # PyAV before 14.1 does not tell; a cover picture has no rate, and sound beside it.
    return not stream.average_rate and bool(container.streams.audio)


def _disposition(stream: Any) -> set[str]:
    flags = getattr(stream, "disposition", None)
    return set() if flags is None else {flag.name for flag in type(flags) if flag & flags}


def _frames(av: ModuleType, container: Any, stream: Any, tally: _Tally, *, most_bytes: int) -> Iterator[Any]:
    """Every frame that decodes; errors are counted.  A container that reads its bytes again and again is left."""
    decoder = _decoder(av, stream)
    try:
        for packet in container.demux(stream):
            tally.packets += packet.size > 0
            tally.bytes += max(packet.size, _LEAST_PACKET)
            if tally.bytes > most_bytes:
                tally.stopped = "it reads the same bytes again and again"
                return
            try:
                decoded = decoder.decode(packet if packet.size else None)
            except av.FFmpegError as error:
                tally.error(error)
                continue
            for frame in decoded:
                tally.frame(frame, stream.time_base)
                yield frame
    except (av.FFmpegError, OSError) as error:
        tally.stopped = _reason(error)


def _decoder(av: ModuleType, stream: Any) -> Any:
    """The decoder of a stream; another one where the usual does not give the alpha channel."""
    other = _WITH_ALPHA.get(stream.codec_context.name)
    if stream.metadata.get("alpha_mode") != "1" or other not in av.codec.codecs_available:
        return stream.codec_context
    decoder = av.CodecContext.create(other, "r")
    decoder.thread_count = 1
    return decoder


def _orientation(frame: Any, path: Path) -> Orientation:
    """The display matrix of a video: its nine numbers map (column, row) of the stored picture to the shown one.

    Raises: UnreadableVideo when it turns by anything but a multiple of 90 degrees.
    """
    # By name: what an iteration over it gives is another thing since PyAV 19.
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    straight, crossed = max(abs(a), abs(d)), max(abs(b), abs(c))
    if 64 * min(straight, crossed) > max(straight, crossed):
        raise UnreadableVideo(
            path, "its rotation tag is no multiple of 90 degrees; turn its pictures first, for example with ffmpeg"
        )
    if crossed > straight:
        return Orientation(transpose=True, flip_rows=b < 0, flip_columns=c < 0)
    return Orientation(flip_rows=d < 0, flip_columns=a < 0)


class _Square:
    """Frames to (size, size, 3) uint8 as shown."""

    def __init__(self, av: ModuleType, path: Path, size: int, aspect: float, orientation: Orientation) -> None:
        self._av, self._path, self._size = av, path, size
        self._aspect, self._orientation = aspect, orientation
        # Shared by all frames: a new one each time is slow and leaks.
        self._resize, self._convert = (av.video.reformatter.VideoReformatter() for _ in range(2))

    def __call__(self, frame: Any) -> np.ndarray:
        shown_width = frame.width * self._aspect
        scale = self._size / min(frame.height, shown_width)
        height, width = (max(self._size, round(edge * scale)) for edge in (frame.height, shown_width))
        for edges in ((frame.height, frame.width), (height, width)):
            if reason := too_many_pixels(*edges):
                raise UnreadableVideo(self._path, reason)
        frame = self._opaque(frame)
        picture = self._resize.reformat(frame, width, height, format="rgb24", interpolation="AREA").to_ndarray()
        return self._orientation.apply(shrink(picture[None], self._size)[0])

    def _opaque(self, frame: Any) -> Any:
        """The frame over the background; the frame itself where nothing is transparent."""
        if frame.format.has_palette or not any(component.is_alpha for component in frame.format.components):
            return frame
        rgba = self._convert.reformat(frame, format="rgba").to_ndarray()
        if rgba[..., 3].min() == 255:
            return frame
        return self._av.VideoFrame.from_ndarray(over_background(rgba), format="rgb24")


@contextmanager
def _naming(path: Path, av: ModuleType) -> Iterator[None]:
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
