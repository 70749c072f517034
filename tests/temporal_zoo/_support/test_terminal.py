"""Texts on terminals that cannot show every character."""

import pytest

from temporal_zoo._support import terminal


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("2 × 3 ± 1 — ≥", "ascii", b"2 x 3 +- 1 - >="),
        ("é", "ascii", b"\\xe9"),
        ("é", "utf-8", "é".encode()),
        ("a\udcffb", "utf-8", b"a\xffb"),
        ("\ud800", "utf-8", b"\\ud800"),
    ],
)
def test_a_character_without_encoding_is_replaced(text, encoding, shown):
    terminal.prepare()
    assert text.encode(encoding, "temporal_zoo.plain") == shown
