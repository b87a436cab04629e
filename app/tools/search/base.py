"""Shared by all search providers: requests to their JSON APIs, the order of providers, and the handling of failures.

A provider is one file with a constant `PROVIDER`, which `app.discovery` finds: its address, how it takes its key, and a
function from a query to results. Image search needs the same with another query and result, hence the type parameters.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

import msgspec
from pydantic import SecretStr

from app.settings import SearchProvider, Settings

if TYPE_CHECKING:
    import httpx2

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")
Freshness = Literal["day", "week", "month", "year"]

_log = logging.getLogger(__name__)
_REST_SECONDS = 30.0
_ANSWER_SECONDS = 10.0
_ANSWER_BYTES = 4 * 1024 * 1024
_CONNECTIONS = 32
_SITES = 8
_OK = 200
_OF_THIS_QUERY = frozenset({400, 413, 414, 422})
"""Statuses that concern the query and not the provider."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A web search query."""

    text: str
    limit: int = 10
    """Useful number of results; a provider may return fewer, or more."""
    chars: int = 1000
    """Useful length of a result's text: in characters for the provider; longer texts are cut to this many bytes."""
    allowed_domains: tuple[str, ...] = ()
    """Hosts, including subdomains; a hint for the provider, the caller filters the results."""
    language: str | None = None
    """ISO 639-1, lower case."""
    country: str | None = None
    """ISO 3166-1 alpha-2, upper case."""
    freshness: Freshness | None = None


class Result(msgspec.Struct, frozen=True):
    """A page that was found."""

    title: str
    url: str
    snippet: str
    content: str | None = None
    """More of the page's text than the snippet, if the provider has it."""
    published: str | None = None
    """In the provider's format."""


def sited(query: Query) -> str:
    """The text with its domains as `site:` operators, for services without a parameter for them.

    Many domains would fill the query.
    """
    if not 0 < len(query.allowed_domains) <= _SITES:
        return query.text
    sites = " OR ".join(f"site:{domain}" for domain in query.allowed_domains)
    return f"{query.text} ({sites})" if len(query.allowed_domains) > 1 else f"{query.text} {sites}"


class SearchFailed(Exception):
    """A provider gave no usable answer; the message contains neither the key nor the query."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, if there was one."""


class Api:
    """One provider's JSON API: its address, its key, and the limits of requests."""

    def __init__(self, base_url: str, headers: Mapping[str, str], client: Callable[[], httpx2.AsyncClient]) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"accept": "application/json", "accept-encoding": "gzip", **headers}
        self._client = client

    async def get(
        self, path: str, params: Mapping[str, str | int], answer: type[T], *, headers: Mapping[str, str] | None = None
    ) -> T:
        """The JSON answer as `answer`. Raises SearchFailed."""
        return await self._ask(answer, "GET", path, params=params, headers=headers)

    async def post(
        self, path: str, body: Mapping[str, object], answer: type[T], *, headers: Mapping[str, str] | None = None
    ) -> T:
        """The JSON answer, as `answer`, to a request with a JSON body. Raises SearchFailed."""
        content = msgspec.json.encode(body)
        return await self._ask(
            answer, "POST", path, content=content, headers={"content-type": "application/json", **(headers or {})}
        )

    async def _ask(
        self, answer: type[T], method: str, path: str, *, headers: Mapping[str, str] | None, **what: Any
    ) -> T:
        import httpx2  # noqa: PLC0415 - 10 MiB and 0.1 s that a gateway without searches need not pay

        try:
            request = self._client().build_request(
                method, self._base_url + path, headers={**self._headers, **(headers or {})}, **what
            )
            async with asyncio.timeout(_ANSWER_SECONDS):
                body = await self._read(request)
            return msgspec.json.decode(body, type=answer)
        except TimeoutError:
            raise SearchFailed(f"no whole answer within {_ANSWER_SECONDS:g} s") from None
        except httpx2.HTTPError as error:  # its text can contain the address, and with it the query
            raise SearchFailed(f"no answer ({type(error).__name__})") from None
        except UnicodeEncodeError:
            raise SearchFailed("its key cannot be sent: expected ASCII characters only") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SearchFailed(f"the answer is not the expected JSON ({type(error).__name__})") from None

    async def _read(self, request: httpx2.Request) -> bytes:
        response = await self._client().send(request, stream=True)
        try:
            if response.status_code != _OK:
                raise SearchFailed(f"status {response.status_code}", status=response.status_code)
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                _check(len(body))
            return _decoded(bytes(body), response.headers.get("content-encoding", ""))
        finally:
            await response.aclose()


