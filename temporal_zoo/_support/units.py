"""Numbers and sizes as short texts."""

from __future__ import annotations


def number(value: float) -> str:
    """Three significant digits, without exponents."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def size(value: float) -> str:
    """A number of bytes in B, KiB, MiB or GiB, with three significant digits."""
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{number(value)} {unit}"
        value /= 1024
    return f"{number(value)} GiB"
