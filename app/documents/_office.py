"""Office documents, OpenDocument, RTF, e-books, mail and uploaded web pages to Markdown, by xberg."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from app.documents import _markdown
from app.documents.base import Reading, UnreadableDocument, counted

_MOST_CELLS = 1_000_000
_DEEPEST = 200
"""Nesting depth of HTML elements: with more the engine's stack overflows."""
_MOST_BYTES = 64 * 1024 * 1024
_ANY_RATIO = 2000
"""More than deflate can do: a sheet of the same value again and again is no bomb, and what counts is the size."""
_CODE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_ESCAPED = re.compile(r"\\([!~<>+.`\\#*_\[\](){}-])")
_PICTURE = re.compile(r"\\?!\[([^\]\n]*)\]\([^()\n]*\)")
_BOOKMARK = re.compile(r"(?<!!)\[([^\[\]\n]*)\]\(#[^()\n]*\)")
_COMMENT_MARK = re.compile(r"(?<=\S)\[cmt:(\w+)\]")
_NOTHING = Reading("")
_MAIL = ("eml", "msg", "mhtml")
_ATTACHMENTS = "\n\nAttachments:\n"
_SHEETS = ("xlsx", "xlsb", "xls", "ods")
_WITH_HEADERS = ("docx", "doc", "odt", "rtf", "odp")
"""Formats whose headers and footers are only in the document tree, which is expensive."""
_HEADERS_AND_FOOTERS = ("header", "footer")
_NO_PICTURE_NAME = re.compile(r"(?:image|picture|图片|图像)?[ _-]?\d*(?:\.\w{3,4})?$", re.IGNORECASE)
_MASTER_PAGE = "odp-master-page"


def read(content: bytes, kind: str, beside: Reading = _NOTHING) -> Reading:
    """The text of the document, and `beside`; `kind` is its usual file name extension. Raises UnreadableDocument."""
    document = _extracted(content, kind)
    outside = list(_headers_and_footers(document))
    if kind in _SHEETS:
        text, pictures = "\n\n".join(_sheets(document)), 0
    else:
        text, pictures = _tidy("\n\n".join(_slides(document)) if kind == "pptx" else _content(document))
    around = [f"{layer.capitalize()}: {line}" for layer, line in outside if line not in text]
    whole = "\n\n".join(part for part in [*around, text, beside.text] if part.strip())
    if not whole.strip():
        raise UnreadableDocument("The document has no text.")
    unread = _unread(document, kind, text, pictures)
    return Reading(whole, (*unread, *beside.unread, *(warning.message for warning in document.processing_warnings)))


def _unread(document: Any, kind: str, text: str, pictures: int) -> list[str]:
    """What is not in the text."""
    unread = [counted(pictures, "picture")] if pictures else []
    if kind in _MAIL and _ATTACHMENTS in text:
        attached = sum(bool(line.strip()) for line in text.rpartition(_ATTACHMENTS)[2].split("\n"))
        unread.append(counted(attached, "attached file"))
    if deleted := sum(str(revision.kind) == "deletion" for revision in document.revisions or ()):
        unread.append(counted(deleted, "tracked deletion"))
    return unread


def _extracted(content: bytes, kind: str) -> Any:
    try:
        import xberg  # noqa: PLC0415 - heavy
    except ImportError as error:
        raise UnreadableDocument(f"Documents of the format {kind} cannot be read on this platform.") from error
    # Never "uri": it would be fetched.
    given = xberg.ExtractInput(kind="bytes", bytes=content, filename=f"document.{kind}")
    try:
        result: Any = asyncio.run(_extract(xberg, given, _config(xberg, kind)))
    except RuntimeError as error:
        raise _refusal(str(error)) from error
    if not result.results:
        raise _refusal("; ".join(str(error.message) for error in result.errors))
    document = result.results[0]
    if "zip" in document.mime_type.replace("epub+zip", ""):  # it lists the archive's contents
        raise UnreadableDocument("The document is damaged.")
    return document


