"""Reads video files (mp4, mov, mkv, webm, avi, gif) with PyAV, as a viewer shows them.

The reader applies the rotation tag, the sample aspect ratio, edit lists and transparency before it crops frames.  It
counts and times the decoded frames, because headers can be wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from diffusion.data.readers.pixels import Orientation, over_background, too_many_pixels
from diffusion.data.readers.recording import (
    UNKNOWN_FPS,
    Recording,
    UnreadableVideo,
    decode_first,
    in_blocks,
    no_frames,
    uneven,
)
from temporal_zoo._support.packages import need

# FFmpeg's own VP8 and VP9 decoders skip the alpha channel; those of libvpx decode it.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_LEAST_PACKET = 8  # bytes that a packet takes in a file, including its entry in the index
_REPEATS = 4  # edit lists may repeat a part; the reader stops when it has read this many times the file's size
_FASTEST = 1000.0  # frames per second; a header that declares more is ignored


@dataclass
class _Tally:
    """Counts packets, frames and errors while packets are decoded."""

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
        """Counts an error of the decoder."""
        self.errors += 1
        self.first_error = self.first_error or f"after frame {self.frames}: {_reason(error)}"

    def frame(self, frame: Any, time_base: Fraction | None) -> None:
        """Counts a decoded frame."""
        self.frames += 1
        self.damaged += frame.is_corrupt
        self.interlaced |= bool(frame.interlaced_frame)
        if frame.pts is not None and time_base:
            self.times.append(float(frame.pts * time_base))
        if (size := (frame.width, frame.height)) not in self.sizes[-1:]:
            self.sizes.append(size)

    def finish(self, recording: Recording, declared: float | None) -> None:
        """Fills in what is known when all frames are read."""
        recording.lost = max(self.errors, self.packets - self.frames) if self.errors else 0
        recording.fps = self.rate(declared, whole=not recording.lost)
        notes = recording.notes
        if recording.lost:
            notes.append(
                f"{recording.lost} of its {self.frames + recording.lost} frames cannot be decoded, "
                f"{self.frames} are kept; the first error is {self.first_error}"
            )
        elif note := uneven(np.diff(self.times), recording.fps):
            notes.append(note)
        if self.stopped:
            recording.lost += 1
            notes.append(f"reading stopped after {self.frames} frames: {self.stopped}")
        if self.damaged:
            notes.append(f"{self.damaged} of its frames are damaged; they are kept as decoded")
        if self.interlaced:
            notes.append("its frames are interlaced and are not deinterlaced, so moving edges look like combs")
        if len(self.sizes) > 1:
            (w0, h0), (w1, h1) = self.sizes[:2]
            notes.append(f"the size of its frames changes from {w0} x {h0} to {w1} x {h1} pixels")

    def rate(self, declared: float | None, *, whole: bool = True) -> float:
        """Frames per second: the header's value, unless it differs from the time stamps by 2 % or more."""
        span = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        if span <= 0 or (declared and not whole):
            return declared or UNKNOWN_FPS
        measured = (len(self.times) - 1) / span
        return declared if declared and abs(measured / declared - 1) < 0.02 else measured


def movie(path: Path, size: int) -> Iterator[Recording]:
    """Reads the video of one file: the stream that is marked as default, otherwise the first.

    Raises:
        UnreadableVideo: the file cannot be decoded.  The message names it.
        MissingPackage: PyAV is not installed.
    """
    av = need("av", f"reading {path.name}")
    with _naming(path, av):
        container = av.open(str(path.absolute()))  # FFmpeg interprets some relative names as network addresses
    try:
        with _naming(path, av):
            recording = _recording(av, container, path, size)
    except UnreadableVideo:
        container.close()
        raise
    yield recording


