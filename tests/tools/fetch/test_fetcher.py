"""What the fetcher brings from a real server, and where it stops: size, time, type, status, redirects, TLS, nothing
carried along.
"""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ssl
import sys
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from pathlib import Path

import brotli  # pyright: ignore[reportMissingTypeStubs] - has none
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.ports.fetcher import FetchRefused, Page
from tests.support.site import Answer, Site, Visit, serving_site

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1024 * 1024


@pytest.fixture
def site() -> Generator[Site]:
    """A site that may be fetched."""
    with serving_site() as one:
        yield one


@pytest.fixture
async def fetcher() -> AsyncGenerator[GuardedFetcher]:
    """May fetch from this machine; looks at no robots.txt."""
    one = GuardedFetcher(allow=["127.0.0.1"], robots=False)
    yield one
    await one.aclose()


async def refusal(
    fetcher: GuardedFetcher, url: str, *, limit: int = 1000, seconds: float = 10, accept: Sequence[str] = ()
) -> str:
    """Why the page does not come."""
    with pytest.raises(FetchRefused) as refused:
        await fetcher.get(url, limit=limit, seconds=seconds, accept=accept)
    return str(refused.value)


async def test_a_page_comes_with_its_type_and_charset(site: Site, fetcher: GuardedFetcher) -> None:
    site.pages["/a"] = Answer("你好".encode("gb18030"), content_type="Text/HTML; Charset=GB18030")
    page = await fetcher.get(site.url("/a?q=1#part"), limit=4, seconds=10)
    assert page == Page(
        url=site.url("/a?q=1"), content_type="text/html", charset="gb18030", body="你好".encode("gb18030")
    )
    assert site.paths == ["/a?q=1"]


