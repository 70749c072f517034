"""Self-contained HTML pages: elements, tables and pictures under one style sheet, `page.css`.

A plain string is text, and these functions escape it; `Html` is markup, and they leave it as it is.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Literal

# A cell that holds a number, perhaps with a sign or a unit; "-" and an empty cell stand for a missing one.
_NUMBER = re.compile(r"([+\-−±]?[\d.].*|-|)", re.DOTALL)


class Html(str):
    """Markup, which is not escaped again."""


def element(tag: str, *children: str, **attributes: str | bool) -> Html:
    """`<tag attribute="value">children</tag>`.

    Args:
        children: text, which is escaped, or `Html`.
        attributes: a trailing underscore is dropped (`class_`); True writes the name alone; "" and False write nothing.
    """
    content = "".join(child if isinstance(child, Html) else html.escape(child) for child in children)
    return Html(f"<{tag}{_written(attributes)}>{content}</{tag}>")


def joined(parts: Iterable[str]) -> Html:
    """Parts one after the other; texts are escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def page(title: str, *parts: str) -> str:
    """A whole document with the style sheet inside; it loads no other file."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = element("head", Html(meta), element("title", title), element("style", Html(style)))
    return f'<!doctype html>\n<html lang="en">{head}\n{element("body", *parts)}</html>\n'


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, kinds: Sequence[str] = (), title: str = "", note: str = ""
) -> Html:
    """A table that scrolls sideways on a narrow screen; columns of numbers are aligned to the right.

    Args:
        columns: their names; a line break stays one.
        rows: text or `Html` for each column; the last cell of a shorter row spans the columns that are left.
        kinds: a CSS class for each row, "" for none.
        title: above the table.
        note: below the table.
    """
    rows = [tuple(row) for row in rows]
    full = [row for row in rows if len(row) == len(columns)]
    numeric = [all(map(_NUMBER.fullmatch, column)) for column in zip(*full, strict=True)] or [False] * len(columns)
    head = joined(_cell("th", _lines(name), right) for name, right in zip(columns, numeric, strict=True))
    lines = [_row(row, numeric, kind) for row, kind in zip(rows, kinds or [""] * len(rows), strict=True)]
    caption = element("caption", title) if title else Html()
    whole = element("table", caption, element("thead", element("tr", head)), element("tbody", *lines))
    below = element("p", note, class_="note") if note else Html()
    return joined([element("div", whole, class_="wide", tabindex="0"), below])


def picture(content: bytes, alt: str, kind: Literal["png", "svg+xml"] = "png") -> Html:
    """A picture whose file is inside the page; `alt` says what it shows."""
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Html(f"<img{_written({'alt': alt, 'src': source})}>")


def figure(image: Html, caption: str = "") -> Html:
    """A picture with its caption; on a narrow screen it stays readable and scrolls sideways."""
    below = element("figcaption", caption) if caption else Html()
    return element("figure", element("div", image, class_="wide", tabindex="0"), below)


def bullets(lines: Iterable[str]) -> Html:
    """A list; no lines give nothing."""
    items = [element("li", line) for line in lines]
    return element("ul", *items) if items else Html()


def details(summary: str, *parts: str, is_open: bool = False) -> Html:
    """A part that opens on a click or a key."""
    return element("details", element("summary", summary), *parts, open=is_open)


def _written(attributes: dict[str, str | bool]) -> str:
    return "".join(
        f" {name.rstrip('_')}" + ("" if value is True else f'="{html.escape(value)}"')
        for name, value in attributes.items()
        if value is not False and value != ""
    )


def _row(row: Sequence[str], numeric: Sequence[bool], kind: str) -> Html:
    cells = [_cell("td", cell, right) for cell, right in zip(row, numeric, strict=False)]
    if missing := len(numeric) - len(row):
        cells[-1] = element("td", row[-1], colspan=str(missing + 1))
    return element("tr", *cells, class_=kind)


def _cell(tag: str, content: str, right: bool) -> Html:
    return element(tag, content, class_="number" if right else "")


def _lines(text: str) -> Html:
    return text if isinstance(text, Html) else Html(html.escape(text).replace("\n", "<br>"))
