"""The model's context in neutral words: what a provider encodes into its own wire format.

Items are what clients see; messages are what a chat model reads. `engine/conversation/transcript.py` turns the first into the second.
"""

from __future__ import annotations

from typing import final

import msgspec


class TextPart(msgspec.Struct, frozen=True, tag="text", gc=False):
    """Text inside a user message."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image", gc=False):
    """An image by http(s) URL or `data:` URI; or by `file_id` with an empty URL, until the engine has put the image in."""

    url: str
    detail: str = "auto"
    file_id: str | None = None


class FilePart(msgspec.Struct, frozen=True, tag="file", gc=False):
    """A document by URL, by its bytes as a `data:` URI or in base64, or by id; providers see only `data:` URIs with a name."""

    filename: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    file_id: str | None = None


Part = TextPart | ImagePart | FilePart


@final
class User(msgspec.Struct, frozen=True, tag="user"):
    """What the user says."""

    content: str | tuple[Part, ...]


class Call(msgspec.Struct, frozen=True, gc=False):
    """A function call the model made, under the name the upstream knows."""

    call_id: str
    name: str
    arguments: str


@final
class Assistant(msgspec.Struct, frozen=True, tag="assistant"):
    """What the model said, thought and called in one turn. `text` is "" when it only called."""

    text: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()


@final
class ToolResult(msgspec.Struct, frozen=True, tag="tool", gc=False):
    """The answer to one call; always a string, since Qwen's templates take nothing else."""

    call_id: str
    content: str


Message = User | Assistant | ToolResult


class FunctionTool(msgspec.Struct, frozen=True):
    """A function as the upstream shall see it; `name` is already safe for every upstream."""

    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b'{"type":"object","properties":{}}')
    strict: bool | None = None
