"""Which hosts and addresses the gateway may connect to on behalf of a model or a request (a guard against SSRF).

An address has to be public by IANA's special-purpose registries. The standard library's `is_global` is not enough: depending on the
release it passes multicast, 6to4 and IPv4-mapped addresses, so the rule here is an own, narrower one.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from app.tools.ports.fetcher import FetchRefused

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses; raises OSError. Asked once for a connection."""

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_NAME = 253
_FIRST_USER_PORT = 1024
_LAST_PORT = 65535
_WEB_PORTS = frozenset({80, 443})

_IPV4_REFUSED = tuple(
    map(
        IPv4Network,
        (
            "192.0.0.0/24",  # protocol assignments
            "192.88.99.0/24",  # 6to4 relays
            "168.63.129.16/32",  # Azure's host, which answers for metadata from a public address
        ),
    )
)
_IPV6_GLOBAL = IPv6Network("2000::/3")
_IPV6_REFUSED = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "3fff::/20",  # documentation
        ),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")

# Look-ups block; threads of their own, so that slow name servers hold up look-ups only.
_look_ups = ThreadPoolExecutor(max_workers=8, thread_name_prefix="look-up")


async def look_up(host: str, port: int) -> Sequence[str]:
    """The system's answer, in its order of preference."""
    found = await asyncio.get_running_loop().run_in_executor(_look_ups, _look_up, host, port)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _look_up(host: str, port: int) -> Sequence[tuple[object, object, object, object, tuple[object, ...]]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is one of the public internet, by itself and by the IPv4 address that is embedded in it.

    NAT64's (RFC 6052) counts as the IPv4 address it leads to, which is how an IPv6-only network reaches the web; every other form with
    an IPv4 address inside (mapped, compatible, 6to4, Teredo) has no use there and is refused.
    """
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        return address in _IPV6_GLOBAL and not any(address in network for network in _IPV6_REFUSED)
    return address.is_global and not (address.is_multicast or address.is_reserved or any(address in network for network in _IPV4_REFUSED))


class AddressGuard:
    """Turns a host into addresses that may be connected to."""

    def __init__(self, allow: Sequence[str] = (), *, resolve: Resolve = look_up) -> None:
        """`allow`: host names, addresses and networks that are exempted from the address check, and from nothing else.

        A name exempts whatever it resolves to; an address or network exempts these addresses, however they are reached.
        Raises ValueError for an entry that looks like an address or network and is none.
        """
        self._resolve = resolve
        entries = [entry.strip().strip("[]").lower().rstrip(".") for entry in allow]
        self._networks = tuple(ip_network(entry) for entry in entries if "/" in entry or ":" in entry or _address(entry) is not None)
        self._names = frozenset(entries)

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Every address of the host, checked; the caller connects to one of these and asks nobody again.

        Raises FetchRefused when a single one is not public: a name that has both kinds is somebody's trick.
        """
        name = check_name(host)
        literal = _address(name)
        try:
            found = [str(literal)] if literal is not None else await self._resolve(name, port)
        except OSError as error:
            raise _nothing_public(host) from error
        if not found or not all(self._may(name, address) for address in found):
            raise _nothing_public(host)
        return found

    def _may(self, name: str, text: str) -> bool:
        address = _address(text)
        if address is None:  # with a zone (`fe80::1%eth0`), so of this machine's own links
            return False
        return name in self._names or any(address in network for network in self._networks) or is_public(address)


def check_name(host: str) -> str:
    """The host as it is looked up: a plain name, or an address in the one usual notation, without brackets.

    Raises FetchRefused for what some systems take for an address and others do not (`2130706433`, `0x7f.1`, `0177.0.0.1`, `127.1`).
    """
    name = host.lower().removesuffix(".")
    if _address(name) is not None:
        return name
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise FetchRefused(f"{host[:100]!r} is not a valid host name.")
    return name


def check_port(port: int) -> None:
    """Raises FetchRefused for ports of mail, remote access and other system services: web servers use 80, 443 or one from 1024."""
    if port not in _WEB_PORTS and not _FIRST_USER_PORT <= port <= _LAST_PORT:
        raise FetchRefused(f"Port {port} is not one for web pages; use 80, 443 or one from 1024 to 65535.")


def _nothing_public(host: str) -> FetchRefused:
    # One sentence for a name that is unknown and for one that leads inside: the difference would tell the names of an inner network.
    return FetchRefused(
        f"There is no public server at {host[:100]!r}. (The gateway's operator can allow one that is not public: GATEWAY_FETCH_ALLOW.)"
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address
