"""The content of items as parts that a chat model reads, and errors for content that cannot be read. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.protocol.messages import FilePart, ImagePart, Part, TextPart
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import InputItem
from app.protocol.wire.requests import Part as ItemPart

Content = str | tuple[ItemPart, ...] | None
"""The content field of an item."""


def at(place: str, field: str) -> str:
    """The place of a field of the item at `place`."""
    return f"{place}.{field}" if place else field


def missing(param: str, hint: str = "") -> InvalidRequest:
    """The error for a request that lacks a parameter. `hint` ends the sentence."""
    return InvalidRequest(
        f"Missing required parameter: '{param}'{hint}.", code="missing_required_parameter", param=param
    )


def unread(kind: str | None, place: str) -> InvalidRequest:
    """The error for an item whose type is not served."""
    message = f"Input items of type '{kind}' are not supported by this gateway."
    return InvalidRequest(message, code="unsupported_value", param=at(place, "type"))


def plain(content: Content, place: str) -> str:
    """The text of a message whose role allows only text. Raises InvalidRequest."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    texts: list[str] = []
    for part in content:
        match part.type:
            case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
                texts.append(part.text or "")
            case "refusal":
                texts.append(part.refusal or "")
            case _:
                message = f"Invalid content type '{part.type}': this role takes text only."
                raise InvalidRequest(message, code="invalid_value", param=at(place, "content"))
    return "".join(texts)


def of_user(content: Content, place: str) -> str | tuple[Part, ...]:
    """The content of a user's message; a single text is a string. `place` is the content's. Raises InvalidRequest."""
    if content is None:
        raise missing(place)
    if isinstance(content, str):
        return content
    parts = tuple(_part(part, f"{place}[{i}]") for i, part in enumerate(content))
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    return parts


def of_result(item: InputItem, place: str) -> tuple[str, Sequence[Part]]:
    """The text of a call's result, and its parts that are not text. `place` is the item's. Raises InvalidRequest."""
    output = item.output
    if isinstance(output, str):
        return output, ()
    place = at(place, "output")
    if output is None:
        raise missing(place)
    parts = [_part(part, f"{place}[{i}]") for i, part in enumerate(output)]
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    others = [part for part in parts if not isinstance(part, TextPart)]
    if others and not text:
        text = "(see the attached content)"
    return text, others


def _part(part: ItemPart, place: str) -> Part:
    match part.type:
        case "input_text" | "text" | "output_text":
            if part.text is None:
                raise missing(f"{place}.text")
            return TextPart(part.text)
        case "input_image" | "image_url":
            return _image(part, place)
        case "input_file":
            return _file(part, place)
        case other:
            raise InvalidRequest(
                f"Content parts of type '{other}' are not supported.", code="unsupported_value", param=f"{place}.type"
            )


def _image(part: ItemPart, place: str) -> ImagePart:
    url = part.image_url.get("url") if isinstance(part.image_url, dict) else part.image_url
    if part.file_id:
        return ImagePart("", part.detail or "auto", part.file_id)
    if not isinstance(url, str) or not url.startswith(("http://", "https://", "data:image/")):
        message = "Expected 'image_url' to be an http(s) URL or a base64 data URI of an image."
        raise InvalidRequest(
            f"Invalid '{place}.image_url'. {message}", code="invalid_image_url", param=f"{place}.image_url"
        )
    return ImagePart(url, part.detail or "auto")


def _file(part: ItemPart, place: str) -> FilePart:
    if not (part.file_url or part.file_data or part.file_id):
        raise InvalidRequest(
            f"'{place}' needs 'file_id', 'file_data' or 'file_url'.",
            code="missing_required_parameter",
            param=f"{place}.file_data",
        )
    return FilePart(part.filename, part.file_url, part.file_data, part.file_id)
