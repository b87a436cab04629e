"""`Content-Encoding` taken off: every coding, in any order, broken, and far larger inside than outside."""

from __future__ import annotations

import asyncio
import gzip
import random
import sys
import zlib
from collections.abc import Callable

import brotli  # pyright: ignore[reportMissingTypeStubs] - has none
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.encodings import codings, decoded
from app.protocol.wire.errors import InvalidRequest, PayloadTooLarge, UnsupportedEncoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMIT = 1 << 20
NOISE = random.Random(7).randbytes(LIMIT // 2)  # noqa: S311 - data that does not compress


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def packed_by_brotli(data: bytes) -> bytes:
    return bytes(brotli.compress(data, quality=4))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "bare deflate": ("deflate", bare),
    "br": ("br", packed_by_brotli),
    "zstd": ("zstd", zstd.compress),
    "zstd, best": ("zstd", lambda data: zstd.compress(data, 22)),
}
BOTH = pytest.mark.parametrize(("coding", "pack"), PACKERS.values(), ids=PACKERS)


@BOTH
@pytest.mark.parametrize(
    "data", [b"{}", b'{"model":"m"}' * 10_000, NOISE, b"x" * LIMIT], ids=["short", "long", "noise", "at the limit"]
)
async def test_what_was_encoded_comes_out(coding: str, pack: Callable[[bytes], bytes], data: bytes) -> None:
    assert await decoded(pack(data), coding, LIMIT) == data


@given(data=st.binary(max_size=2000), applied=st.lists(st.sampled_from(sorted(PACKERS)), max_size=4))
def test_codings_come_off_in_the_order_they_were_applied_in(data: bytes, applied: list[str]) -> None:
    body, names = data, ["identity"]
    for name in applied:
        coding, pack = PACKERS[name]
        body = pack(body)
        names.append(coding)

    assert asyncio.run(decoded(body, " , ".join(names), LIMIT)) == data


@BOTH
async def test_a_bomb_is_cut_while_it_unfolds(coding: str, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(PayloadTooLarge, match="1048576 bytes when decompressed"):
        await decoded(pack(b"\0" * (8 << 20)), coding, LIMIT)


@pytest.mark.parametrize("first", ["gzip", "br"])
async def test_a_bomb_in_a_bomb_is_cut(first: str) -> None:
    inner = PACKERS[first][1](b"\0" * (64 << 20))
    with pytest.raises(PayloadTooLarge):
        await decoded(gzip.compress(inner), f"{first}, gzip", LIMIT)


@BOTH
async def test_broken_data_is_refused(coding: str, pack: Callable[[bytes], bytes]) -> None:
    whole = pack(NOISE)
    for broken in (whole[:-1], whole[: len(whole) // 2], whole[:3], b"no such data at all", whole + b"and more"):
        with pytest.raises(InvalidRequest) as refused:
            await decoded(broken, coding, LIMIT)
        assert refused.value.code == "invalid_content_encoding"


@pytest.mark.parametrize(("coding", "pack"), [PACKERS["gzip"], PACKERS["zstd"]], ids=["gzip", "zstd"])
async def test_several_frames_are_one_body(coding: str, pack: Callable[[bytes], bytes]) -> None:
    assert await decoded(pack(b"one ") + pack(b"") + pack(b"two"), coding, LIMIT) == b"one two"
    with pytest.raises(InvalidRequest):
        await decoded(pack(b"") * 5000, coding, LIMIT)


async def test_frames_of_zstd_that_hold_nothing_are_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    assert await decoded(skippable + zstd.compress(b"{}"), "zstd", LIMIT) == b"{}"


async def test_a_zstd_window_larger_than_any_body_is_refused() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    greedy = packer.compress(b"{}") + packer.flush()
    with pytest.raises(InvalidRequest):
        await decoded(greedy, "zstd", LIMIT)


async def test_others_go_on_meanwhile() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        await decoded(gzip.compress(b"x" * (8 << 20)), "gzip", 8 << 20)
        counting.cancel()

    assert turns >= 30


@pytest.mark.parametrize("value", ["compress", "gzip, lzma", "br;q=1", "gzip\x00", "gzip,gzip,gzip,gzip,gzip", "*"])
def test_other_codings_are_refused_with_those_that_are_read(value: str) -> None:
    with pytest.raises(UnsupportedEncoding) as refused:
        codings(value)
    assert refused.value.accepted == "gzip, deflate, br, zstd"
    assert "gzip, deflate, br, zstd" in refused.value.message
    assert refused.value.message.isprintable()


@pytest.mark.parametrize("value", ["", "identity", " Identity ,, "])
def test_no_coding_is_none(value: str) -> None:
    assert codings(value) == ()
