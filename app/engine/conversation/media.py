"""Files and images of a conversation, converted to what an upstream accepts: documents become text, uploads and links
are loaded.

Only the model's input is changed. Stored and listed items stay as the client sent them, and are resolved again in later
turns; if something no longer exists then, the model gets a note instead of the client an error, since the client cannot
do anything about it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from app.documents import reading
from app.documents.base import UnreadableDocument
from app.engine.conversation.items import Item
from app.engine.conversation.loading import IMAGE_BYTES, Loaded, Loader, Unusable, clause
from app.engine.conversation.untrusted import defused
from app.fairness import Busy
from app.protocol.messages import FilePart, ImagePart, Message, Part, TextPart, User
from app.protocol.wire.errors import ApiError, InvalidRequest, RateLimited
from app.protocol.wire.requests import Part as ItemPart
from app.providers.base import Capabilities
from app.settings import Limits
from app.tools.ports.fetcher import Fetcher
from app.tools.ports.files import Files

_PARTS = 100
_LONGEST_NAME = 120
"""Characters of a file's name that an error shows."""
_AT_ONCE = 4
_CACHE_CHARACTERS = 4_000_000
_IMAGE_KINDS = "PNG, JPEG, WebP, GIF and BMP"
_PDF = b"%PDF-"


_TOO_MANY = Unusable(f"the conversation has more than {_PARTS} files and images")


class _NotTaken(Unusable):
    """This model does not accept such a part here; others may."""

    code = "unsupported_value"


class _Asked(msgspec.Struct, frozen=True):
    """The context in which parts are resolved."""

    project_id: str
    can: Capabilities
    model: str
    items: Sequence[Item]


class _Room:
    """The remaining room in one request to an upstream."""

    def __init__(self, characters: int) -> None:
        self._most = self._characters = characters

    def take(self, characters: int) -> None:
        """Take room. Raises Unusable if there is not enough."""
        if characters > self._characters:
            raise Unusable(
                f"the files of the conversation are too large for one request: at most {self._most // 2**20} MiB in "
                f"total"
            )
        self._characters -= characters


class _Claim(msgspec.Struct, frozen=True):
    """One part's claim on the room. Parts are read in parallel; which of them fit is decided in their order."""

    room: _Room
    before: Sequence[asyncio.Event]

    async def take(self, characters: int) -> None:
        """Wait until all earlier ones have taken theirs, then take room for `characters`."""
        for earlier in self.before:
            await earlier.wait()
        self.room.take(characters)


