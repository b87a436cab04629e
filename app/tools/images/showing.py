"""How both image searches show a call and its results: the item's JSON texts in the vendor's format, and the list for
the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.tools.images.base import FoundImage
from app.tools.ports.tool import Cite, UrlCitation

HOW_TO_SHOW = "To show an image to the user, write it into the answer as Markdown: ![title](url)"


class Shown(msgspec.Struct, frozen=True, omit_defaults=True):
    """A result in the item's `output`: the vendor's three fields, then ours."""

    title: str
    url: str
    index: int
    """From 1."""
    source: str | None = None
    """URL of the page."""
    width: int | None = None
    height: int | None = None
    thumbnail: str | None = None
    similarity: float | None = None
    """To the sample image, 0 to 1."""


def shown(images: Sequence[tuple[FoundImage, float | None]]) -> list[Shown]:
    """Images, each with its similarity, numbered."""
    return [
        Shown(image.title, image.url, index, image.page, image.width, image.height, image.thumbnail, similarity)
        for index, (image, similarity) in enumerate(images, 1)
    ]


def as_output(results: Sequence[Shown]) -> str:
    """The item's `output`."""
    return msgspec.json.encode(results).decode()


def as_list(results: Sequence[Shown], cite: Cite) -> str:
    """What the model reads; pages become citable as `[n]`."""
    return "\n".join([*(_entry(result, cite) for result in results), "", HOW_TO_SHOW])


def _entry(result: Shown, cite: Cite) -> str:
    lines = [f"{result.index}. {result.title}", f"   url: {result.url}"]
    if result.source is not None:
        lines.append(f"   page: {result.source} [{cite(UrlCitation(result.source, result.title))}]")
    if result.width and result.height:
        lines.append(f"   size: {result.width} x {result.height} pixels")
    if result.similarity is not None:
        lines.append(f"   similarity: {result.similarity:.2f} of 1")
    return "\n".join(lines)


def as_arguments(arguments: str) -> str:
    """The item's `arguments`: the model's, or `{}` if they are not a JSON object."""
    try:
        return arguments if isinstance(msgspec.json.decode(arguments), dict) else "{}"
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "{}"
