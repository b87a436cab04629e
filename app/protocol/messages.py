"""The model's context in neutral form, which providers encode in their wire formats.

Items are what clients see; messages are what a chat model reads. `engine/conversation/transcript.py` converts the
former to the latter.
"""

from __future__ import annotations

from typing import final

import msgspec


class TextPart(msgspec.Struct, frozen=True, tag="text", gc=False):
    """Text inside a user message."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image", gc=False):
    """An image by http(s)

    URL or `data:` URI; or by `file_id` with an empty URL, until the engine has loaded the image.
    """

    url: str
    detail: str = "auto"
    file_id: str | None = None


class FilePart(msgspec.Struct, frozen=True, tag="file", gc=False):
    """A document by URL, by content as a `data:` URI or base64, or by id.

    Providers see only `data:` URIs with a name.
    """

    filename: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    file_id: str | None = None


Part = TextPart | ImagePart | FilePart


@final
class User(msgspec.Struct, frozen=True, tag="user"):
    """A message of the user."""

    content: str | tuple[Part, ...]


class Call(msgspec.Struct, frozen=True, gc=False):
    """A function call by the model, with the upstream's name for the function."""

    call_id: str
    name: str
    arguments: str


@final
class Assistant(msgspec.Struct, frozen=True, tag="assistant"):
    """The model's text, thinking and calls in one turn. `text` is "" if there are only calls."""

    text: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()


@final
class ToolResult(msgspec.Struct, frozen=True, tag="tool", gc=False):
    """The result of one call; always a string, since Qwen's templates accept nothing else."""

    call_id: str
    content: str


Message = User | Assistant | ToolResult


class FunctionTool(msgspec.Struct, frozen=True):
    """A function as the upstream sees it; `name` is already safe for every upstream."""

    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b'{"type":"object","properties":{}}')
    strict: bool | None = None
