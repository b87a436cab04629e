"""The hosts and addresses to which the gateway may connect on behalf of a model or a request (protection against SSRF).

An address must be public according to IANA's special-purpose registries. The standard library's `is_global` is not
enough: depending on the release it accepts multicast, 6to4 and IPv4-mapped addresses, so there is a stricter rule here.
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
"""Host and port to addresses; raises OSError. Called once per connection."""

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
            "168.63.129.16/32",  # Azure's host, which serves metadata at a public address
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

# Lookups block; they have their own threads, so that slow name servers delay only other lookups.
_look_ups = ThreadPoolExecutor(max_workers=8, thread_name_prefix="look-up")


async def look_up(host: str, port: int) -> Sequence[str]:
    """The system's answer, in its order of preference."""
    found = await asyncio.get_running_loop().run_in_executor(_look_ups, _look_up, host, port)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _look_up(host: str, port: int) -> Sequence[tuple[object, object, object, object, tuple[object, ...]]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is on the public internet, and so is the IPv4 address embedded in it, if any.

    NAT64 (RFC 6052) counts as its IPv4 address, since IPv6-only networks reach the web through it; every other form
    with an embedded IPv4 address (mapped, compatible, 6to4, Teredo) has no use here and is refused.
    """
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        return address in _IPV6_GLOBAL and not any(address in network for network in _IPV6_REFUSED)
    return address.is_global and not (
        address.is_multicast or address.is_reserved or any(address in network for network in _IPV4_REFUSED)
    )


class AddressGuard:
    """Resolves a host to addresses that may be connected to."""

    def __init__(self, allow: Sequence[str] = (), *, resolve: Resolve = look_up) -> None:
        """`allow`: host names, addresses and networks exempt from the address check, and from nothing else.

        A name exempts whatever it resolves to; an address or network exempts its addresses, however they are reached.
        Raises ValueError for an entry that looks like an address or network but is invalid.
        """
        self._resolve = resolve
        entries = [entry.strip().strip("[]").lower().rstrip(".") for entry in allow]
        self._networks = tuple(
            ip_network(entry) for entry in entries if "/" in entry or ":" in entry or _address(entry) is not None
        )
        self._names = frozenset(entries)

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Every address of the host, checked; the caller connects to one of these and does not resolve again.

        Raises FetchRefused if any of them is not public: a name with both kinds is an attack.
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
        if address is None:  # with a zone (`fe80::1%eth0`), so it belongs to this machine's links
            return False
        return name in self._names or any(address in network for network in self._networks) or is_public(address)


def check_name(host: str) -> str:
    """The host as it is resolved: a plain name, or an address in its canonical notation, without brackets.

    Raises FetchRefused for what only some systems treat as an address (`2130706433`, `0x7f.1`, `0177.0.0.1`, `127.1`).
    """
    name = host.lower().removesuffix(".")
    if _address(name) is not None:
        return name
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise FetchRefused(f"{host[:100]!r} is not a valid host name.")
    return name


def check_port(port: int) -> None:
    """Raises FetchRefused for ports of mail, remote access and other system services: web servers use 80, 443 or one
    from 1024.
    """
    if port not in _WEB_PORTS and not _FIRST_USER_PORT <= port <= _LAST_PORT:
        raise FetchRefused(f"Port {port} is not allowed for web pages; use 80, 443 or one from 1024 to 65535.")


def _nothing_public(host: str) -> FetchRefused:
    # The same message for unknown names and for names with private addresses: a difference would reveal an internal
    # network's names.
    return FetchRefused(
        f"There is no public server at {host[:100]!r}. (The gateway's operator can allow one that is not public: "
        f"GATEWAY_FETCH_ALLOW.)"
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address
