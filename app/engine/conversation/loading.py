"""Loads the files and images that a conversation refers to: uploads, links, and content within the request."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from posixpath import basename
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import msgspec

from app.protocol.messages import FilePart, ImagePart
from app.protocol.wire.errors import InvalidRequest, NotFound
from app.tools.ports.fetcher import Fetcher, FetchRefused
from app.tools.ports.files import Files

IMAGE_BYTES = 15 * 1024 * 1024
"""20 MiB in base64, the most that DashScope accepts."""
_FETCH_SECONDS = 30.0


class Unusable(Exception):
    """A part cannot be passed to the model; the message, a clause, gives the reason."""

    code = "invalid_value"


class Loaded(msgspec.Struct, frozen=True):
    """A file's bytes and metadata."""

    content: bytes
    filename: str
    content_type: str | None = None
    charset: str | None = None
    url: str | None = None
    """The URL it was fetched from."""


class Loader:
    """Raises Unusable throughout."""

    def __init__(self, fetcher: Fetcher, files: Files | None, most: int) -> None:
        """`files` None: uploads are disabled. `most`: bytes of a link's content."""
        self._fetcher = fetcher
        self._files = files
        self._most = most

    async def load(self, project_id: str, part: ImagePart | FilePart) -> Loaded:
        """The content of the part."""
        match part:
            case ImagePart(file_id=str(file_id)) | FilePart(file_id=str(file_id), file_data=None):
                return await self._uploaded(project_id, file_id)
            case ImagePart(url=url):
                return await self._fetched(project_id, url, None, min(IMAGE_BYTES, self._most), ("image/*",))
            case FilePart(file_data=str(data), filename=filename):
                content, content_type = await asyncio.to_thread(_decoded, data)
                return Loaded(content, filename or "document", content_type)
            case FilePart(file_url=url, filename=filename):
                return await self._fetched(project_id, url or "", filename, self._most, ())

    async def _uploaded(self, project_id: str, file_id: str) -> Loaded:
        if self._files is None:
            raise Unusable("files are disabled on this gateway; send the content or a URL")
        try:
            found = await self._files.read(project_id, file_id)
        except (NotFound, InvalidRequest) as error:  # it does not exist or is too large
            raise Unusable(clause(error.message)) from error
        return Loaded(found.content, found.filename)

    async def _fetched(
        self, project_id: str, url: str, filename: str | None, limit: int, accept: Sequence[str]
    ) -> Loaded:
        try:
            page = await self._fetcher.on_behalf(project_id).get(
                url, limit=limit, seconds=_FETCH_SECONDS, accept=accept
            )
        except FetchRefused as error:
            raise Unusable(clause(str(error))) from error
        name = filename or unquote(basename(urlsplit(page.url).path)) or page.url
        return Loaded(page.body, name, page.content_type, page.charset, page.url)


def _decoded(data: str) -> tuple[bytes, str | None]:
    """The content of a `data:` URI or of bare base64, and its type."""
    head, comma, body = data.partition(",") if data.startswith("data:") else ("data:;base64", ",", data)
    content_type, *parameters = head.removeprefix("data:").lower().split(";")
    told = ";".join(
        [content_type, *(parameter for parameter in parameters if parameter.strip().startswith("charset="))]
    )
    if not comma:
        raise Unusable("it is not a data URI; expected 'data:<type>;base64,<content>'")
    if "base64" not in parameters:
        return unquote_to_bytes(body), told or None
    try:
        return base64.b64decode("".join(body.split()), validate=True), told or None
    except (binascii.Error, ValueError) as error:
        raise Unusable("it is not in base64; expected 'data:<type>;base64,<content>'") from error


def clause(sentence: str) -> str:
    """A sentence within another one."""
    return sentence.removesuffix(".")
