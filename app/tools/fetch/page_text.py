"""A fetched page's text, with what the model must know about it: that it was truncated, or that the rest requires
scripts.

A page of many megabytes is mostly inline scripts, styles and pictures; without them even such a page can be read in
time.
"""

from __future__ import annotations

import asyncio
import re

import msgspec

from app.documents import reading
from app.documents.base import Article, UnreadableDocument
from app.tools.ports.fetcher import Page

_PAGES = ("text/html", "application/xhtml+xml")
_LARGE = 1024 * 1024
"""Smaller pages are passed on unchanged."""
_MOST_MARKUP = 1024 * 1024
"""Of what is left of a large page; the libraries take up to three seconds of CPU time for it."""
_CODE = re.compile(rb"<!--|-->|<(/?)(script|style|svg|noscript|template)\b[^<>]{0,2000}>?", re.IGNORECASE)
_EMBEDDED = re.compile(rb"data:[\w/+.;=-]{0,80}base64,[A-Za-z0-9+/=_\s-]{1000,}")
_LONG_ATTRIBUTE = re.compile(rb"\s[\w:-]{1,60}=(?:\"[^\"<>]{2000,}\"|'[^'<>]{2000,}')")
_TAG_END = b">"

_SHORT = 600
"""Characters; pages rendered by scripts have little text without them."""
_HARDLY_ANY = 60
_SCRIPT = re.compile(rb"<script\b", re.IGNORECASE)
_APPLICATION = re.compile(
    rb"<(?:div|main)\b[^>]{0,200}\bid=[\"']?(?:root|app|__next|__nuxt|__layout|app-root|react-root|main-app|application|q-app|gatsby)\b"
    rb"[^>]{0,200}>\s*(?:<!--[^>]{0,200}-->\s*)*</(?:div|main)>|<app-root\b[^>]{0,200}>\s*</app-root>",
    re.IGNORECASE,
)
_DEMAND = re.compile(
    r"(?:enable|activate|turn on|allow|requires?|needs?|without|support)[^.\n]{0,40}javascript"
    r"|javascript[^.\n]{0,40}(?:required|disabled|enabled)"
    r"|(?:启用|开启|打开|需要|不支持|禁用)[^。\n]{0,20}javascript|javascript[^。\n]{0,20}(?:启用|开启|打开|禁用)",
    re.IGNORECASE,
)
_WAITING = re.compile(r"\s*(?:loading|please wait|just a moment|redirecting|加载中|正在加载|请稍候)", re.IGNORECASE)
_NEEDS_SCRIPTS = (
    "(This page is rendered by JavaScript, which is not run here: what follows is all its text without. Look for the "
    "same elsewhere.)"
)
_ONLY_SCRIPTS = "The page is rendered by JavaScript, which is not run here; without it, the page has no readable text."
_CUT = "(The page is very long: only its first part was read.)"


async def article(page: Page, project: str = "") -> Article:
    """Title and main text of a fetched page. `project`: for fair scheduling. Raises UnreadableDocument and Busy."""
    body, whole = await asyncio.to_thread(_lean, page)
    try:
        found = await reading.article(
            body, url=page.url, content_type=page.content_type, charset=page.charset, project=project
        )
    except UnreadableDocument:
        if page.content_type in _PAGES and _SCRIPT.search(page.body):
            raise UnreadableDocument(_ONLY_SCRIPTS) from None
        raise
    if _needs_scripts(page, found.text):
        return msgspec.structs.replace(found, text=f"{_NEEDS_SCRIPTS}\n\n{found.text}")
    return found if whole else msgspec.structs.replace(found, text=f"{_CUT}\n\n{found.text}")


def _lean(page: Page) -> tuple[bytes, bool]:
    """The body, for a large page without the unused parts; and whether that is all of it."""
    if page.content_type not in _PAGES or len(page.body) <= _LARGE or b"%PDF-" in page.body[:_LARGE]:
        return page.body, True
    lean = _LONG_ATTRIBUTE.sub(b" ", _EMBEDDED.sub(b"", _without_code(page.body)))
    if len(lean) <= _MOST_MARKUP:
        return lean, True
    return lean[: lean.rfind(_TAG_END, 0, _MOST_MARKUP) + 1] or lean[:_MOST_MARKUP], False


def _without_code(body: bytes) -> bytes:
    kept: list[bytes] = []
    shown = 0
    hidden_until = b""
    for match in _CODE.finditer(body):
        ends = match[0] == b"-->" or bool(match[1])
        kind = b"-->" if match[2] is None else match[2].lower()
        if not hidden_until and not ends:
            kept.append(body[shown : match.start()])
            shown, hidden_until = match.start(), kind
        elif ends and kind == hidden_until:
            shown, hidden_until = match.end(), b""
    return b"".join([*kept, body[shown:]])


def _needs_scripts(page: Page, text: str) -> bool:
    if page.content_type not in _PAGES or len(text) > _SHORT or not _SCRIPT.search(page.body):
        return False
    if _DEMAND.search(text) or _APPLICATION.search(page.body):
        return True
    return len(text) <= _HARDLY_ANY and (
        _WAITING.match(text) is not None or _DEMAND.search(page.body.decode(errors="replace")) is not None
    )
