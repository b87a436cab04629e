"""The sources of one response: numbered for the model, found again in its answer.

The model cites `[n]`, or writes a page's address, or the `sandbox:` path of a file that code made; each such place gets an annotation.
Indexes count Unicode code points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from app.protocol import items
from app.protocol.items import Annotation
from app.tools.base import ContainerFile, FileCitation, Source, UrlCitation

_URL = r"(?:[^\s()]|\([^\s()]{0,200}\)){1,2000}"
_LINK = rf"\((?P<link>{_URL}|sandbox:[^()\n]{{1,500}})(?:\s+\"[^\"\n]{{0,200}}\")?\)"
_NUMBER = re.compile(rf"\[(\d{{1,4}})\](?:{_LINK})?")
_MARKDOWN = re.compile(rf"(?:!\[|\[)[^\[\]\n]{{0,500}}\]{_LINK}")
_ADDRESS = re.compile(r"(?:https?://|sandbox:/)(?:[^\s<>()\[\]\"'`，。；、！？：（）【】《》「」]|\([^\s<>()]{0,200}\))+")  # noqa: RUF001 - Chinese text
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_TRAILING = ".,;:!?*"


class Citations:
    """Sources by number, from 1."""

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._numbers: dict[object, int] = {}
        self._by_address: dict[str, Source] = {}
        self._shown: set[str] = set()
        """Ids of the files that an answer has got already."""

    def cite(self, source: Source) -> int:
        """The source's number, the first time and later."""
        key = _key(source)
        number = self._numbers.get(key)
        if number is None:
            self._sources.append(source)
            number = self._numbers[key] = len(self._sources)
            self._by_address.setdefault(_address(source), source)
        return number

    def annotate(self, text: str) -> Sequence[Annotation]:
        """The annotations of an answer, in the order of the text; new files that code made and no answer mentions come last."""
        if not self._sources:
            return ()
        found: list[Annotation] = []
        taken: list[tuple[int, int]] = []
        for start, end, source in sorted(self._places(text), key=lambda place: (place[0], -place[1])):
            if not taken or start >= taken[-1][1]:
                taken.append((start, end))
                found.append(_annotation(source, start, end))
        self._shown.update(a.file_id for a in found if isinstance(a, items.ContainerFileCitation))
        made = [source for source in self._sources if isinstance(source, ContainerFile) and source.file_id not in self._shown]
        self._shown.update(source.file_id for source in made)
        return [*found, *(_annotation(source, len(text), len(text)) for source in made)]

    def _places(self, text: str) -> Iterator[tuple[int, int, Source]]:
        """Where the text names a source; places may overlap."""
        for match in _NUMBER.finditer(text):
            number = int(match[1])
            if 0 < number <= len(self._sources):
                yield *match.span(), self._sources[number - 1]
        for match in _MARKDOWN.finditer(text):
            source = self._by_address.get(_normal(match["link"]))
            if source is not None:
                yield *match.span(), source
        for match in _ADDRESS.finditer(text):
            for written in (match[0], _NOT_ASCII.split(match[0], maxsplit=1)[0]):  # Chinese goes on without a space
                address = written.rstrip(_TRAILING)
                source = self._by_address.get(_normal(address))
                if source is not None:
                    yield match.start(), match.start() + len(address), source
                    break


def _key(source: Source) -> object:
    match source:
        case UrlCitation():
            return ("url", _normal(source.url))
        case FileCitation():
            return ("file", source.file_id)
        case ContainerFile():
            return ("container", source.container_id, source.file_id)


def _address(source: Source) -> str:
    match source:
        case UrlCitation():
            return _normal(source.url)
        case FileCitation():
            return f"file:{source.file_id}"
        case ContainerFile():
            return _normal(f"sandbox:{source.path}")


def _normal(url: str) -> str:
    return unquote(url.partition("#")[0].removesuffix("/"))


def _annotation(source: Source, start: int, end: int) -> Annotation:
    match source:
        case UrlCitation():
            return items.UrlCitation(source.url, source.title, start, end)
        case FileCitation():
            return items.FileCitation(source.file_id, source.filename, start)
        case ContainerFile():
            return items.ContainerFileCitation(source.container_id, source.file_id, source.filename, start, end)
