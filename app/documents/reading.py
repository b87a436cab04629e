"""Documents to text, in a separate process: neither a hostile nor a huge document blocks or crashes the gateway."""

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
"""The document is copied several times on its way to the worker."""
_MEMORY_BYTES = 2 * 1024**3
_LARGE_BYTES = 256 * 1024
_LEAST_SHARE = 0.25
"""The fraction of the CPU time for the smallest document. It grows with the size, up to all of it for a large one."""
_WAITING = 64
"""Documents of one project that wait to be read; each is held in memory meanwhile."""


def _workers(*, at_once: int, cpu_seconds: float, seconds: float) -> Workers:
    limits = Limits(seconds=seconds, cpu_seconds=cpu_seconds, memory_bytes=_MEMORY_BYTES)
    return Workers(limits, places=at_once, waiting=_WAITING, refusal=UnreadableDocument)


_readers = _workers(at_once=4, cpu_seconds=20.0, seconds=60.0)


def configure(*, at_once: int, cpu_seconds: float, seconds: float) -> None:
    """Before anything is read: the number of concurrent documents, of which one project gets at most half, and the
    limits for each.
    """
    global _readers  # noqa: PLW0603 - one set of workers per process, for all its applications
    _readers = _workers(at_once=at_once, cpu_seconds=cpu_seconds, seconds=seconds)


async def text(content: bytes, *, filename: str, content_type: str | None = None, project: str = "") -> str:
    """The text of a document: Markdown if the format has structure (headings, lists, tables), otherwise plain text.

    The format is determined by the content, then the name, then `content_type` (as declared by the client or the
    server). Line ends are `\\n`. `project`: for fair scheduling. Raises UnreadableDocument, also if there is more than
    can be read: a document is never truncated silently. Raises Busy if the project has too many documents waiting.
    """
    return await _offloaded(_text, content, filename, content_type, project=project)


async def article(content: bytes, *, url: str, content_type: str, charset: str | None, project: str = "") -> Article:
    """The main text of a web page as Markdown, without navigation and the like; any other fetched document in full.

    `url` is its address, `content_type` and `charset` as declared by the server. Raises UnreadableDocument and Busy.
    """
    return await _offloaded(_article, content, url, content_type, charset, project=project)


async def _offloaded(read: Callable[..., T], content: bytes, *arguments: str | None, project: str) -> T:
    if len(content) > _MOST_BYTES:
        raise UnreadableDocument(f"The document is too large to be read: the limit is {_MOST_BYTES // 2**20} MiB.")
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
    """Without lone surrogates, which documents can contain but UTF-8 cannot encode."""
    return text if text.isascii() else text.encode(errors="replace").decode()
