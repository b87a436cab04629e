"""The sources of one response: numbered for the model, and recognised in its answer.

The model cites `[n]` in any notation (`app.engine.hosted.citation_marks`), a page's address, or the `sandbox:` path of
a file created by code; each such place gets an annotation. Indexes count Unicode code points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from app.engine.hosted.citation_marks import LINK, definitions, marks
from app.protocol.wire import items
from app.protocol.wire.items import Annotation
from app.tools.ports.tool import ContainerFile, FileCitation, Source, UrlCitation

_MARKDOWN = re.compile(rf"(?:!\[|\[)[^\[\]\n]{{0,500}}\]{LINK}")
_LABEL = re.compile(r"\[\^?([^\s\[\]^]{1,40})\]")
_CHINESE_MARKS = "，。；、！？：（）【】《》「」"  # noqa: RUF001 - Chinese text
_ADDRESS = re.compile(rf"(?:https?://|sandbox:/)(?:[^\s<>()\[\]\"'`{_CHINESE_MARKS}]|\([^\s<>()]{{0,200}}\))+")
_AFTER_ADDRESS = " \t.,;:!?*)>]"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_TRAILING = ".,;:!?*"
_TRACKING = re.compile(r"(?:utm_\w+|gclid|dclid|fbclid|msclkid|yclid|igshid|mc_[ce]id|spm|_ga|_gl)=", re.IGNORECASE)
_PORT = re.compile(r":(?:80|443)\Z")


class Citations:
    """Sources by number, from 1."""

    def __init__(self, sources: Sequence[Source] = (), shown: Sequence[str] = ()) -> None:
        self._sources: list[Source] = []
        self._numbers: dict[object, int] = {}
        self._by_address: dict[str, Source] = {}
        self._shown = set(shown)
        """Ids of files that are already annotated."""
        for source in sources:
            self.cite(source)

    @property
    def sources(self) -> Sequence[Source]:
        """In the order of their numbers."""
        return self._sources

    @property
    def shown(self) -> Sequence[str]:
        """Ids of files that are already annotated."""
        return sorted(self._shown)

    def cite(self, source: Source) -> int:
        """The source's number, the same each time it is cited."""
        key = _key(source)
        number = self._numbers.get(key)
        if number is None:
            self._sources.append(source)
            number = self._numbers[key] = len(self._sources)
            self._by_address.setdefault(_address(source), source)
        return number

    def annotate(self, text: str) -> Sequence[Annotation]:
        """The annotations of an answer, in the order of the text.

        New files created by code that no answer mentions come last.
        """
        if not self._sources:
            return ()
        found: list[Annotation] = []
        free = 0
        for start, end, sources in sorted(self._places(text), key=lambda place: (place[0], -place[1])):
            if start >= free:
                free = end
                found += [_annotation(source, start, end) for source in sources]
        self._shown.update(a.file_id for a in found if isinstance(a, items.ContainerFileCitation))
        made = [
            source
            for source in self._sources
            if isinstance(source, ContainerFile) and source.file_id not in self._shown
        ]
        self._shown.update(source.file_id for source in made)
        return [*found, *(_annotation(source, len(text), len(text)) for source in made)]

    def _places(self, text: str) -> Iterator[tuple[int, int, Sequence[Source]]]:
        """Where the text cites sources; places may overlap."""
        labels = self._defined(text)
        for mark in marks(text):
            sources = [
                source for number in mark.numbers if (source := labels.get(str(number)) or self._numbered(number))
            ]
            if sources:
                yield mark.start, mark.end, sources
        for match in _LABEL.finditer(text) if labels else ():
            source = None if match[1].isdecimal() else labels.get(match[1])
            if source is not None:
                yield *match.span(), (source,)
        for match in _MARKDOWN.finditer(text):
            source = self._by_address.get(_normal(match["link"]))
            if source is not None:
                yield *match.span(), (source,)
        for start, end, source in self._addresses(text):
            yield start, end, (source,)

    def _numbered(self, number: int) -> Source | None:
        return self._sources[number - 1] if number <= len(self._sources) else None

    def _defined(self, text: str) -> dict[str, Source]:
        """Labels that the answer itself defines: a model that lists its sources may renumber them."""
        found: dict[str, Source] = {}
        for definition in definitions(text):
            for _, end, source in self._addresses(definition.text):
                if definition.explicit or not definition.text[end:].strip(_AFTER_ADDRESS):
                    found.setdefault(definition.label, source)
        return found

    def _addresses(self, text: str) -> Iterator[tuple[int, int, Source]]:
        for match in _ADDRESS.finditer(text):
            for written in (match[0], _NOT_ASCII.split(match[0], maxsplit=1)[0]):
                # Chinese text follows without a space
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
    """The URL in normal form: without scheme, default port, fragment, trailing slash and tracking parameters."""
    plain, _, query = url.partition("#")[0].replace("&amp;", "&").partition("?")
    scheme, separator, rest = plain.partition("://")
    if not separator:
        return unquote(url.partition("#")[0].removesuffix("/"))
    host, _, path = rest.partition("/")
    kept = "&".join(part for part in query.split("&") if part and not _TRACKING.match(part))
    place = f"{_PORT.sub('', host.lower())}/{path.rstrip('/')}"
    web = "" if scheme.lower() in ("http", "https") else f"{scheme}://"
    return unquote(f"{web}{place}?{kept}" if kept else f"{web}{place}")


def _annotation(source: Source, start: int, end: int) -> Annotation:
    match source:
        case UrlCitation():
            return items.UrlCitation(source.url, source.title, start, end)
        case FileCitation():
            return items.FileCitation(source.file_id, source.filename, start)
        case ContainerFile():
            return items.ContainerFileCitation(source.container_id, source.file_id, source.filename, start, end)
