"""The built-in sources, `builtin:NAME`, and the files of any source."""

from __future__ import annotations

from pathlib import Path

from diffusion.data import DataError
from temporal_zoo.config import nearest

BUILTINS = {
    "mazes": "procedural first-person mazes, rendered on demand: any number of videos, no files",
    "doom": "20 recorded walks through Doom-like mazes, 300 frames each; needs PyAV",
}


def builtin(source: str) -> str | None:
    """The name of a built-in source ("mazes" for "builtin:mazes"), or None for a path.

    Raises:
        DataError: there is no built-in source of that name.
    """
    kind, colon, name = source.partition(":")
    if kind != "builtin" or not colon:
        return None
    if name not in BUILTINS:
        raise DataError(f"unknown built-in videos {name!r}{nearest(name, BUILTINS)}; choose from {', '.join(BUILTINS)}")
    return name


def files_of(source: str) -> Path:
    """The file or folder of a source.

    Raises:
        DataError: the built-in source is unknown or has no files.
    """
    name = builtin(source)
    if name == "mazes":
        raise DataError(f"{source} has no files, its videos are rendered; show some with: zoo data preview {source}")
    if name == "doom":
        return Path(__file__).parent / "doom_mazes"
    try:
        return Path(source).expanduser()
    except RuntimeError as error:
        raise DataError(f"{source}: {error}; write the whole path") from error
