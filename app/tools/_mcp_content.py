"""A tool's result as text and images (MCP's content blocks). Imports the SDK's types: loaded with the first connection."""

from __future__ import annotations

import base64

import msgspec
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from app.protocol.messages import ImagePart
from app.tools._mcp_answer import Answer

_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_MOST_IMAGES = 4


def answer(result: CallToolResult) -> Answer:
    """The result. Structured content is shown only where there is no text: servers repeat it there."""
    images: list[ImagePart] = []
    texts = [text for block in result.content if (text := _shown(block, images))]
    if not any(isinstance(block, TextContent) for block in result.content) and result.structured_content is not None:
        texts.append(msgspec.json.encode(result.structured_content).decode())
    return Answer("\n".join(texts), tuple(images), failed=result.is_error)


def _shown(block: ContentBlock, images: list[ImagePart]) -> str:
    """The block as text; an image that can be shown joins `images`."""
    match block:
        case TextContent():
            shown = block.text
        case ImageContent():
            shown = _image(block.data, block.mime_type, images)
        case AudioContent():
            shown = f"[audio, {block.mime_type}: not shown]"
        case ResourceLink():
            shown = f"{block.title or block.name}: {block.uri}" + (f"\n{block.description}" if block.description else "")
        case EmbeddedResource():
            shown = _resource(block.resource, images)
    return shown


def _resource(resource: TextResourceContents | BlobResourceContents, images: list[ImagePart]) -> str:
    if isinstance(resource, TextResourceContents):
        return f"{resource.uri}\n{resource.text}"
    return f"{resource.uri}\n{_image(resource.blob, resource.mime_type or 'file', images)}"


def _image(data: str, mime_type: str, images: list[ImagePart]) -> str:
    if mime_type not in _IMAGES or len(images) == _MOST_IMAGES or not _is_base64(data):
        return f"[{mime_type}: not shown]"
    images.append(ImagePart(f"data:{mime_type};base64,{data}"))
    return f"[image {len(images)}]"


def _is_base64(data: str) -> bool:
    try:
        return bool(base64.b64decode(data, validate=True))
    except ValueError:
        return False
