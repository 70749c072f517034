"""Reads pictures with Pillow, as a viewer shows them: folders of frames, and animated png and webp files.

The reader applies orientation tags, blends transparent pixels with the background, and scales 16 bits to 8.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from diffusion.data.files import images_of
from diffusion.data.names import printable
from diffusion.data.readers.pixels import Orientation, over_background, too_many_pixels
from diffusion.data.readers.recording import Recording, UnreadableVideo, decode_first, in_blocks, no_frames, uneven
from temporal_zoo._support.packages import need

_EXIF_ORIENTATION = 0x0112
_ORIENTATIONS = {
    2: Orientation(flip_columns=True),
    3: Orientation(flip_rows=True, flip_columns=True),
    4: Orientation(flip_rows=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, flip_columns=True),
    7: Orientation(transpose=True, flip_rows=True, flip_columns=True),
    8: Orientation(transpose=True, flip_rows=True),
}


def frame_folder(path: Path, size: int) -> Iterator[Recording]:
    """Reads the pictures of a folder as one video; leaves out pictures that cannot be read, with a note.

    Raises:
        UnreadableVideo: none of the pictures can be read.
        MissingPackage: Pillow is not installed.
    """
    image = need("PIL.Image", f"reading the frames in {path.name}")
    files = images_of(path)
    lost: list[UnreadableVideo] = []
    sizes: dict[tuple[int, int], str] = {}

    def squares() -> Iterator[np.ndarray]:
        for file in files:
            try:
                with _opened(image, file) as picture:
                    pixels, orientation = _shown(picture, file)
            except UnreadableVideo as error:
                lost.append(error)
                continue
            sizes.setdefault(orientation.shown(*pixels.shape[:2]), file.name)
            yield orientation.square(pixels, size)

    _, pictures = decode_first(squares(), lambda: lost[0] if lost else no_frames(path))
    (height, width), *_ = sizes

    def blocks() -> Iterator[np.ndarray]:
        yield from in_blocks(pictures)
        recording.lost = len(lost)
        if lost:
            recording.notes.append(f"{len(lost)} of its {len(files)} pictures are left out; the first: {lost[0]}")
        if len(sizes) > 1:
            (h0, w0), (h1, w1), *_ = sizes
            recording.notes.append(f"its pictures differ in size, for example {w0} x {h0} and {w1} x {h1} pixels")

    recording = Recording(height, width, 3, blocks())
    yield recording


def animation(path: Path, size: int) -> Iterator[Recording]:
    """Reads the frames of one animated png or webp file, to the last one that decodes.

    Raises:
        UnreadableVideo: no frame can be decoded.
        MissingPackage: Pillow is not installed.
    """
    image = need("PIL.Image", f"reading {path.name}")
    picture = _opened(image, path)
    # The first picture of an animated png may be meant only for programs that cannot play animations.
    numbers = range(int(getattr(picture, "default_image", False)), getattr(picture, "n_frames", 1))
    milliseconds: list[float] = []  # integers, because sums of float seconds depend on the version of Python
    errors: list[UnreadableVideo] = []

    def squares() -> Iterator[np.ndarray]:
        for number in numbers:
            try:
                pixels, orientation = _shown(picture, path, number)
            except UnreadableVideo as error:
                errors.append(error)
                return
            milliseconds.append(float(picture.info.get("duration", 0)))
            yield orientation.square(pixels, size)

    try:
        _, pictures = decode_first(squares(), lambda: errors[0] if errors else no_frames(path))
    except UnreadableVideo:
        picture.close()
        raise

    def blocks() -> Iterator[np.ndarray]:
        with picture:
            yield from in_blocks(pictures)
        if sum(milliseconds) > 0:
            recording.fps = 1000 * len(milliseconds) / sum(milliseconds)
        if errors:
            recording.lost = len(numbers) - len(milliseconds)
            recording.notes.append(f"only {len(milliseconds)} of its {len(numbers)} frames can be decoded: {errors[0]}")
        elif note := uneven(np.array(milliseconds) / 1000, recording.fps):
            recording.notes.append(note)

    recording = Recording(picture.height, picture.width, 3, blocks())
    yield recording


def _guarded(path: Path, work: Callable[[], Any]) -> Any:
    """Calls Pillow and converts its errors (OSError, SyntaxError, ValueError, struct.error and others)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata, and about sizes, which this module checks
            return work()
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).replace(repr(str(path)), printable(path.name))
        raise UnreadableVideo(path, reason or type(error).__name__) from error


def _opened(image: Any, path: Path) -> Any:
    return _guarded(path, lambda: image.open(path))


def _shown(picture: Any, path: Path, number: int = 0) -> tuple[np.ndarray, Orientation]:
    """Decodes one picture of a file: (h, w, 3) uint8 as stored, and how it is rotated for display."""
    if reason := too_many_pixels(picture.height, picture.width):
        raise UnreadableVideo(path, reason)
    if number:
        _guarded(path, lambda: picture.seek(number))
    _guarded(path, picture.load)
    if picture.format == "TIFF":  # Pillow rotates it while loading
        return _rgb(picture, path), Orientation()
    tag = 1
    with suppress(UnreadableVideo):  # a viewer shows a picture even if its metadata are damaged
        tag = _guarded(path, picture.getexif).get(_EXIF_ORIENTATION, 1)
    return _rgb(picture, path), _ORIENTATIONS.get(tag, Orientation())


def _rgb(picture: Any, path: Path) -> np.ndarray:
    """Converts any kind of picture to (h, w, 3) uint8.

    Raises:
        UnreadableVideo: its values have no known range.
    """
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and picture.format in ("PNG", "PPM")):
        return _grey((np.asarray(picture).astype(np.uint32) + 128) // 257)
    if mode == "I":
        raise UnreadableVideo(path, "its numbers are 32-bit integers; store 8 or 16 bits")
    if mode == "F":
        numbers = np.asarray(picture)
        low, high = float(numbers.min()), float(numbers.max())
        if not (low >= 0 and high <= 1):
            raise UnreadableVideo(
                path, f"its numbers are floats from {low:g} to {high:g}; store floats in 0..1, or 8 or 16 bits"
            )
        return _grey(np.rint(255 * numbers))
    if "transparency" in picture.info or mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        rgba = np.asarray(_guarded(path, lambda: picture.convert("RGBA")))
        return rgba[..., :3] if rgba[..., 3].min() == 255 else over_background(rgba)
    return np.asarray(_guarded(path, lambda: picture.convert("RGB")))


def _grey(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.uint8)[..., None].repeat(3, -1)
