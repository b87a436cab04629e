"""Bodies above the sizes at which they are checked another way: the same is taken, and the same refused."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given as tried
from hypothesis import strategies as st

from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import given, parse

_PIECE = 16 * 1024
_TOO_DEEP = 200_000
"""Beyond what any Python takes: up to 3.11 its own frames count too, after that the decoder's alone."""
_HEAD = b'{"model":"m","client_metadata":{"kept":"'
_TAIL = b'"}}'
_NO_UTF8 = {
    "no byte of UTF-8": b"\xff",
    "a lone continuation": b"\x80",
    "more continuations than a character has": b"\xe4\xb8\xad\x80",
    "nothing but continuations": b"\x80" * 9,
    "cut after one of two": b"\xc3",
    "cut after two of three": b"\xe4\xb8",
    "cut after three of four": b"\xf0\x9f\x9a",
    "overlong in two": b"\xc0\xaf",
    "overlong in three": b"\xe0\x80\xaf",
    "overlong in four": b"\xf0\x80\x80\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
}
"""RFC 3629, sections 3 and 10. The decoder keeps such a field as it was sent, and looks at none of it."""


def _body(inside: bytes, at: int) -> bytes:
    """A body of some pieces in which `inside` begins at byte `at`."""
    return _HEAD + b"a" * (at - len(_HEAD)) + inside + b"b" * _PIECE + _TAIL


@pytest.mark.parametrize("border", [_PIECE, 2 * _PIECE])
@pytest.mark.parametrize("inside", _NO_UTF8.values(), ids=_NO_UTF8)
def test_what_is_no_utf8_is_refused_wherever_it_stands(inside: bytes, border: int) -> None:
    for at in (len(_HEAD), *range(border - 10, border + 3)):
        body = _body(inside, at)
        with pytest.raises(InvalidRequest) as refused:
            parse(body)
        with pytest.raises(UnicodeDecodeError) as named:
            body.decode()
        assert refused.value.code == "json_parse_error"
        assert str(named.value) in refused.value.message  # where in the body, not where in a piece


def test_a_body_that_ends_inside_a_character_is_refused() -> None:
    for length in range(_PIECE - 3, _PIECE + 4):
        body = _HEAD + b"a" * (length - len(_HEAD)) + "中".encode()[:2]
        with pytest.raises(InvalidRequest) as refused:
            parse(body)
        assert refused.value.code == "json_parse_error"


@tried(
    st.lists(st.sampled_from(["a", "é", "中", "🚀", "\U0010ffff", "\u0800"]), min_size=1, max_size=12),
    st.integers(-12, 3),
)
def test_characters_on_a_border_are_taken(characters: list[str], offset: int) -> None:
    text = "".join(characters)
    for border in (_PIECE, 2 * _PIECE):
        request = parse(_body(text.encode(), border + offset))
        assert text in json.loads(bytes(given(request.client_metadata) or b""))["kept"]


@tried(st.integers(0, 5), st.text("中é🚀a", max_size=3))
def test_a_body_full_of_chinese_is_taken(shift: int, end: str) -> None:
    text = "a" * shift + "中文" * (2 * _PIECE // 6) + end
    assert parse(json.dumps({"model": "m", "input": text}, ensure_ascii=False).encode()).input == text


@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_a_large_body_may_nest_as_deeply_as_a_small_one(opening: str) -> None:
    """Counted in the frames that are left when it is read again from further down the stack."""
    refusals: set[str] = set()
    closing = "}" if opening.startswith("{") else "]"

    def taken(depth: int, padding: int) -> bool:
        nest = f"{opening * depth}0{closing * depth}"
        try:
            request = parse(f'{{"model":"m","user":"{"x" * padding}","client_metadata":{nest}}}'.encode())
        except InvalidRequest as error:
            refusals.add(error.message)
            return False
        _read_below(given(request.client_metadata) or msgspec.Raw(b""), 80)
        return True

    small, large, larger = (
        [depth for depth in range(700, 1010, 5) if taken(depth, padding)] for padding in (0, 8_000, 80_000)
    )
    assert small == large == larger
    assert 700 in small
    assert not any(taken(_TOO_DEEP, padding) for padding in (0, 8_000, 80_000))
    assert refusals == {"The request body is nested too deeply."}


def _read_below(raw: msgspec.Raw, frames: int) -> object:
    return _read_below(raw, frames - 1) if frames else msgspec.json.decode(raw)