async def test_the_request_says_who_asks_and_carries_nothing_else(
    site: Site, fetcher: GuardedFetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    site.pages["/"] = Answer(b"hi", headers={"set-cookie": "session=1; Path=/"})
    site.pages["/again"] = Answer.redirect("/")
    await fetcher.get(site.url(), limit=10, seconds=10, accept=("text/html", "text/*"))
    await fetcher.get(site.url("/again"), limit=10, seconds=10)
    assert site.visits[0].headers == {
        "host": f"127.0.0.1:{site.port}",
        "user-agent": "Mozilla/5.0 (compatible; responses-gateway)",
        "accept": "text/html, text/*, */*;q=0.1",
        "accept-encoding": "gzip, deflate",
    }
    assert all(not visit.headers.keys() & {"cookie", "authorization", "referer"} for visit in site.visits)


async def test_the_callers_headers_stay_with_the_first_origin(site: Site, fetcher: GuardedFetcher) -> None:
    with serving_site() as other:
        site.pages |= {"/": Answer.redirect("/same"), "/same": Answer.redirect(other.url("/"))}
        other.pages["/"] = Answer.html("hi")
        page = await fetcher.get(site.url(), limit=MIB, seconds=10, headers=[("x-key", "secret")])
        assert page.url == other.url("/")
        assert [visit.headers.get("x-key") for visit in site.visits + other.visits] == ["secret", "secret", None]


async def test_a_body_may_be_as_large_as_the_limit_and_not_a_byte_larger(site: Site, fetcher: GuardedFetcher) -> None:
    site.pages |= {"/fits": Answer(b"x" * 1000), "/larger": Answer(b"x" * 1001), "/empty": Answer()}
    assert len((await fetcher.get(site.url("/fits"), limit=1000, seconds=10)).body) == 1000
    assert (await fetcher.get(site.url("/empty"), limit=1000, seconds=10)).body == b""
    assert await refusal(fetcher, site.url("/larger")) == "The page is larger than 1000 bytes."


async def test_a_body_without_end_is_left_at_the_limit(site: Site, fetcher: GuardedFetcher) -> None:
    site.pages["/"] = Answer.endless()
    assert "larger" in await refusal(fetcher, site.url(), limit=300_000)


def _brotli(content: bytes) -> bytes:
    return brotli.compress(content, quality=5)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - has no types


_PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": _brotli,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("encoding", list(_PACK))
async def test_a_small_body_that_unpacks_to_much_is_stopped_while_it_unpacks(
    site: Site, fetcher: GuardedFetcher, encoding: str
) -> None:
    huge = bytes(64 * MIB)
    packed = _PACK[encoding](huge)
    del huge
    site.pages["/"] = Answer(packed, headers={"content-encoding": encoding})
    tracemalloc.start()
    try:
        assert "larger" in await refusal(fetcher, site.url(), limit=MIB)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


async def test_a_compressed_page_is_unpacked(site: Site, fetcher: GuardedFetcher) -> None:
    site.pages["/"] = Answer(gzip.compress(b"hello" * 1000), headers={"content-encoding": "gzip"})
    assert (await fetcher.get(site.url(), limit=5000, seconds=10)).body == b"hello" * 1000


_TEXT = b"<html><body>hello</body></html>" * 100
_PACKED = {
    "plain": _TEXT,
    "twice": gzip.compress(gzip.compress(_TEXT)),
    **{name: pack(_TEXT) for name, pack in _PACK.items()},
}


@pytest.mark.parametrize(
    ("label", "body"),
    [
        *((None, body) for body in ("gzip", "zstd")),
        *(("gzip", body) for body in ("plain", "gzip", "twice", "zstd")),
        *(("gzip, gzip", body) for body in ("gzip", "twice")),
        *(("br", body) for body in ("br", "plain", "gzip", "zstd")),
        *(("zstd", body) for body in ("zstd", "plain")),
        *(("deflate", body) for body in ("deflate", "plain", "gzip")),
        *((label, "plain") for label in ("utf-8", "none", "x-unheard-of", "identity, GZIP")),
        *((label, "gzip") for label in ("X-GZIP", "utf-8", "identity")),
    ],
)
async def test_a_body_is_unpacked_whatever_its_label_says(
    site: Site, fetcher: GuardedFetcher, label: str | None, body: str
) -> None:
    site.pages["/"] = Answer(_PACKED[body], headers={} if label is None else {"content-encoding": label})
    assert (await fetcher.get(site.url(), limit=MIB, seconds=10)).body == _TEXT


async def test_a_packed_file_stays_packed(site: Site, fetcher: GuardedFetcher) -> None:
    site.pages["/"] = Answer(_PACKED["gzip"], content_type="application/gzip")
    assert (await fetcher.get(site.url(), limit=MIB, seconds=10)).body == _PACKED["gzip"]


@pytest.mark.parametrize("label", ["br", "zstd", "gzip", "deflate"])
@pytest.mark.parametrize("body", [b"\x1f\x8b", b"\x1f\x8bno gzip at all", b"\x00\x01\x02\x03 nothing"])
async def test_broken_compression_is_a_sentence(site: Site, fetcher: GuardedFetcher, label: str, body: bytes) -> None:
    site.pages["/"] = Answer(body, headers={"content-encoding": label})
    assert "cannot be decompressed" in await refusal(fetcher, site.url())


@pytest.mark.parametrize("answer", [Answer.never(), Answer.drip()], ids=["never", "drip"])
async def test_a_slow_server_costs_no_more_than_the_time_given(
    site: Site, fetcher: GuardedFetcher, answer: Answer
) -> None:
    site.pages["/"] = answer
    assert await refusal(fetcher, site.url(), limit=MIB, seconds=0.3) == "The page was not received within 0.3 seconds."


async def test_the_time_given_bounds_the_look_up_too() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    assert "0.1 seconds" in await refusal(GuardedFetcher(resolve=resolve), "http://example.com/", seconds=0.1)


async def test_robots_txt_counts_to_the_time_given(site: Site) -> None:
    site.pages["/robots.txt"] = Answer.never()
    fetcher = GuardedFetcher(allow=["127.0.0.1"])
    assert "0.2 seconds" in await refusal(fetcher, site.url(), seconds=0.2)
    await fetcher.aclose()


@pytest.mark.parametrize(
    ("sent", "accept", "taken"),
    [
        ("text/html; charset=utf-8", ("text/html",), True),
        ("TEXT/HTML", ("text/*",), True),
        ("image/png", ("text/*", "image/*"), True),
        ("application/octet-stream", ("text/*",), True),
        ("application/octet-stream", ("image/*",), False),
        ("text/htmlx", ("text/html",), False),
        (None, ("text/*",), True),
        (None, ("application/pdf",), False),
        (None, (), True),
    ],
)
async def test_only_the_types_asked_for_are_read(
    site: Site, fetcher: GuardedFetcher, sent: str | None, accept: tuple[str, ...], taken: bool
) -> None:
    site.pages["/"] = Answer(b"hello", content_type=sent)
    if taken:
        assert (await fetcher.get(site.url(), limit=10, seconds=10, accept=accept)).body == b"hello"
    else:
        assert "accepted are" in await refusal(fetcher, site.url(), accept=accept)


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "404 (Not Found)"), (500, "500 (Internal Server Error)"), (304, "304"), (451, "451"), (300, "300")],
)
async def test_an_error_status_is_a_sentence(site: Site, fetcher: GuardedFetcher, status: int, words: str) -> None:
    site.pages["/"] = Answer(b"", status)
    assert words in await refusal(fetcher, site.url())


