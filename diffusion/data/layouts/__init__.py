"""Ways in which people arrange video files.  A file here is a layout, whose name is the file's.

A module has two functions:

    matches(path: Path) -> bool      whether the files at `path`, which exists, have this layout; decodes nothing
    search(path: Path) -> Listing    finds the video files; `diffusion.data.files` has the parts

Videos whose names begin with train/ and test/ belong to these splits, so a layout that knows the splits of its videos
names them so.  The first line of a module's docstring is what `zoo data inspect` prints.  Files that begin with an
underscore are shared parts.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from diffusion.data import DataError
from diffusion.data.files import READABLE, Listing
from diffusion.data.names import natural, printable
from temporal_zoo._support import submodules

_GENERAL = ("train_test", "folder", "file")  # match many sources, and so they are tried after all others, in this order


def names() -> list[str]:
    """The names of all layouts, in the order in which they are tried; imports none of them."""
    return [*(name for name in submodules.names(__name__) if name not in _GENERAL), *_GENERAL]


def layout_of(path: Path) -> ModuleType:
    """The first layout that matches a path.

    Raises:
        DataError: there is no such path.
    """
    if not path.exists():
        raise DataError(
            f"no file or folder {printable(path)}; built-in videos are written builtin:mazes and builtin:doom"
        )
    modules = (import_module(f"{__name__}.{name}") for name in names())
    return next(module for module in modules if module.matches(path))


def search(path: Path) -> Listing:
    """Finds the video files of a source.

    Raises:
        DataError: there is no such path, or it holds no videos.  The message names the first problems.
    """
    layout = layout_of(path)
    listing: Listing = layout.search(path)
    if not listing.files:
        first = "".join(f"; {problem}" for problem in listing.problems[:3])
        raise DataError(f"{printable(path)} holds no videos; {READABLE}{first}")
    listing.layout = f"{layout.__name__.rpartition('.')[2]}: {(layout.__doc__ or '').partition(chr(10))[0]}"
    listing.files.sort(key=lambda file: natural(file.name))
    listing.problems.sort(key=natural)
    return listing
