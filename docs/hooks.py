"""Changes pages while mkdocs builds the site: equations become MathML, and a footer links the glossary's terms."""

from __future__ import annotations

import html
import re
from pathlib import Path
from posixpath import relpath

EQUATION = re.compile(r'<(div|span) class="arithmatex">(?:\\\[|\\\()(.*?)(?:\\\]|\\\))</\1>', re.DOTALL)
TERM = re.compile(r"^## (.+)$", re.MULTILINE)


def on_page_markdown(markdown: str, page, **_) -> str:
    """Adds links to those terms of the glossary that the page uses."""
    if page.file.src_uri == "glossary.md":
        return markdown
    used = [term for term in terms() if uses(markdown, term)]
    if not used:
        return markdown
    glossary = relpath("glossary.md", str(Path(page.file.src_uri).parent))
    links = " · ".join(f"[{term}]({glossary}#{term.lower().replace(' ', '-')})" for term in used)
    return f"{markdown}\n\n<small>Words on this page: {links}</small>\n"


def terms() -> list[str]:
    """The headings of glossary.md."""
    return TERM.findall(Path(__file__).with_name("glossary.md").read_text(encoding="utf-8"))


def uses(text: str, term: str) -> bool:
    """Whether a text contains a term: singular, plural, or the past of a verb."""
    return re.search(rf"\b{re.escape(term)}[sd]?\b", text, re.IGNORECASE) is not None


def on_page_content(content: str, **_) -> str:
    """Converts the equations that pymdownx.arithmatex marks to MathML, which browsers typeset without a script."""
    return EQUATION.sub(_mathml, content)


def _mathml(equation: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    return convert(html.unescape(equation[2]).strip(), display="block" if equation[1] == "div" else "inline")
