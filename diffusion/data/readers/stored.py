"""How a file stores its video: codec, size, frame rate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from diffusion.data.files import VideoFile, images_of
from diffusion.data.readers import UnreadableVideo, recordings
from temporal_zoo._support.packages import need

_EXACT_CODECS = frozenset({"ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "png", "apng", "qtrle", "rawvideo"})
_SUBSAMPLED = ("420", "422", "411", "410", "440", "nv12", "nv21")
_FOLDER, _ARRAYS = " frames", " arrays"


@dataclass(frozen=True)
class Stored:
    """How one file stores its video.

    how: for example "h264 yuv420p" or "uint8 arrays".
    height, width: in pixels, as a viewer shows the video.
    fps: frames per second; None if the file does not contain it.
    """

    how: str
    height: int
    width: int
    fps: float | None

    @property
    def lossless(self) -> bool:
        """Whether the decoded pixels equal the encoded ones; False for a codec that has a lossy and a lossless mode."""
        if self.how.endswith((_FOLDER, _ARRAYS)):
            return not self.how.startswith(("jpg", "jpeg"))
        codec, _, pixels = self.how.partition(" ")
        return codec in _EXACT_CODECS and not any(mark in pixels for mark in _SUBSAMPLED)


@cache
def stored(file: VideoFile) -> Stored | None:
    """How a file stores its first video; None if it cannot be decoded."""
    try:
        first = next(recordings(file.path, 1))  # its size is known before any block is read
    except UnreadableVideo:  # the build reports it
        return None
    if file.path.is_dir():
        how = images_of(file.path)[0].suffix[1:].lower() + _FOLDER
        return Stored(how, first.height, first.width, None)
    if file.is_array:
        return Stored(f"uint8{_ARRAYS}", first.height, first.width, None)
    return Stored(_codec(file.path), first.height, first.width, first.fps)


def _codec(path: Path) -> str:
    av = need("av", f"reading {path.name}")
    try:
        with av.open(str(path)) as container:
            codec = container.streams.video[0].codec_context
            return f"{codec.name} {codec.pix_fmt}"
    except (av.FFmpegError, OSError, IndexError):  # a reader other than PyAV decoded the file
        return f"{path.suffix[1:].lower()} video"