async def test_redirects_are_followed_five_times(site: Site, fetcher: GuardedFetcher) -> None:
    site.pages |= {f"/{n}": Answer.redirect(f"{n + 1}") for n in range(6)} | {
        "/5": Answer.html("there"),
        "/loop": Answer.redirect("/loop"),
    }
    assert (await fetcher.get(site.url("/0"), limit=MIB, seconds=10)).url == site.url("/5")
    assert "more than 5 times" in await refusal(fetcher, site.url("/loop"))
    assert site.paths.count("/loop") == 6


@pytest.mark.parametrize(
    "location", ["", "http://a b c/", "mailto:me@example.com", "http://user:pass@127.0.0.1/", "http://[::"]
)
async def test_a_redirect_to_nowhere_is_a_sentence(site: Site, fetcher: GuardedFetcher, location: str) -> None:
    site.pages["/"] = Answer.redirect(location)
    assert await refusal(fetcher, site.url())
    assert site.paths == ["/"]


async def test_a_server_that_is_not_there_or_speaks_nonsense_is_a_sentence(fetcher: GuardedFetcher) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert "invalid HTTP" in await refusal(fetcher, f"http://127.0.0.1:{port}/")
    assert "does not answer" in await refusal(fetcher, f"http://127.0.0.1:{port}/")


async def test_the_next_address_is_tried_when_one_does_not_answer(site: Site) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.9", "127.0.0.1"]

    site.pages["/"] = Answer.text("hello")
    fetcher = GuardedFetcher(allow=["many.example"], robots=False, resolve=resolve)
    assert (await fetcher.get(site.url(host="many.example"), limit=10, seconds=10)).body == b"hello"
    assert site.visits[0].headers["host"] == f"many.example:{site.port}"
    await fetcher.aclose()


async def test_a_chinese_host_is_looked_up_and_asked_by_its_ascii_name(site: Site) -> None:
    names: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        names.append(host)
        return ["127.0.0.1"]

    site.pages["/%E8%B7%AF"] = Answer.text("你好")
    fetcher = GuardedFetcher(allow=["127.0.0.1"], robots=False, resolve=resolve)
    await fetcher.check(site.url("/路", host="例子.中国"))
    assert (await fetcher.get(site.url("/路", host="例子.中国"), limit=10, seconds=10)).body.decode() == "你好"
    assert names == ["xn--fsqu00a.xn--fiqs8s"] * 2
    assert site.visits[0].headers["host"] == f"xn--fsqu00a.xn--fiqs8s:{site.port}"
    await fetcher.aclose()


