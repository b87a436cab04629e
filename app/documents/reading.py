"""Documents to text, in a process of their own: neither a hostile nor a huge one holds up or crashes the gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from app import offload
from app.documents import _formats
from app.documents.base import Article, UnreadableDocument

T = TypeVar("T")

_SECONDS = 120.0
_AT_ONCE = 2
_MOST_BYTES = 128 * 1024 * 1024
"""It is held several times over on its way to the worker and back."""


async def text(content: bytes, *, filename: str, content_type: str | None = None) -> str:
    """What a document says: Markdown where the format has structure (headings, lists, tables), else plain text.

    The format is told by the content, then by the name, then by `content_type` (what the client or the server said). Line ends are
    `\\n`. Raises UnreadableDocument, also where there is more than can be read: a document is never cut silently.
    """
    return await _offloaded(_formats.text, content, filename, content_type)


async def article(content: bytes, *, url: str, content_type: str, charset: str | None) -> Article:
    """The main text of a web page as Markdown, without what stands around it; another document that was fetched, whole.

    `url` is where it came from, `content_type` and `charset` what the server said. Raises UnreadableDocument.
    """
    return await _offloaded(_formats.article, content, url, content_type, charset)


async def _offloaded(read: Callable[..., T], content: bytes, *arguments: str | None) -> T:
    if len(content) > _MOST_BYTES:
        raise UnreadableDocument(f"The document is too large to be read: at most {_MOST_BYTES // 2**20} MiB are.")
    try:
        return await offload.run(read, content, *arguments, seconds=_SECONDS, kind="documents", at_once=_AT_ONCE)
    except offload.OffloadFailed as error:
        raise UnreadableDocument(f"The document cannot be read: {error}.") from error
