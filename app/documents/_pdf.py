"""PDF to text with PDFium: the pages, values of form fields, comments, and a line for each page without text."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from app.documents.base import Reading, UnreadableDocument

_XFA = 2
"""A form whose pages are rendered dynamically (XFA)."""
_PICTURE_POINTS = 72
"""Smaller ones are rules, bullets and logos."""
_MOST_OBJECTS = 20_000
_UNREADABLE = 0.3
_PAGES_NAMED = 20
_EMPTY = "empty"
_Annotation = Any


def read(content: bytes) -> Reading:
    """The text of all pages, each under a line `[Page 3]` if there are several."""
    import pypdfium2  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - heavy, and has no types

    pdfium: Any = pypdfium2
    try:
        document = pdfium.PdfDocument(content)
        document.init_forms()
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise UnreadableDocument("The PDF is protected by a password.") from error
        raise UnreadableDocument("The PDF is damaged.") from error
    return _Reader(document, pdfium.raw).read()


class _Reader:
    def __init__(self, document: Any, raw: Any) -> None:
        self._document = document
        self._raw = raw
        self._without: dict[str, list[int]] = {}
        self._pictures = 0

    def read(self) -> Reading:
        """All pages."""
        pages = [self._page(number) for number in range(1, len(self._document) + 1)]
        if not any(text for text, _ in pages):
            raise UnreadableDocument(
                "The PDF has no text: its pages seem to be scanned. Send them as images, or recognise the text first."
            )
        unread = (*self._pages_without(), *self._elsewhere())
        if len(pages) == 1:
            return Reading(pages[0][0], unread)
        return Reading(
            "\n\n".join(
                f"[Page {n}]\n{text}" if text else f"[Page {n}] ({lack})" for n, (text, lack) in enumerate(pages, 1)
            ),
            unread,
        )

    def _page(self, number: int) -> tuple[str, str]:
        """Its text, and if there is none, what it has instead."""
        page = self._document[number - 1]
        try:
            printed, pictures, objects = (
                self._printed(page),
                self._count_pictures(page),
                self._raw.FPDFPage_CountObjects(page.raw),
            )
            added = list(self._annotations(page))
        finally:
            page.close()
        lack = ""
        if not printed and pictures:
            lack = "an image; no text"
        elif not printed:
            lack = "drawings; no text" if objects else _EMPTY
        elif _garbled(printed):
            lack = "its characters cannot be read"
        else:
            self._pictures += pictures
        if lack and lack != _EMPTY:
            self._without.setdefault(lack, []).append(number)
        return "\n".join(filter(None, [printed, *added])), lack

    def _printed(self, page: Any) -> str:
        text_page = page.get_textpage()
        try:
            text: str = text_page.get_text_range(errors="replace")
        finally:
            text_page.close()
        # PDFium marks the hyphen of a word that continues on the next line as U+0002 (or U+FFFE).
        for mark in ("\ufffe\r\n", "\x02\r\n", "\ufffe", "\x02"):
            text = text.replace(mark, "")
        return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").replace("\0", "").split("\n")).strip()

    def _count_pictures(self, page: Any) -> int:
        raw = self._raw
        count = 0
        for index in range(min(raw.FPDFPage_CountObjects(page.raw), _MOST_OBJECTS)):
            shape = raw.FPDFPage_GetObject(page.raw, index)
            if raw.FPDFPageObj_GetType(shape) == raw.FPDF_PAGEOBJ_IMAGE:
                count += _is_large(raw, shape)
        return count

    def _annotations(self, page: Any) -> Iterator[str]:
        """The values of the page's fields, and its comments."""
        raw = self._raw
        for index in range(raw.FPDFPage_GetAnnotCount(page.raw)):
            note = raw.FPDFPage_GetAnnot(page.raw, index)
            if not note:
                continue
            try:
                kind = raw.FPDFAnnot_GetSubtype(note)
                if kind == raw.FPDF_ANNOT_WIDGET:
                    yield self._field(note)
                elif kind not in (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP) and (
                    comment := _string(raw.FPDFAnnot_GetStringValue, note, b"Contents")
                ):
                    yield f"[Comment: {comment}]"
            finally:
                raw.FPDFPage_CloseAnnot(note)

    def _field(self, note: _Annotation) -> str:
        raw, form = self._raw, self._document.formenv
        if form is None:
            return ""
        kind = raw.FPDFAnnot_GetFormFieldType(form.raw, note)
        name = _string(raw.FPDFAnnot_GetFormFieldAlternateName, form.raw, note) or _string(
            raw.FPDFAnnot_GetFormFieldName, form.raw, note
        )
        if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
            if not raw.FPDFAnnot_IsChecked(form.raw, note):
                return ""
            return f"{name}: {_string(raw.FPDFAnnot_GetFormFieldExportValue, form.raw, note) or 'checked'}"
        value = _string(raw.FPDFAnnot_GetFormFieldValue, form.raw, note)
        return f"{name}: {value}" if value else ""

    def _pages_without(self) -> Iterator[str]:
        for lack, numbers in self._without.items():
            named = ", ".join(map(str, numbers[:_PAGES_NAMED])) + (
                f" and {len(numbers) - _PAGES_NAMED} more" if len(numbers) > _PAGES_NAMED else ""
            )
            yield f"{'page' if len(numbers) == 1 else 'pages'} {named} ({lack})"

    def _elsewhere(self) -> Iterator[str]:
        if self._pictures:
            yield "1 picture" if self._pictures == 1 else f"{self._pictures} pictures"
        raw = self._raw
        if attached := raw.FPDFDoc_GetAttachmentCount(self._document.raw):
            yield "1 attached file" if attached == 1 else f"{attached} attached files"
        if raw.FPDF_GetFormType(self._document.raw) == _XFA:
            yield "its form (XFA), which only Adobe's programs show"


def _is_large(raw: Any, shape: Any) -> bool:
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    raw.FPDFPageObj_GetBounds(shape, left, bottom, right, top)
    return right.value - left.value >= _PICTURE_POINTS and top.value - bottom.value >= _PICTURE_POINTS


def _string(get: Any, *about: Any) -> str:
    """The UTF-16 string that one of PDFium's functions writes to a buffer."""
    length = get(*about, None, 0)
    buffer = ctypes.create_string_buffer(length)
    get(*about, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), length)
    return " ".join(buffer.raw[:length].decode("utf-16-le", errors="replace").rstrip("\0").split())


def _garbled(text: str) -> bool:
    odd = sum(1 for character in text if character == "\ufffd" or "\ue000" <= character <= "\uf8ff")
    return odd > _UNREADABLE * len(text)