class Media:
    """Resolves the parts of messages."""

    def __init__(self, fetcher: Fetcher, files: Files | None, limits: Limits) -> None:
        """`files` None: uploads are disabled."""
        self._loader = Loader(fetcher, files, limits.fetch_bytes)
        self._most = limits.body_bytes
        self._texts: OrderedDict[bytes, str] = OrderedDict()
        self._characters = 0

    async def resolve(
        self, project_id: str, messages: Sequence[Message], can: Capabilities, *, model: str, items: Sequence[Item] = ()
    ) -> Sequence[Message]:
        """The messages with every part in a form that the upstream takes.

        `items` are those of the request: if one of their parts cannot be used, InvalidRequest names its place
        (`input[0].content[1]`); a part of an earlier turn is replaced by a note to the model. `model` is the client's
        name for it.
        """
        work = [part for message in messages for part in _parts(message) if _is_open(part, can)]
        if not work:
            return messages
        beyond, work = work[:-_PARTS], work[-_PARTS:]
        if beyond and (place := _place(items, beyond[-1])) is not None:
            raise _refused(place, _TOO_MANY)
        settled: list[Part | ApiError] = [_left_out(part, _TOO_MANY) for part in beyond]
        settled += await self._settle(_Asked(project_id, can, model, items), work)
        remaining = iter(settled)

        def replaced(part: Part) -> Part:
            result = next(remaining) if _is_open(part, can) else part
            if isinstance(result, ApiError):
                raise result
            return result

        return [User(tuple(map(replaced, parts))) if (parts := _parts(message)) else message for message in messages]

    async def _settle(self, asked: _Asked, work: Sequence[Part]) -> list[Part | ApiError]:
        """Each part as the upstream takes it, or its error. The newest take room first: the oldest are left out."""
        room, at_once = _Room(self._most), asyncio.Semaphore(_AT_ONCE)
        done = [asyncio.Event() for _ in work]

        async def settle(number: int, part: Part) -> Part | ApiError:
            async with at_once:
                try:
                    return await self._settled(asked, part, _Claim(room, done[:number]))
                finally:
                    done[number].set()

        async with asyncio.TaskGroup() as tasks:
            results = [tasks.create_task(settle(number, part)) for number, part in enumerate(reversed(work))]
        return [result.result() for result in reversed(results)]

    async def images(self, project_id: str, images: Sequence[ImagePart]) -> list[ImagePart]:
        """With uploads loaded, for tools, which load links themselves.

        Missing ones stay as they are: images are referred to by number.
        """
        resolved = await self.resolve(project_id, [User((image,)) for image in images], Capabilities(), model="")
        found = [part for message in resolved for part in _parts(message)]
        return [new if isinstance(new, ImagePart) else old for old, new in zip(images, found, strict=True)]

    async def _settled(self, asked: _Asked, part: Part, claim: _Claim) -> Part | ApiError:
        """The part as the upstream accepts it, or the error for the client, as a value: the first error in order is
        reported.
        """
        try:
            return await self._resolved(asked, part, claim)
        except Unusable as error:
            place = _place(asked.items, part)
            return _left_out(part, error) if place is None else _refused(place, error)
        except Busy as busy:
            place = _place(asked.items, part)
            message = f"{_described(part)} of the request could not be read now. {busy}"
            return RateLimited(message, code="documents_busy", param=place, retry_after=busy.retry_after)

    async def _resolved(self, asked: _Asked, part: Part, claim: _Claim) -> Part:
        match part:
            case ImagePart():
                if not asked.can.images:
                    raise _NotTaken(f"the model '{asked.model}' does not take images here")
                return await _image(await self._loader.load(asked.project_id, part), part.detail, claim)
            case FilePart():
                loaded = await self._loader.load(asked.project_id, part)
                return await self._document(asked, loaded, claim)
            case TextPart():
                return part

    async def _document(self, asked: _Asked, loaded: Loaded, claim: _Claim) -> Part:
        if _image_type(loaded.content) is not None:
            if not asked.can.images:
                raise _NotTaken(f"it is an image, and the model '{asked.model}' does not take images here")
            return await _image(loaded, "auto", claim)
        if asked.can.files and loaded.content.startswith(_PDF) and len(loaded.content) <= IMAGE_BYTES:
            data = await asyncio.to_thread(_data_uri, "application/pdf", loaded.content)
            await claim.take(len(data))
            return FilePart(loaded.filename, file_data=data)
        text = _quoted(loaded.filename, await self._text(asked.project_id, loaded))
        await claim.take(len(text))
        return TextPart(text)

    async def _text(self, project: str, loaded: Loaded) -> str:
        """The document's text; recent texts are cached, since every turn of a conversation needs them."""
        told = f"\0{loaded.filename}\0{loaded.content_type}\0{loaded.charset}\0{loaded.url}"
        key = await asyncio.to_thread(lambda: hashlib.sha256(loaded.content + told.encode()).digest())
        if key in self._texts:
            self._texts.move_to_end(key)
            return self._texts[key]
        try:
            text = await _read(project, loaded)
        except UnreadableDocument as error:
            name = " ".join(loaded.filename.split())[:_LONGEST_NAME]
            raise Unusable(f"{clause(str(error))} (file '{name}')") from error
        self._keep(key, text)
        return text

    def _keep(self, key: bytes, text: str) -> None:
        if key in self._texts or len(text) > _CACHE_CHARACTERS:
            return
        self._texts[key] = text
        self._characters += len(text)
        while self._characters > _CACHE_CHARACTERS:
            self._characters -= len(self._texts.popitem(last=False)[1])