def _recording(av: ModuleType, container: Any, path: Path, size: int) -> Recording:
    """The video of an open container; reading the last block closes the container."""
    if container.format.name == "concat":
        raise UnreadableVideo(path, "it is a list of other files and not a video")
    stream = _moving(container, path)
    if reason := too_many_pixels(stream.height, stream.width):
        raise UnreadableVideo(path, reason)
    tally = _Tally()
    frames = _frames(av, container, stream, tally, most_bytes=_REPEATS * path.stat().st_size + 2**20)
    first, frames = decode_first(frames, lambda: no_frames(path, tally.first_error or tally.stopped))
    orientation = _orientation(first, path)
    aspect = float(stream.sample_aspect_ratio or 1)
    height, width = orientation.shown(first.height, round(first.width * aspect))
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    declared = rate if 0 < rate <= _FASTEST else None
    square = _Square(av, path, size, aspect, orientation)

    def blocks() -> Iterator[np.ndarray]:
        with container, _naming(path, av):
            yield from in_blocks(square(frame) for frame in frames)
        tally.finish(recording, declared)

    recording = Recording(height, width, 3, blocks(), fps=declared or UNKNOWN_FPS)
    return recording


def _moving(container: Any, path: Path) -> Any:
    """The stream to show, which is never a cover picture."""
    streams = list(container.streams.video)
    if not streams:
        raise UnreadableVideo(path, "there is no video in it")
    moving = [stream for stream in streams if not _is_cover(stream, container)]
    if not moving:
        raise UnreadableVideo(path, "it holds no moving picture, only sound and a cover picture")
    stream = next((stream for stream in moving if "default" in _disposition(stream)), moving[0])
    stream.codec_context.thread_count = 1
    return stream


def _is_cover(stream: Any, container: Any) -> bool:
    if hasattr(type(stream), "disposition"):
        return "attached_pic" in _disposition(stream)
    # PyAV before 14.1 does not say; a cover picture has no frame rate, and its file holds sound.
    return not stream.average_rate and bool(container.streams.audio)


def _disposition(stream: Any) -> set[str]:
    flags = getattr(stream, "disposition", None)
    return set() if flags is None else {flag.name for flag in type(flags) if flag & flags}


def _frames(av: ModuleType, container: Any, stream: Any, tally: _Tally, *, most_bytes: int) -> Iterator[Any]:
    """Yields every frame that decodes and counts errors.  Stops when a container reads its bytes again and again."""
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
    """The decoder of a stream; a different one if the usual decoder skips the alpha channel."""
    other = _WITH_ALPHA.get(stream.codec_context.name)
    if stream.metadata.get("alpha_mode") != "1" or other not in av.codec.codecs_available:
        return stream.codec_context
    decoder = av.CodecContext.create(other, "r")
    decoder.thread_count = 1
    return decoder


def _orientation(frame: Any, path: Path) -> Orientation:
    """Reads the display matrix of a video: its nine numbers map (column, row) of the stored picture to the shown one.

    Raises:
        UnreadableVideo: the angle is not a multiple of 90 degrees.
    """
    # By name, because iteration over side_data yields different objects since PyAV 19.
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    straight, crossed = max(abs(a), abs(d)), max(abs(b), abs(c))
    if 64 * min(straight, crossed) > max(straight, crossed):
        raise UnreadableVideo(
            path, "its rotation tag is not a multiple of 90 degrees; rotate its pictures first, for example with ffmpeg"
        )
    if crossed > straight:
        return Orientation(transpose=True, flip_rows=b < 0, flip_columns=c < 0)
    return Orientation(flip_rows=d < 0, flip_columns=a < 0)


class _Square:
    """Converts frames to (size, size, 3) uint8 as shown."""

    def __init__(self, av: ModuleType, path: Path, size: int, aspect: float, orientation: Orientation) -> None:
        self._av, self._path, self._size = av, path, size
        self._aspect, self._orientation = aspect, orientation
        # All frames share these: a new one for each frame is slow and leaks memory.
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
        return self._orientation.square(picture, self._size)

    def _opaque(self, frame: Any) -> Any:
        """Blends a frame with the background; returns the frame itself if nothing is transparent."""
        if frame.format.has_palette or not any(component.is_alpha for component in frame.format.components):
            return frame
        rgba = self._convert.reformat(frame, format="rgba").to_ndarray()
        if rgba[..., 3].min() == 255:
            return frame
        return self._av.VideoFrame.from_ndarray(over_background(rgba), format="rgb24")


@contextmanager
def _naming(path: Path, av: ModuleType) -> Iterator[None]:
    """Converts errors of PyAV into UnreadableVideo with the path."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
