"""Where files are kept between runs: decoded videos, weights, compiled libraries.  Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from temporal_zoo.errors import InvalidInput


def cache_folder() -> Path:
    """$ZOO_CACHE, else temporal_zoo in $XDG_CACHE_HOME, else ~/.cache/temporal_zoo; it need not exist.

    Raises:
        InvalidInput: the path begins with ~ and there is no home folder.
    """
    chosen = os.environ.get("ZOO_CACHE")
    path = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "temporal_zoo"
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InvalidInput(f"no cache folder: {path} begins with ~, and {error} Set ZOO_CACHE to a folder") from error