class Certificate:
    """A certificate for `secure.example`, and both sides' contexts for it."""

    def __init__(self, directory: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "secure.example")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("secure.example")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        path = directory / "pair.pem"
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
        self.client = ssl.create_default_context(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(path)
        self.names: list[str | None] = []
        """What clients said whom they want (SNI)."""
        self.server.set_servername_callback(lambda _, name, __: self.names.append(name))


async def test_tls_keeps_the_name_though_the_address_is_pinned(tmp_path: Path) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    certificate = Certificate(tmp_path)
    with serving_site(tls=certificate.server) as secure, serving_site() as plain:
        secure.pages |= {"/": Answer.text("hello"), "/down": Answer.redirect(plain.url())}
        plain.pages["/"] = Answer.text("plain")
        fetcher = GuardedFetcher(allow=["127.0.0.1"], robots=False, resolve=resolve, tls=certificate.client)
        page = await fetcher.get(secure.url(host="secure.example"), limit=10, seconds=10)
        assert (page.body, certificate.names) == (b"hello", ["secure.example"])
        assert secure.visits[0].headers["host"] == f"secure.example:{secure.port}"
        assert "certificate of other.example is not valid" in await refusal(fetcher, secure.url(host="other.example"))
        assert "certificate of 127.0.0.1 is not valid" in await refusal(fetcher, secure.url())
        assert (await fetcher.get(secure.url("/down", host="secure.example"), limit=10, seconds=10)).body == b"plain"
        await fetcher.aclose()
        stranger = GuardedFetcher(allow=["127.0.0.1"], robots=False, resolve=resolve)
        assert "certificate of secure.example is not valid" in await refusal(
            stranger, secure.url(host="secure.example")
        )
        await stranger.aclose()


async def test_many_pages_at_once(site: Site, fetcher: GuardedFetcher) -> None:
    def echo(visit: Visit) -> Answer:
        return Answer.text(visit.path)

    site.pages["*"] = echo
    pages = await asyncio.gather(*(fetcher.get(site.url(f"/{n}"), limit=100, seconds=10) for n in range(30)))
    assert [page.body.decode() for page in pages] == [f"/{n}" for n in range(30)]


async def test_silent_sites_of_one_project_do_not_hold_up_another(site: Site) -> None:
    fetcher = GuardedFetcher(allow=["127.0.0.1"], robots=False, at_once=2)
    site.pages["/silent"] = Answer.never()
    site.pages["/quick"] = Answer.text("quick")
    greedy, other = fetcher.on_behalf("greedy"), fetcher.on_behalf("other")
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(greedy.get(site.url("/silent"), limit=10, seconds=60)) for _ in range(4)]
        await visited(site)
        assert (await other.get(site.url("/quick"), limit=10, seconds=30)).body == b"quick"
        assert site.paths == ["/silent", "/quick"]
        for task in waiting:
            task.cancel()
    await fetcher.aclose()


async def test_waiting_for_a_turn_is_part_of_the_time(site: Site) -> None:
    fetcher = GuardedFetcher(allow=["127.0.0.1"], robots=False, at_once=1)
    site.pages["/silent"] = Answer.never()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(fetcher.on_behalf("a").get(site.url("/silent"), limit=10, seconds=60))
        await visited(site)
        assert "was not received within 0.1 seconds" in await refusal(fetcher, site.url("/quick"), seconds=0.1)
        first.cancel()
    assert site.paths == ["/silent"]
    await fetcher.aclose()


async def visited(site: Site) -> None:
    """Somebody has come."""
    async with asyncio.timeout(30):
        while not site.visits:  # noqa: ASYNC110 - the site is in another thread
            await asyncio.sleep(0.01)