async def _read(project: str, loaded: Loaded) -> str:
    """Raises UnreadableDocument and Busy."""
    content, kind = loaded.content, loaded.content_type
    if loaded.url is None:
        return await reading.text(content, filename=loaded.filename, content_type=kind, project=project)
    page = await reading.article(
        content, url=loaded.url, content_type=kind or "", charset=loaded.charset, project=project
    )
    return page.text


def _left_out(part: Part, error: Unusable) -> TextPart:
    return TextPart(f"[{_described(part)} was here, which cannot be shown any more: {error}.]")


def _refused(place: str, error: Unusable) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{place}': {error}.", code=error.code, param=place)


def _parts(message: Message) -> Sequence[Part]:
    return message.content if type(message) is User and type(message.content) is tuple else ()


def _is_open(part: Part, can: Capabilities) -> bool:
    """Whether it has to be resolved."""
    match part:
        case TextPart():
            return False
        case ImagePart(url, file_id=file_id):
            return not can.images or file_id is not None or (not can.image_urls and not url.startswith("data:"))
        case FilePart(file_data=data):
            return not (can.files and data is not None and data.startswith("data:application/pdf") and part.filename)


async def _image(loaded: Loaded, detail: str, claim: _Claim) -> ImagePart:
    kind = _image_type(loaded.content)
    if kind is None:
        raise Unusable(f"it is not an image of a supported type: {_IMAGE_KINDS}")
    if len(loaded.content) > IMAGE_BYTES:
        raise Unusable(f"the image is larger than {IMAGE_BYTES // 2**20} MiB")
    url = await asyncio.to_thread(_data_uri, kind, loaded.content)
    await claim.take(len(url))
    return ImagePart(url, detail)


def _image_type(content: bytes) -> str | None:
    """Its MIME type by its first bytes; None: not an image, or of a type that models do not accept."""
    begins = content[:16]
    match begins:
        case _ if begins.startswith(b"\x89PNG\r\n\x1a\n"):
            return "image/png"
        case _ if begins.startswith(b"\xff\xd8\xff"):
            return "image/jpeg"
        case _ if begins.startswith((b"GIF87a", b"GIF89a")):
            return "image/gif"
        case _ if begins.startswith(b"RIFF") and begins[8:12] == b"WEBP":
            return "image/webp"
        case _ if begins.startswith(b"BM") and begins[6:10] == bytes(4):  # a text may begin with these letters
            return "image/bmp"
        case _:
            return None


def _data_uri(content_type: str, content: bytes) -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def _place(items: Sequence[Item], part: Part) -> str | None:
    """The part's place in the request, such as `input[0].content[1].file_id`; None: it is from an earlier turn."""
    field, value = _source(part)
    for item in items:
        for name, sent in (("content", item.fields.content), ("output", item.fields.output)):
            for position, candidate in enumerate(sent if isinstance(sent, tuple) else ()):
                if value is not None and _sent(candidate, field) == value:
                    return f"{item.place}.{name}[{position}].{field}"
    return None


def _source(part: Part) -> tuple[str, str | None]:
    match part:
        case FilePart(file_data=str(data)):
            return "file_data", data
        case FilePart(file_id=str(file_id)) | ImagePart(file_id=str(file_id)):
            return "file_id", file_id
        case FilePart(file_url=url):
            return "file_url", url
        case ImagePart(url=url):
            return "image_url", url
        case TextPart():
            return "text", None


def _sent(part: ItemPart, field: str) -> object:
    return (
        part.image_url.get("url") if field == "image_url" and isinstance(part.image_url, dict) else getattr(part, field)
    )


def _quoted(filename: str, text: str) -> str:
    """A document as the model reads it: it cannot end its own quotation, though it may still pose as the user."""
    name = " ".join(defused(filename).replace('"', "'").split())
    return f'<attached_file name="{name}">\n{defused(text)}\n</attached_file>'


def _described(part: Part) -> str:
    if isinstance(part, ImagePart):
        return "An image"
    filename = part.filename if isinstance(part, FilePart) else None
    return f"The file '{defused(filename)}'" if filename else "A file"
