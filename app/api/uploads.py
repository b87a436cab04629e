"""Streamed forms with a file: the file is never held in memory, nor on a disk that is not meant for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from email.message import Message

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api import characters
from app.protocol.wire.errors import InvalidRequest

_FIELDS = 32
_FIELD_BYTES = 16 * 1024


class UploadForm:
    """A `multipart/form-data` body with one file: read `file`, then call `finish`; after that, all fields are known."""

    def __init__(self, content_type: str | None, body: AsyncIterator[bytes]) -> None:
        """Raises InvalidRequest for a body that is not a form."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequest(
                "Unsupported content type: send the file as 'multipart/form-data'.", code="unsupported_content_type"
            )
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        """None until the file begins."""
        self._body = body
        self._part = _Part()
        self._pieces: list[bytes] = []
        self._file_ended = False
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    async def file(self) -> AsyncGenerator[bytes]:
        """The file's content. Raises InvalidRequest if it is missing, or if the form is malformed or incomplete."""
        while not self._file_ended:
            if not await self._advance():
                raise InvalidRequest(
                    "Missing required parameter: 'file'.", code="missing_required_parameter", param="file"
                )
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                yield piece

    async def finish(self) -> None:
        """Read the rest of the form. Raises InvalidRequest."""
        while await self._advance():
            pass

    async def _advance(self) -> bool:
        """Continue reading; False at the end of a complete form."""
        try:
            chunk = await anext(self._body, None)
            if chunk is not None:
                self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest("The form data is malformed.", code="malformed_form") from error
        if chunk is None and not self._ended:
            raise InvalidRequest("The request body was cut off.", code="incomplete_body")
        return chunk is not None

    def _on_part_begin(self) -> None:
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _on_header_end(self) -> None:
        part = self._part
        if bytes(part.header).lower() == b"content-disposition":
            part.disposition = bytes(part.value)
        part.header, part.value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(part.disposition)
        part.name = characters.form_text(options.get(b"name", b""), "form")
        if b"filename" not in options:
            if part.name in self.fields:
                raise InvalidRequest(
                    f"Duplicate parameter: '{part.name[:64]}'.", code="malformed_form", param=part.name[:64]
                )
            if len(self.fields) >= _FIELDS:
                raise InvalidRequest(f"The form has more than {_FIELDS} fields.", code="malformed_form")
            return
        if self.filename is not None or part.name != "file":
            raise InvalidRequest(
                f"Unknown parameter: '{part.name[:64]}'; send one file, named 'file'.",
                code="unknown_parameter",
                param="file",
            )
        part.is_file = True
        self.filename = characters.form_text(options[b"filename"], "file")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self._pieces.append(data[start:end])
            return
        self._part.data += data[start:end]
        if len(self._part.data) > _FIELD_BYTES:
            name = self._part.name[:64]
            raise InvalidRequest(f"Invalid '{name}': it is too long.", code="invalid_value", param=name)

    def _on_part_end(self) -> None:
        if self._part.is_file:
            self._file_ended = True
        else:
            self.fields[self._part.name] = characters.form_text(bytes(self._part.data), self._part.name)

    def _on_end(self) -> None:
        self._ended = True


class _Part:
    """The part being read."""

    __slots__ = ("data", "disposition", "header", "is_file", "name", "value")

    def __init__(self) -> None:
        self.header = bytearray()
        self.value = bytearray()
        self.disposition = b""
        self.name = ""
        self.data = bytearray()
        self.is_file = False


def attachment(filename: str) -> str:
    """The `Content-Disposition` of a download (RFC 6266): for any name, encoded for a header."""
    message = Message()
    message.add_header("Content-Disposition", "attachment", filename=("utf-8", "", filename))
    return message["Content-Disposition"]