def _config(xberg: Any, kind: str) -> Any:
    return xberg.ExtractionConfig(
        output_format="markdown",
        escape_markdown=False,
        use_cache=False,
        disable_ocr=True,
        enable_quality_processing=False,
        extraction_timeout_secs=None,  # the worker process has its own limits
        include_document_structure=kind in _WITH_HEADERS,
        pages=xberg.PageConfig(extract_pages=True),
        concurrency=xberg.ConcurrencyConfig(max_threads=1),
        max_archive_depth=0,
        html_options=xberg.ConversionOptions(
            extract_metadata=False,  # it would be put before the text
            compact_tables=True,
            max_depth=_DEEPEST,
            preprocessing=xberg.PreprocessingOptions(enabled=False, remove_navigation=False, remove_forms=False),
        ),
        tree_sitter=xberg.TreeSitterConfig(enabled=False),  # it would download grammars
        content_filter=xberg.ContentFilterConfig(
            include_headers=True, include_footers=True, include_footnotes=True, strip_repeating_text=False
        ),
        security_limits=xberg.SecurityLimits(
            max_archive_size=256 * 2**20,
            max_compression_ratio=_ANY_RATIO,
            max_content_size=_MOST_BYTES,
            max_files_in_archive=10_000,
            max_table_cells=_MOST_CELLS,
        ),
    )


async def _extract(xberg: Any, given: Any, config: Any) -> Any:
    return await xberg.extract(given, config)


def _refusal(said: str) -> UnreadableDocument:
    told = said.lower()
    if "password" in told or "encrypt" in told:
        return UnreadableDocument("The document is protected by a password.")
    if "table" in told and "cell" in told:
        return UnreadableDocument(f"The document's tables are too large: at most {_MOST_CELLS:,} cells are read.")
    if any(word in told for word in ("too large", "exceed", "limit", "zip bomb")):
        return UnreadableDocument(
            f"The document is too large when unpacked: at most {_MOST_BYTES // 2**20} MiB of text are read."
        )
    return UnreadableDocument("The document is damaged.")


def _headers_and_footers(document: Any) -> Iterator[tuple[str, str]]:
    """The headers and footers of its pages, each once."""
    said = set[tuple[str, str]]()
    for node in document.document.nodes if document.document else ():
        layer = str(node.content_layer)
        if layer not in _HEADERS_AND_FOOTERS:
            continue
        fields: dict[str, Any] = json.loads(str(node.content))
        cells = fields.get("grid", {}).get("cells", ())
        line = " ".join(str(fields.get("text") or " | ".join(cell["content"] for cell in cells)).split())
        if line and (layer, line) not in said:
            said.add((layer, line))
            yield layer, line


def _content(document: Any) -> str:
    text: str = document.content
    for node in document.document.nodes if document.document else ():
        if node.attributes and node.attributes.get("format") == _MASTER_PAGE:  # "Click to edit the title"
            fields: dict[str, Any] = json.loads(str(node.content))
            at = text.rfind(fields["content"])
            text = text[:at] + text[at + len(fields["content"]) :] if at >= 0 else text
    return text


def _slides(document: Any) -> Iterator[str]:
    for page in document.pages or ():
        yield f"[Slide {page.page_number}]\n{page.content.strip()}".strip()
        if page.speaker_notes and page.speaker_notes.strip():
            yield f"Notes: {page.speaker_notes.strip()}"


def _sheets(document: Any) -> Iterator[str]:
    tables: dict[int, list[list[str]]] = {}
    for table in document.tables:
        tables.setdefault(table.page_number, []).extend(table.cells)
    for page in document.pages or ():
        yield "\n\n".join(
            filter(None, [f"## {page.sheet_name}", _markdown.table(_filled(tables.get(page.page_number, [])))])
        )


def _filled(rows: list[list[str]]) -> list[list[str]]:
    """Without empty rows and columns."""
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    columns = sorted({place for row in rows for place, cell in enumerate(row) if cell.strip()})
    return [[row[place] if place < len(row) else "" for place in columns] for row in rows]


def _tidy(text: str) -> tuple[str, int]:
    """Markdown as a person would write it, and the number of pictures in it."""
    parts: list[str] = []
    end = pictures = 0
    for code in _CODE.finditer(text):
        before, found = _unescaped(text[end : code.start()])
        parts += [before, code[0]]
        end, pictures = code.end(), pictures + found
    rest, found = _unescaped(text[end:])
    return "".join([*parts, rest]).strip(), pictures + found


def _unescaped(text: str) -> tuple[str, int]:
    text, pictures = _PICTURE.subn(_picture, text)
    text = _COMMENT_MARK.sub(r"[^cmt\1]", _BOOKMARK.sub(r"\1", text))
    return _ESCAPED.sub(r"\1", text), pictures


def _picture(found: re.Match[str]) -> str:
    name = found[1].strip()
    return "[Picture]" if _NO_PICTURE_NAME.match(name) else f"[Picture: {name}]"
