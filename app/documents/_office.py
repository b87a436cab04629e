"""Office Open XML: which kind a package is, and presentations and workbooks to Markdown."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any
from zipfile import BadZipFile, ZipFile

from app.documents import _markdown, _word
from app.documents.base import SUPPORTED, UnreadableDocument

_MOST_UNPACKED = 256 * 1024 * 1024
_MOST_PARTS = 20_000
_MOST_ROWS = 20_000
"""Of a sheet."""
_MOST_COLUMNS = 256


def read(content: bytes) -> str:
    """The document in the package. Raises UnreadableDocument."""
    return _reader(content)(content)


def _reader(content: bytes) -> Callable[[bytes], str]:
    try:
        with ZipFile(BytesIO(content)) as package:
            parts = package.infolist()
            # The module reads no more of a part than this table of contents says.
            if len(parts) > _MOST_PARTS or sum(part.file_size for part in parts) > _MOST_UNPACKED:
                raise UnreadableDocument(f"The document is too large when unpacked: at most {_MOST_UNPACKED // 2**20} MiB are read.")
            names = {part.filename for part in parts}
    except BadZipFile as error:
        raise UnreadableDocument("The document is damaged.") from error
    for folder, reader in (("word/", _word.read), ("ppt/", _presentation), ("xl/", _workbook)):
        if "[Content_Types].xml" in names and any(name.startswith(folder) for name in names):
            return reader
    raise UnreadableDocument(f"The file is an archive, not a document. Supported are {SUPPORTED}.")


def _presentation(content: bytes) -> str:
    from pptx import Presentation  # noqa: PLC0415 - heavy

    slides: list[str] = []
    for number, slide in enumerate(Presentation(BytesIO(content)).slides, 1):
        title = slide.shapes.title
        heading = " ".join(title.text_frame.text.split()) if title is not None else ""
        blocks = [f"## Slide {number}{': ' if heading else ''}{heading}"]
        blocks += [block for shape in slide.shapes if title is None or shape.shape_id != title.shape_id for block in _shape(shape)]
        notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        if notes is not None and notes.text.strip():
            blocks.append(f"Notes: {notes.text.strip()}")
        slides.append("\n\n".join(blocks))
    return "\n\n".join(slides)


def _shape(shape: Any) -> Iterator[str]:
    if hasattr(shape, "shapes"):  # a group
        for inner in shape.shapes:
            yield from _shape(inner)
    elif shape.has_text_frame:
        lines = [(paragraph.level, " ".join(paragraph.text.split())) for paragraph in shape.text_frame.paragraphs]
        said = [f"{'  ' * level}- {text}" if shape.is_placeholder else text for level, text in lines if text]
        if said:
            yield "\n".join(said)
    elif getattr(shape, "has_table", False):
        yield _markdown.table([[cell.text for cell in row.cells] for row in shape.table.rows])


def _workbook(content: bytes) -> str:
    import openpyxl  # noqa: PLC0415 # pyright: ignore[reportMissingModuleSource] - heavy

    workbook: Any = openpyxl.load_workbook(BytesIO(content), read_only=True, data_only=True)
    sheets: list[str] = []
    for sheet in workbook.worksheets:
        rows, more = _rows(sheet)
        blocks = [f"## {sheet.title}", _markdown.table(rows), f"(Only the first {_MOST_ROWS} rows are shown.)" if more else ""]
        sheets.append("\n\n".join(block for block in blocks if block))
    return "\n\n".join(sheets)


def _rows(sheet: Any) -> tuple[list[list[str]], bool]:
    """The rows that say something, and whether there are more."""
    sheet.reset_dimensions()  # what the file says about them is often wrong
    rows: list[list[str]] = []
    for cells in sheet.iter_rows(values_only=True):
        row = [_cell(value) for value in cells[:_MOST_COLUMNS]]
        while row and not row[-1]:
            row.pop()
        if not row:
            continue
        if len(rows) == _MOST_ROWS:
            return rows, True
        rows.append(row)
    return rows, False


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "TRUE" if value else "FALSE"
        case float():
            return f"{value:.15g}"  # as a spreadsheet shows it
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime():
            return value.isoformat(sep=" ")
        case _:
            return str(value)
