"""Pictures are cut as asked, compared as people would, and refused before they can do harm."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageFilter

from app.tools.images.pictures import WHOLE, Box, Unusable, crop, similarities
from tests.tools.images.stage import bomb, encoded, scene

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters() -> Image.Image:
    """Red and green above blue and white, 400 x 200 pixels."""
    picture = Image.new("RGB", (400, 200), RED)
    picture.paste(GREEN, (200, 0, 400, 100))
    picture.paste(BLUE, (0, 100, 200, 200))
    picture.paste(WHITE, (200, 100, 400, 200))
    return picture


def seen(content: bytes) -> tuple[tuple[int, int], list[tuple[int, int, int]]]:
    """Size of a picture, and its corners' colours, each channel fully on or off."""
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "JPEG"
    width, height = picture.size
    corners = [picture.getpixel(place) for place in ((2, 2), (width - 3, 2), (2, height - 3), (width - 3, height - 3))]
    clear: list[tuple[int, int, int]] = []
    for colour in corners:
        assert isinstance(colour, tuple)
        red, green, blue = (255 if channel > 127 else 0 for channel in colour)
        clear.append((red, green, blue))
    return picture.size, clear


@pytest.mark.parametrize(
    ("box", "size", "corners"),
    [
        (WHOLE, (400, 200), [RED, GREEN, BLUE, WHITE]),
        ((0, 0, 500, 500), (200, 100), [RED] * 4),
        ((500, 0, 1000, 500), (200, 100), [GREEN] * 4),
        ((0, 500, 500, 1000), (200, 100), [BLUE] * 4),
        ((250, 250, 750, 750), (200, 100), [RED, GREEN, BLUE, WHITE]),
        ((0, 500, 1000, 1000), (400, 100), [BLUE, WHITE, BLUE, WHITE]),
    ],
)
def test_a_box_is_cut_out(box: Box, size: tuple[int, int], corners: list[tuple[int, int, int]]) -> None:
    assert seen(crop(encoded(quarters()), box)) == (size, corners)


def test_a_box_counts_on_the_picture_as_people_see_it() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # lies on its side: has to be turned a quarter clockwise
    content = encoded(quarters(), "JPEG", quality=95, exif=turned)
    assert seen(crop(content, (0, 0, 500, 500))) == ((100, 200), [BLUE] * 4)


def test_what_is_transparent_is_white() -> None:
    clear = Image.new("RGBA", (50, 50), (0, 0, 0, 0))
    assert seen(crop(encoded(clear), WHOLE)) == ((50, 50), [WHITE] * 4)


def test_a_large_picture_is_made_smaller() -> None:
    assert seen(crop(encoded(Image.new("RGB", (4000, 1000), RED)), WHOLE))[0] == (1024, 256)


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_usual_formats_are_read(kind: str) -> None:
    assert seen(crop(encoded(quarters(), kind), (0, 0, 400, 400)))[1] == [RED] * 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>not found</html>", "is not a JPEG"),
        (b"", "is not a JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is not a JPEG"),
        (encoded(scene(1))[:2000], "is damaged"),
        (encoded(Image.new("RGB", (300, 9))), "smaller than 10 pixels"),
        (bomb(), "more than 50 million pixels"),
    ],
    ids=["html", "nothing", "another format", "cut off", "tiny", "bomb"],
)
def test_what_cannot_be_used_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        crop(content, WHOLE)


def test_a_near_duplicate_is_nearly_the_same_and_others_are_not() -> None:
    original = scene(1)
    alike = [
        encoded(original),
        encoded(original.resize((120, 90)), "JPEG", quality=40),
        encoded(original.filter(ImageFilter.GaussianBlur(2)), "WEBP"),
    ]
    found = similarities(
        encoded(original), [*alike, *(encoded(scene(seed)) for seed in range(2, 12)), b"no picture", bomb()]
    )
    assert found[0] == 1.0
    assert all(score is not None and score > 0.9 for score in found[:3])
    assert all(score is not None and score < 0.6 for score in found[3:13])
    assert found[13:] == [None, None]
