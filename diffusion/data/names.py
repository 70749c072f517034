"""Names of files: printed on one line, and sorted by the numbers in them."""

from __future__ import annotations

import os
import re
import unicodedata

_ESCAPED = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, separators of lines and paragraphs


def printable(name: str | os.PathLike[str]) -> str:
    """Converts a name to one line of UTF-8; other bytes and control characters become escapes like \\xdf."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _ESCAPED else letter
        for letter in text
    )


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts frame2 before frame10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
