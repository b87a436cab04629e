"""No spelling of an inner address, and no trick with names, makes the fetcher touch it: real sockets, and a canary that
must stay alone.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Sequence
from ipaddress import ip_address

import httpx2
import pytest

from app.tools.fetch.addresses import AddressGuard, is_public
from app.tools.fetch.fetcher import GuardedFetcher, guarded_client
from app.tools.ports.fetcher import FetchRefused
from tests.support.site import Answer, Site, serving_site

PUBLIC = "93.184.215.14"


@pytest.fixture(scope="module")
def canaries() -> Generator[tuple[Site, Site]]:
    """Servers on this machine, on both loopback addresses."""
    with serving_site() as site, serving_site(host="::1") as site6:
        site.pages["*"] = site6.pages["*"] = Answer.html("secret")
        yield site, site6


@pytest.fixture
def canary(canaries: tuple[Site, Site]) -> Generator[Site]:
    """A server that nobody may ask."""
    yield canaries[0]
    assert [canary.connections for canary in canaries] == [0, 0], canaries[0].visits


@pytest.fixture
def canary6(canaries: tuple[Site, Site], canary: Site) -> Site:
    """The same on the IPv6 loopback address."""
    return canaries[1]


@pytest.fixture(scope="module")
def fetcher() -> GuardedFetcher:
    """As a gateway without settings has it. It never gets as far as a connection that would have to be closed."""
    return GuardedFetcher()


async def refused(fetcher: GuardedFetcher, url: str) -> str:
    """Why neither door lets the URL through."""
    with pytest.raises(FetchRefused) as by_get:
        await fetcher.get(url, limit=1000, seconds=5)
    with pytest.raises(FetchRefused) as by_check:
        await fetcher.check(url)
    assert str(by_get.value) == str(by_check.value)
    return str(by_get.value)


LOOPBACK = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1.2.3",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0X7F.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "127.0.0.1.0",
    "0.0.0.0",  # noqa: S104 - nobody binds here
    "0",
    "0.0.0.0.",
    "localhost",
    "localhost.",
    "localhost..",
    "LOCALHOST",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "１２７.0.0.1",
    "127。0。0。1",
    "①②⑦.⓪.⓪.①",
    "ⅼocalhost",
    "ｌｏｃａｌｈｏｓｔ",
    "loc\u00adalhost",
    "%31%32%37.0.0.1",
    "%6cocalhost",
    "%256cocalhost",
    "127.0.0.1%0d%0aX-Injected:%20yes",
    "127.0.0.1%00.example.com",
]


@pytest.mark.parametrize("host", LOOPBACK)
async def test_no_spelling_of_this_machine_is_fetched(fetcher: GuardedFetcher, canary: Site, host: str) -> None:
    await refused(fetcher, f"http://{host}:{canary.port}/")


@pytest.mark.parametrize("host", ["[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::1%25lo]", "[::1%lo]"])
async def test_no_spelling_of_this_machine_is_fetched_by_ipv6(
    fetcher: GuardedFetcher, canary6: Site, host: str
) -> None:
    await refused(fetcher, f"http://{host}:{canary6.port}/")


@pytest.mark.parametrize(
    "template",
    [
        "http://good@127.0.0.1:{port}/",
        "http://good:80@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}@good/",
        "http://127.0.0.1:{port}#@good/",
        "http://127.0.0.1:{port}?@good/",
        "http://127.0.0.1:{port}\\@good/",
        "http://good\\@127.0.0.1:{port}/",
        "http:\\\\127.0.0.1:{port}/",
        "http:///127.0.0.1:{port}/",
        "http:127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "127.0.0.1:{port}",
        " http://127.0.0.1:{port}/",
        "http://127.0.0.1:{port}/\r\nX-Injected: yes",
        "http://127.0.0.1:{port}\t/",
        "http://1.1.1.1 &@127.0.0.1:{port}# @good/",
        "gopher://127.0.0.1:{port}/_GET%20/",
        "ftp://127.0.0.1:{port}/",
        "dict://127.0.0.1:{port}/",
        "ws://127.0.0.1:{port}/",
        "file:///etc/hostname",
        "file://127.0.0.1:{port}/",
        "data:text/html,hello",
        "javascript:fetch('http://127.0.0.1:{port}')",
        "jar:http://127.0.0.1:{port}!/",
        "http://",
        "",
        "http://" + "a" * 300 + ".example/",
        "http://" + "a" * 70 + ".example/",
        "http://a..b/",
        "http://.example.com/",
        "http://[127.0.0.1]:{port}/",
        "http://[::1",
        "http://127.0.0.1:{port}/" + "a" * 9000,
    ],
)
async def test_no_trick_with_a_url_reaches_this_machine(fetcher: GuardedFetcher, canary: Site, template: str) -> None:
    await refused(fetcher, template.replace("{port}", str(canary.port)))


@pytest.mark.parametrize(
    "host",
    ["134744072", "0x08080808", "8.8", "8.8.2056", "010.8.8.8", "0x8.8.8.8", "8.8.8.8.8", "example.0x8", "example.8"],
)
async def test_odd_notations_are_refused_though_they_are_public(host: str) -> None:
    async def resolve(name: str, port: int) -> Sequence[str]:
        return [PUBLIC]

    with pytest.raises(FetchRefused, match="not a valid host name"):
        await AddressGuard(resolve=resolve).addresses(host, 80)


@pytest.mark.parametrize("userinfo", ["user", "user:secret", ":secret", "127.0.0.1%5C", "user%40other"])
async def test_a_url_with_a_user_is_refused_though_its_host_is_allowed(canary: Site, userinfo: str) -> None:
    reason = await refused(GuardedFetcher(allow=["127.0.0.1"]), f"http://{userinfo}@127.0.0.1:{canary.port}/")
    assert reason == "The URL contains a user name or password."


@pytest.mark.parametrize("port", [0, 1, 22, 25, 53, 111, 445, 993, 65536, 99999])
async def test_ports_of_system_services_are_not_asked(port: int) -> None:
    fetcher = GuardedFetcher(allow=["127.0.0.1"])
    assert "Port" in await refused(fetcher, f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - nobody binds here
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.9",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::8.8.8.8",
        "::ffff:8.8.8.8",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:20::1",
        "2001:db8::1",
        "2002:a00:1::",
        "2002:808:808::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "1.1.1.1", "223.5.5.5", "2606:4700::1111", "2400:3200::1", "64:ff9b::8.8.8.8"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "kept", [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC], [PUBLIC, "::1"], ["fe80::1%lo"], []]
)
async def test_a_name_with_one_inner_address_is_refused_altogether(canary: Site, kept: Sequence[str]) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return kept

    await refused(GuardedFetcher(resolve=resolve), f"http://public.example:{canary.port}/")


async def test_a_name_that_changes_its_address_is_looked_up_once_and_connected_where_it_was_checked(
    canary: Site,
) -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1" if len(asked) > 1 else "127.0.0.2"]

    # 127.0.0.2 stands for the public address of the first answer; nobody listens there.
    fetcher = GuardedFetcher(allow=["127.0.0.2"], robots=False, resolve=rebinding)
    with pytest.raises(FetchRefused, match="does not answer"):
        await fetcher.get(f"http://rebind.example:{canary.port}/", limit=1000, seconds=5)
    assert asked == ["rebind.example"]
    with pytest.raises(FetchRefused, match="no public server"):
        await fetcher.get(f"http://rebind.example:{canary.port}/", limit=1000, seconds=5)
    await fetcher.aclose()


async def test_an_unknown_name_and_an_inner_one_are_told_in_the_same_words(canary: Site) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        if host == "unknown.corp":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ["10.1.2.3"]

    fetcher = GuardedFetcher(resolve=resolve)
    unknown = await refused(fetcher, f"http://unknown.corp:{canary.port}/")
    inner = await refused(fetcher, f"http://wiki.corp:{canary.port}/")
    assert unknown.replace("unknown", "wiki") == inner
    assert "10.1.2.3" not in inner


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "http://0x7f.1:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "file:///etc/passwd",
    ],
)
async def test_a_redirect_is_checked_like_the_first_address(canary: Site, status: int, location: str) -> None:
    with serving_site(host="127.0.0.2") as site:
        site.pages["/"] = Answer.redirect(location.replace("{port}", str(canary.port)), status=status)
        fetcher = GuardedFetcher(allow=["127.0.0.2"], robots=False)
        with pytest.raises(FetchRefused):
            await fetcher.get(site.url(host="127.0.0.2"), limit=1000, seconds=5)
        assert site.paths == ["/"]
        await fetcher.aclose()


async def test_a_chain_of_redirects_is_checked_at_its_end(canary: Site) -> None:
    with serving_site(host="127.0.0.2") as site:
        site.pages |= {
            "/": Answer.redirect("/2"),
            "/2": Answer.redirect("../3"),
            "/3": Answer.redirect(canary.url("/")),
        }
        fetcher = GuardedFetcher(allow=["127.0.0.2"], robots=False)
        with pytest.raises(FetchRefused, match="no public server"):
            await fetcher.get(site.url(host="127.0.0.2"), limit=1000, seconds=5)
        assert site.paths == ["/", "/2", "/3"]
        await fetcher.aclose()


async def test_robots_txt_leads_nowhere_inside(canary: Site) -> None:
    with serving_site(host="127.0.0.2") as site:
        site.pages |= {"/robots.txt": Answer.redirect(canary.url("/robots.txt")), "/": Answer.html("hi")}
        fetcher = GuardedFetcher(allow=["127.0.0.2"])
        with pytest.raises(FetchRefused):
            await fetcher.get(site.url(host="127.0.0.2"), limit=1000, seconds=5)
        assert site.paths == ["/robots.txt"]
        await fetcher.aclose()


@pytest.mark.parametrize(
    ("allow", "host", "addresses"),
    [
        ("wiki.corp", "wiki.corp", ["10.0.0.1"]),
        ("wiki.corp", "WIKI.corp.", ["10.0.0.1"]),
        ("Wiki.Corp.", "wiki.corp", ["10.0.0.1", "::1"]),
        ("10.0.0.1", "wiki.corp", ["10.0.0.1"]),
        ("10.0.0.1", "10.0.0.1", []),
        ("10.1.0.0/16", "wiki.corp", ["10.1.0.0", "10.1.255.255", PUBLIC]),
        ("fd00::/8", "wiki.corp", ["fd00:ec2::254"]),
        ("[::1]", "::1", []),
        ("::1", "::1", []),
    ],
)
async def test_what_is_exempted(allow: str, host: str, addresses: list[str]) -> None:
    async def resolve(name: str, port: int) -> Sequence[str]:
        return addresses

    assert await AddressGuard([allow], resolve=resolve).addresses(host, 80) == (addresses or [host])


@pytest.mark.parametrize(
    ("allow", "host", "addresses"),
    [
        ("wiki.corp", "other.wiki.corp", ["10.0.0.1"]),
        ("wiki.corp", "corp", ["10.0.0.1"]),
        ("wiki.corp", "10.0.0.1", []),
        ("10.0.0.1", "wiki.corp", ["10.0.0.1", "10.0.0.2"]),
        ("10.0.0.1", "10.0.0.11", []),
        ("10.1.0.0/16", "wiki.corp", ["10.2.0.0"]),
        ("127.0.0.1", "::ffff:127.0.0.1", []),
        ("127.0.0.1", "::1", []),
        ("127.0.0.1", "2130706433", []),
        ("0.0.0.0/0", "::1", []),
    ],
)
async def test_what_is_not_exempted(allow: str, host: str, addresses: list[str]) -> None:
    async def resolve(name: str, port: int) -> Sequence[str]:
        return addresses

    with pytest.raises(FetchRefused):
        await AddressGuard([allow], resolve=resolve).addresses(host, 80)


@pytest.mark.parametrize(
    "entry", ["10.0.0.0/99", "10.1.2.3/16", "http://wiki.corp", "wiki.corp:8080", "wiki.corp/page"]
)
def test_an_entry_that_is_no_network_is_a_mistake(entry: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits"):
        GuardedFetcher(allow=[entry])


async def test_a_client_for_other_libraries_goes_through_the_same_guard(
    canary: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", canary.origin)
    monkeypatch.setenv("ALL_PROXY", canary.origin)
    with serving_site(host="127.0.0.2") as site:
        site.pages |= {"/": Answer.text("hello"), "/away": Answer.redirect(canary.url("/"))}
        async with guarded_client(["127.0.0.2"], headers={"x-mine": "1"}) as client:
            answer = await client.post(site.url(host="127.0.0.2"), json={"a": 1})
            assert (answer.text, site.visits[0].json, site.visits[0].headers["x-mine"]) == ("hello", {"a": 1}, "1")
            with pytest.raises(FetchRefused):
                await client.get(site.url("/away", host="127.0.0.2"), follow_redirects=True)
            with pytest.raises(FetchRefused):
                await client.get(canary.url("/"))
            with pytest.raises(httpx2.ConnectError, match=r"127\.0\.0\.2 does not answer"):
                await client.get(f"http://127.0.0.2:{canary.port}/")
