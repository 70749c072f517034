"""Numbers and sizes as people read them."""

from __future__ import annotations


def number(value: float) -> str:
    """Three significant digits, without exponents for everyday sizes."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def size(value: float) -> str:
    """Bytes with the unit that suits them."""
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{number(value)} {unit}"
        value /= 1024
    return f"{number(value)} GiB"
