"""A tool's result as text and images.

Read field by field: servers send nulls, and kinds of blocks that are in no specification.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from app.protocol.messages import ImagePart
from app.tools.mcp.answer import Answer

_SIGNATURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
_TEXT_TYPE = re.compile(r"text/|application/(?:json|xml|javascript|yaml|[\w.-]+\+(?:json|xml))", re.IGNORECASE)
_DATA_URI = re.compile(r"\s*data:([^,;]*)[^,]{0,200},", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_MOST_IMAGES = 4
_LONGEST_UNKNOWN = 4000
_LONGEST_WORD = 100

Fields = Mapping[str, Any]


def answer(result: Fields) -> Answer:
    """The result: its blocks, and its structured content unless the text contains the same."""
    if result.get("resultType") == "input_required":
        return Answer("The tool asks for further input in the middle of a call, which is not served here.", failed=True)
    images: list[ImagePart] = []
    blocks = _blocks(result.get("content"))
    texts = [text for block in blocks if (text := _shown(block, images))]
    structured = result.get("structuredContent", result.get("toolResult"))
    if structured is not None and not _repeats(texts, structured):
        texts.append(_json(structured))
    return Answer("\n".join(texts), tuple(images), failed=result.get("isError") in (True, "true"))


def _blocks(content: Any) -> list[Any]:
    if isinstance(content, list):
        return cast("list[Any]", content)
    return [] if content is None else [content]


def _repeats(texts: list[str], structured: Any) -> bool:
    """Whether the text is the structured content: as JSON, or wrapped as `{"result": …}` by the servers' SDKs."""
    fields = _fields(structured)
    bare: Any = fields["result"] if list(fields) == ["result"] else structured
    if bare in (texts, "\n".join(texts)):
        return True
    written = [_decoded(text) for text in texts]
    return any(one in (structured, bare) for one in written) or written == bare


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return text


def _shown(block: Any, images: list[ImagePart]) -> str:
    """The block as text; an image that can be shown is added to `images`."""
    if not isinstance(block, dict):
        return "" if block is None else _bare(block)
    fields = cast("Fields", block)
    show = _KINDS.get(_word(fields, "type"))
    return show(fields, images) if show is not None else _unknown(fields)


def _unknown(block: Fields) -> str:
    """A block of a missing or unknown kind."""
    if isinstance(block.get("text"), str):
        return block["text"]
    text = _json(block)
    return text if len(text) <= _LONGEST_UNKNOWN else f"[{_word(block, 'type') or 'block'}: not shown]"


def _text(block: Fields, _: list[ImagePart]) -> str:
    return "" if block.get("text") is None else _bare(block["text"])


def _picture(block: Fields, images: list[ImagePart]) -> str:
    return _image(block.get("data"), _word(block, "mimeType") or "image", images)


def _audio(block: Fields, _: list[ImagePart]) -> str:
    return f"[audio, {_word(block, 'mimeType') or 'unknown type'}: not shown]"


def _link(block: Fields, _: list[ImagePart]) -> str:
    name = block.get("title") or block.get("name") or "resource"
    about = f"\n{block['description']}" if block.get("description") else ""
    return f"{name}: {block.get('uri') or 'no address'}{about}"


def _embedded(block: Fields, images: list[ImagePart]) -> str:
    resource = _fields(block.get("resource"))
    kind = _word(resource, "mimeType") or "file"
    if resource.get("text") is not None:
        shown = _bare(resource["text"])
    elif _TEXT_TYPE.match(kind):
        shown = (_bytes(resource.get("blob")) or b"").decode(errors="replace") or f"[{kind}: not shown]"
    else:
        shown = _image(resource.get("blob"), kind, images)
    return f"{resource['uri']}\n{shown}" if resource.get("uri") else shown


_KINDS: dict[str, Callable[[Fields, list[ImagePart]], str]] = {
    "text": _text,
    "image": _picture,
    "audio": _audio,
    "resource_link": _link,
    "resource": _embedded,
}


def _image(data: Any, kind: str, images: list[ImagePart]) -> str:
    """Whatever type the server declares: an image is what begins like one, and upstreams refuse a request with anything
    else.
    """
    uri = _DATA_URI.match(data) if isinstance(data, str) else None
    content = _bytes(data) or b""
    shown = next((shown for begins, shown in _SIGNATURES if begins.match(content)), None)
    if shown is None or len(images) == _MOST_IMAGES:
        return f"[{(uri[1] if uri else '')[:_LONGEST_WORD] or kind}: not shown]"
    images.append(ImagePart(f"data:{shown};base64,{base64.b64encode(content).decode()}"))
    return f"[image {len(images)}]"


def _bytes(data: Any) -> bytes | None:
    """Base64, possibly in a `data:` URI, with line breaks, URL-safe or without padding."""
    if not isinstance(data, str):
        return None
    uri = _DATA_URI.match(data)
    plain = _SPACE.sub("", data[uri.end() :] if uri else data).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return None


def _fields(value: Any) -> Fields:
    return cast("Fields", value) if isinstance(value, dict) else {}


def _word(fields: Fields, name: str) -> str:
    value = fields.get(name)
    return value[:_LONGEST_WORD] if isinstance(value, str) else ""


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    """Compact; the standard library writes everything that a parser accepts, including what msgspec would not."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
