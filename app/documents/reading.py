"""Documents to text, in a process of their own: neither a hostile nor a huge one holds up or crashes the gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from app.documents import _formats
from app.documents.base import Article, UnreadableDocument
from app.offload.protocol import Limits
from app.offload.workers import OffloadFailed, Workers

T = TypeVar("T")

_MOST_BYTES = 128 * 1024 * 1024
"""It is held several times over on its way to the worker."""
_MEMORY_BYTES = 2 * 1024**3
_LARGE_BYTES = 256 * 1024
_LEAST_SHARE = 0.25
"""Of the CPU time: what the smallest document gets. It grows with the size, up to all of it for a large one."""
_WAITING = 64
"""Documents of one project that wait to be read; each is held in memory meanwhile."""


def _workers(*, at_once: int, cpu_seconds: float, seconds: float) -> Workers:
    limits = Limits(seconds=seconds, cpu_seconds=cpu_seconds, memory_bytes=_MEMORY_BYTES)
    return Workers(limits, places=at_once, waiting=_WAITING, refusal=UnreadableDocument)


_readers = _workers(at_once=4, cpu_seconds=20.0, seconds=60.0)


def configure(*, at_once: int, cpu_seconds: float, seconds: float) -> None:
    """Before anything is read: how many documents at a time, of which one project has at most half, and the most each may take."""
    global _readers  # noqa: PLW0603 - one set of workers a process, however many applications are made in it
    _readers = _workers(at_once=at_once, cpu_seconds=cpu_seconds, seconds=seconds)


async def text(content: bytes, *, filename: str, content_type: str | None = None, project: str = "") -> str:
    """What a document says: Markdown where the format has structure (headings, lists, tables), else plain text.

    The format is told by the content, then by the name, then by `content_type` (what the client or the server said). Line ends are
    `\\n`. `project`: whose turn it is. Raises UnreadableDocument, also where there is more than can be read: a document is never cut
    silently. Raises Busy when the project has too many documents waiting.
    """
    return await _offloaded(_text, content, filename, content_type, project=project)


async def article(content: bytes, *, url: str, content_type: str, charset: str | None, project: str = "") -> Article:
    """The main text of a web page as Markdown, without what stands around it; another document that was fetched, whole.

    `url` is where it came from, `content_type` and `charset` what the server said. Raises UnreadableDocument and Busy.
    """
    return await _offloaded(_article, content, url, content_type, charset, project=project)


async def _offloaded(read: Callable[..., T], content: bytes, *arguments: str | None, project: str) -> T:
    if len(content) > _MOST_BYTES:
        raise UnreadableDocument(f"The document is too large to be read: at most {_MOST_BYTES // 2**20} MiB are.")
    share = min(1.0, _LEAST_SHARE + (1 - _LEAST_SHARE) * len(content) / _LARGE_BYTES)
    try:
        return await _readers.run(read, content, *arguments, project=project, share=share)
    except OffloadFailed as error:
        raise UnreadableDocument(f"The document cannot be read: {error}.") from error


def _text(content: bytes, filename: str, content_type: str | None) -> str:
    """In the worker."""
    return _characters(_formats.text(content, filename, content_type))


def _article(content: bytes, url: str, content_type: str, charset: str | None) -> Article:
    """In the worker."""
    found = _formats.article(content, url, content_type, charset)
    return msgspec.structs.replace(found, title=_characters(found.title), text=_characters(found.text))


def _characters(text: str) -> str:
    """Without lone surrogates, which a document can spell and nobody can encode."""
    return text if text.isascii() else text.encode(errors="replace").decode()