def _decoded(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise SearchFailed("the answer has an encoding that was not requested")
    try:
        plain = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(body, _ANSWER_BYTES + 1)
    except zlib.error:
        raise SearchFailed("the answer is not valid gzip, which it declares") from None
    _check(len(plain))
    return plain


def _check(size: int) -> None:
    if size > _ANSWER_BYTES:
        raise SearchFailed(f"the answer is larger than {_ANSWER_BYTES} bytes")


class Provider(msgspec.Struct, Generic[Q, R], frozen=True, kw_only=True):
    """One search service."""

    ask: Callable[[Api, Q], Awaitable[Sequence[R]]]
    """The results, best first. Raises SearchFailed."""
    address: str | None = None
    """The service's address; None: it is in the settings (`searxng_url`)."""
    sign: Callable[[str], Mapping[str, str]] | None = None
    """The headers that contain the key; None: it needs no key."""


class WebProvider(Provider[Query, Result], frozen=True, kw_only=True):
    """A provider of pages: what the modules of this package export as `PROVIDER`."""


def bearer(key: str) -> Mapping[str, str]:
    """The key's header in the usual form."""
    return {"authorization": f"Bearer {key}"}


class Account(msgspec.Struct, frozen=True):
    """A provider that the settings enable."""

    name: SearchProvider
    base_url: str
    key: SecretStr | None


def accounts(settings: Settings, found: Mapping[str, Provider[Q, R]]) -> list[Account]:
    """The usable ones of the providers `found` (by name), in the order in which they are asked."""
    names = dict.fromkeys(settings.search_providers or get_args(SearchProvider))
    usable = (_account(settings, name, found[name]) for name in names if name in found)
    return [account for account in usable if account is not None]


def _account(settings: Settings, name: SearchProvider, provider: Provider[Q, R]) -> Account | None:
    address = settings.search_base_urls.get(name) or (settings.searxng_url if name == "searxng" else provider.address)
    key: SecretStr | None = getattr(settings, f"{name}_api_key", None)
    return None if address is None or (provider.sign and key is None) else Account(name, address, key)


class Providers(Generic[Q, R]):
    """Search services in order: the first with results answers.

    After a failure a service is not asked for 30 seconds, as long as there is another one.
    """

    def __init__(
        self, settings: Settings, found: Mapping[str, Provider[Q, R]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Opens no connection."""
        self._clock = clock
        self._client: httpx2.AsyncClient | None = None
        self._rests_until: dict[str, float] = {}
        self._asks: dict[str, Callable[[Q], Awaitable[Sequence[R]]]] = {
            account.name: self._bound(account, found[account.name]) for account in accounts(settings, found)
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The usable ones; empty: nothing is configured."""
        return tuple(self._asks)

    async def search(self, query: Q) -> Sequence[R]:
        """Results, best first; empty if no service has any.

        Raises SearchFailed if all services that were asked failed.
        """
        failures: list[str] = []
        answered = False
        for name in self._to_ask():
            try:
                results = await self._asks[name](query)
            except SearchFailed as failure:
                _log.warning("search provider %s: %s", name, failure)
                failures.append(f"{name}: {failure}")
                if failure.status not in _OF_THIS_QUERY:
                    self._rests_until[name] = self._clock() + _REST_SECONDS
                continue
            self._rests_until.pop(name, None)
            if results:
                return results
            answered = True
        if not answered:
            raise SearchFailed("; ".join(failures))
        return ()

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _to_ask(self) -> Sequence[str]:
        now = self._clock()
        return [name for name in self._asks if self._rests_until.get(name, now) <= now] or list(self._asks)

    def _bound(self, account: Account, provider: Provider[Q, R]) -> Callable[[Q], Awaitable[Sequence[R]]]:
        signed: Mapping[str, str] = {}
        if provider.sign and account.key:
            signed = provider.sign(account.key.get_secret_value())
        api = Api(account.base_url, signed, self._open_client)
        return lambda query: provider.ask(api, query)

    def _open_client(self) -> httpx2.AsyncClient:
        if self._client is None:
            import httpx2  # noqa: PLC0415 - as above

            logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log every address, including the query
            self._client = httpx2.AsyncClient(
                timeout=_ANSWER_SECONDS, limits=httpx2.Limits(max_connections=_CONNECTIONS)
            )
        return self._client
