"""Web pages to Markdown: the main text by trafilatura, all that is visible where it finds none."""

from __future__ import annotations

import re
from typing import Any

from app.documents.base import Article, UnreadableDocument

_MOST_BYTES = 32 * 1024 * 1024
_META_WITHIN = 4096
_META = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w-]+)|<\?xml[^>]+encoding\s*=\s*[\"']([\w-]+)", re.IGNORECASE)
_UNSEEN = ("script", "style", "noscript", "template", "head", "svg")
_BLOCKS = (
    *("address", "article", "aside", "blockquote", "br", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer"),
    *("form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary"),
    *("table", "td", "th", "tr", "ul"),
)


def declared_charset(content: bytes) -> str | None:
    """The encoding the page says it has (`<meta charset>` or the XML declaration)."""
    found = _META.search(content[:_META_WITHIN])
    return (found[1] or found[2]).decode() if found else None


def article(html: str, url: str | None = None, *, all_of_it: bool = False) -> Article:
    """The page's title and main text; with `all_of_it` rather too much than too little. Raises UnreadableDocument where there is none."""
    if len(html) > _MOST_BYTES:
        raise UnreadableDocument(f"The page is too large to be read: at most {_MOST_BYTES // 2**20} MiB are.")
    import trafilatura  # noqa: PLC0415 - heavy

    tree: Any = trafilatura.load_html(html)
    if tree is None:
        raise UnreadableDocument("The page has no text.")
    title = " ".join((tree.findtext(".//title") or "").split())
    found = trafilatura.extract(html, url=url, output_format="markdown", include_tables=True, include_links=False, favor_recall=all_of_it)
    text = found or _visible(tree)
    if not text:
        raise UnreadableDocument("The page has no text; perhaps it is made by scripts.")
    return Article(title, text)


def document(html: str) -> str:
    """An HTML file's text, under its title. Raises UnreadableDocument."""
    page = article(html, all_of_it=True)
    return page.text if not page.title or page.title in page.text else f"# {page.title}\n\n{page.text}"


def _visible(tree: Any) -> str:
    """All text a reader sees, a line for each block."""
    for element in list(tree.iter(*_UNSEEN)):
        element.drop_tree()
    for element in tree.iter(*_BLOCKS):
        element.text = f"\n{element.text or ''}"
        element.tail = f"\n{element.tail or ''}"
    lines = (" ".join(line.split()) for line in "".join(tree.itertext()).split("\n"))
    return "\n".join(line for line in lines if line)
