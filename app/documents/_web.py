"""Web pages to Markdown: the main text of fetched ones with trafilatura, all text of uploaded ones with the engine for
documents.
"""

from __future__ import annotations

import re
from contextlib import suppress
from html import unescape
from typing import Any

from app.documents import _office
from app.documents.base import Article, Reading, UnreadableDocument

_MOST_BYTES = 32 * 1024 * 1024
_META_WITHIN = 4096
_META = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w-]+)|<\?xml[^>]+encoding\s*=\s*[\"']([\w-]+)", re.IGNORECASE)
_INPUT = re.compile(r"<input\b[^<>]{0,4000}>(?=(\s)?)", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"\b(type|value)\s*=\s*(?:[\"']([^\"']*)[\"']|([^\s\"'>]+))", re.IGNORECASE)
_CHECKED = re.compile(r"\schecked\b", re.IGNORECASE)
_HEAD_WITHIN = 64 * 1024
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_TAGS = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)")
_UNCLOSED = frozenset(
    (
        *(
            "area",
            "base",
            "br",
            "col",
            "embed",
            "hr",
            "img",
            "input",
            "link",
            "meta",
            "param",
            "source",
            "track",
            "wbr",
        ),
        *("p", "li", "td", "th", "tr", "dt", "dd", "option", "thead", "tbody", "tfoot", "colgroup"),
    )
)
"""Their end tag does not exist or may be omitted."""
_DEEPEST = 180
_UNSEEN = ("script", "style", "noscript", "template", "head", "svg")
_BLOCKS = (
    *(
        "address",
        "article",
        "aside",
        "blockquote",
        "br",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
    ),
    *(
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "summary",
    ),
    *("table", "td", "th", "tr", "ul"),
)


def declared_charset(content: bytes) -> str | None:
    """The encoding that the page declares (`<meta charset>` or the XML declaration)."""
    found = _META.search(content[:_META_WITHIN])
    return (found[1] or found[2]).decode() if found else None


def article(html: str, url: str) -> Article:
    """The page's title and main text. Raises UnreadableDocument if there is none."""
    if len(html) > _MOST_BYTES:
        raise _too_large()
    import trafilatura  # noqa: PLC0415 - heavy

    tree: Any = trafilatura.load_html(html)
    if tree is None:
        raise UnreadableDocument("The page has no text.")
    title = " ".join((tree.findtext(".//title") or "").split())
    found = trafilatura.extract(html, url=url, output_format="markdown", include_tables=True, include_links=False)
    text = found or _visible(tree)
    if not text:
        raise UnreadableDocument("The page has no text; it may be rendered by scripts.")
    return Article(title, text)


def document(html: str) -> Reading:
    """All of an HTML file's text, under its title. Raises UnreadableDocument."""
    if len(html) > _MOST_BYTES:
        raise _too_large()
    title, found = _TITLE.search(html[:_HEAD_WITHIN]), None
    if _depth(html) <= _DEEPEST:
        with suppress(UnreadableDocument):  # it produced no text
            found = _office.read(_INPUT.sub(_entered, html).encode(errors="replace"), "html")
    return _titled(found or Reading(_all_visible(html)), unescape(" ".join(title[1].split())) if title else "")


def _entered(field: re.Match[str]) -> str:
    """The displayed value of a form field, as text after it."""
    told = {name.lower(): quoted or bare for name, quoted, bare in _ATTRIBUTE.findall(field[0])}
    match told.get("type", "text").lower():
        case "checkbox" | "radio":
            shown = "\u2612" if _CHECKED.search(field[0]) else "\u2610"
        case "hidden" | "password" | "image" | "file":
            shown = ""
        case _:
            shown = told.get("value", "")
    apart = "" if field[1] else " "
    return f"{field[0]}<span>{shown}{apart}</span>" if shown else field[0]


def _titled(page: Reading, title: str) -> Reading:
    return page if not title or title in page.text else Reading(f"# {title}\n\n{page.text}", page.unread)


def _depth(html: str) -> int:
    """The deepest nesting of elements."""
    most = depth = 0
    for tag in _TAGS.finditer(html):
        if tag[2].lower() not in _UNCLOSED:
            depth = max(depth + (-1 if tag[1] else 1), 0)
            most = max(most, depth)
    return most


def _all_visible(html: str) -> str:
    import trafilatura  # noqa: PLC0415 - heavy

    tree: Any = trafilatura.load_html(html)
    text = "" if tree is None else _visible(tree)
    if not text:
        raise UnreadableDocument("The page has no text; it may be rendered by scripts.")
    return text


def _too_large() -> UnreadableDocument:
    return UnreadableDocument(f"The page is too large to be read: the limit is {_MOST_BYTES // 2**20} MiB.")


def _visible(tree: Any) -> str:
    """All visible text, one line per block."""
    for element in list(tree.iter(*_UNSEEN)):
        element.drop_tree()
    for element in tree.iter(*_BLOCKS):
        element.text = f"\n{element.text or ''}"
        element.tail = f"\n{element.tail or ''}"
    lines = (" ".join(line.split()) for line in "".join(tree.itertext()).split("\n"))
    return "\n".join(line for line in lines if line)
