"""Pictures as untrusted bytes: decoded only in a worker process, with limits on format and pixels.

The functions here are called through `app.offload`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from imagehash import ImageHash
    from PIL import Image

MAX_PIXELS = 50_000_000
"""A picture with more is refused before decoding: a few kilobytes of PNG can be gigabytes of pixels."""
MIN_SIDE = 10
"""Pixels; Qwen's vision models accept nothing smaller."""
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_SHOWN_SIDE = 1024
"""Pixels of the longer side for the vision model: enough to recognise things, at few tokens."""
_COMPARED_SIDE = 256
_SHAPE, _EDGES, _COLOURS = 0.4, 0.3, 0.3
"""Weights of the three hashes: shape finds the same picture, colour separates pictures that only share an outline."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in thousandths of width and height."""
WHOLE: Box = (0, 0, 1000, 1000)


class Unusable(Exception):
    """The picture cannot be used; the message is a clause without internals."""


class _Hashes(msgspec.Struct, frozen=True):
    shape: ImageHash
    edges: ImageHash
    colours: ImageHash


def crop(content: bytes, box: Box) -> bytes:
    """The part of the picture in `box`, upright, as a JPEG of at most 1024 pixels per side. Raises Unusable."""
    from PIL import ImageOps  # noqa: PLC0415 - only worker processes need it

    picture = _open(content)
    try:
        picture = ImageOps.exif_transpose(picture)
        width, height = picture.size
        left, top, right, bottom = box
        edges = (
            round(left * width / 1000),
            round(top * height / 1000),
            round(right * width / 1000),
            round(bottom * height / 1000),
        )
        if min(edges[2] - edges[0], edges[3] - edges[1]) < MIN_SIDE:
            raise Unusable(f"it is smaller than {MIN_SIDE} pixels there; choose a larger area")
        part = _opaque(picture.crop(edges))
        part.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
        out = io.BytesIO()
        part.save(out, "JPEG", quality=90)
    except (OSError, ValueError, SyntaxError) as error:  # raised by PIL for truncated or inconsistent data
        raise Unusable("it is damaged") from error
    return out.getvalue()


def similarities(original: bytes, candidates: Sequence[bytes]) -> list[float | None]:
    """The similarity of each candidate to `original`: 1.0 the same, below 0.5 unrelated; None: not a usable picture.

    Raises Unusable if `original` is not usable.
    """
    sought = _hashes(original)
    found: list[float | None] = []
    for content in candidates:
        try:
            found.append(round(_likeness(sought, _hashes(content)), 3))
        except Unusable:
            found.append(None)
    return found


def _open(content: bytes) -> Image.Image:
    """The picture, with its size checked, not decoded yet."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - only worker processes need it

    Image.MAX_IMAGE_PIXELS = None  # our own limit applies instead of a warning
    try:
        picture = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise Unusable("it is not a JPEG, PNG, GIF, WebP, AVIF, BMP or TIFF image") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise Unusable("it is damaged") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise Unusable(f"it has more than {MAX_PIXELS // 1_000_000} million pixels")
    return picture


def _opaque(picture: Image.Image) -> Image.Image:
    """In RGB, with transparency on white."""
    from PIL import Image  # noqa: PLC0415 - only worker processes need it

    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _hashes(content: bytes) -> _Hashes:
    import imagehash  # noqa: PLC0415 - it loads SciPy, which only worker processes need

    picture = _open(content)
    try:
        picture.draft("RGB", (_COMPARED_SIDE, _COMPARED_SIDE))  # lets a JPEG be decoded small
        small = _opaque(picture)
        small.thumbnail((_COMPARED_SIDE, _COMPARED_SIDE))
    except (OSError, ValueError, SyntaxError) as error:
        raise Unusable("it is damaged") from error
    return _Hashes(imagehash.phash(small), imagehash.dhash(small), imagehash.colorhash(small))


def _likeness(one: _Hashes, other: _Hashes) -> float:
    def apart(a: ImageHash, b: ImageHash) -> float:
        return int(a - b) / len(a)

    # Unrelated pictures differ in half of the structure bits.
    shape = max(0.0, 1 - 2 * apart(one.shape, other.shape))
    edges = max(0.0, 1 - 2 * apart(one.edges, other.edges))
    colours = 1 - apart(one.colours, other.colours)
    return _SHAPE * shape + _EDGES * edges + _COLOURS * colours
