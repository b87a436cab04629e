"""A request's search options: a validated entry of `tools`.

The fields are OpenAI's, plus `freshness`. Two of them are interpreted as follows:

- `external_web_access: false` and `indexed_web_access: true` mean "no live pages": searching still works, since a
  search service answers from its index, but opening pages is not offered;
- `search_content_types` may contain `image`; only text is returned, since images have their own tools.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import parse_entry
from app.tools.search.base import Freshness
from app.tools.search.results import host_name

_LONGEST_PLACE = 100
_MOST_DOMAINS = 100
_COUNTRY = re.compile(r"[A-Za-z]{2}\Z")
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+\Z")
_FRESHNESS: dict[str, Freshness | None] = {
    "day": "day",
    "week": "week",
    "month": "month",
    "year": "year",
    "oneDay": "day",
    "oneWeek": "week",
    "oneMonth": "month",
    "oneYear": "year",
    "noLimit": None,
}


class Size(msgspec.Struct, frozen=True):
    """How much the model reads."""

    results: int
    each: int
    """Bytes of one result's text."""
    page: int
    """Bytes of an opened page's text."""


_SIZES = {"low": Size(5, 600, 8_000), "medium": Size(8, 1500, 20_000), "high": Size(15, 2800, 40_000)}


class _Filters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    allowed_domains: tuple[str, ...] | None = None


class _Location(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["approximate"] | None = "approximate"
    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    filters: _Filters | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: _Location | None = None
    freshness: (
        Literal["day", "week", "month", "year", "oneDay", "oneWeek", "oneMonth", "oneYear", "noLimit"]
        | msgspec.UnsetType
        | None
    ) = msgspec.UNSET
    """Bocha's names are accepted, too."""
    external_web_access: bool | msgspec.UnsetType | None = msgspec.UNSET
    indexed_web_access: bool | msgspec.UnsetType | None = msgspec.UNSET
    search_content_types: tuple[Literal["text", "image"], ...] | msgspec.UnsetType | None = msgspec.UNSET


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A request's search options."""

    size: Size
    domains: tuple[str, ...] = ()
    """Hosts in ASCII and lower case, including subdomains; empty: the whole web."""
    country: str | None = None
    """ISO 3166-1 alpha-2, upper case."""
    place: str = ""
    """The user's location, for the model."""
    freshness: Freshness | None = None
    opens_pages: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether the vendor's own tool, which has no options, would do the same.

        The size is a hint that it may ignore.
        """
        return self.opens_pages and not (self.domains or self.country or self.place or self.freshness)


def parse_options(raw: msgspec.Raw, place: str) -> tuple[Options, msgspec.Raw]:
    """The options of the entry at `place`, and the entry with the values in effect.

    Raises InvalidRequest naming the field.
    """
    entry = parse_entry(raw, _Entry, place)
    location = entry.user_location or _Location()
    country = _country(location.country, f"{place}.user_location.country")
    options = Options(
        size=_SIZES[entry.search_context_size or "medium"],
        domains=_domains(entry.filters, f"{place}.filters.allowed_domains"),
        country=country,
        place=_whereabouts(location, country, f"{place}.user_location"),
        freshness=_FRESHNESS[entry.freshness] if entry.freshness else None,
        opens_pages=entry.external_web_access is not False and entry.indexed_web_access is not True,
    )
    return options, _echo(entry, options)


def _echo(entry: _Entry, options: Options) -> msgspec.Raw:
    shown = msgspec.structs.replace(
        entry,
        filters=_Filters(options.domains) if options.domains else None,
        search_context_size=entry.search_context_size or "medium",
        freshness=options.freshness or msgspec.UNSET,
        search_content_types=("text",) if entry.search_content_types else msgspec.UNSET,
    )
    return msgspec.Raw(msgspec.json.encode(shown))


def _country(given: str | None, place: str) -> str | None:
    if not given:
        return None
    if not _COUNTRY.match(given):
        raise InvalidRequest(
            f"Invalid '{place}': expected two letters (ISO 3166-1), like 'DE'.", code="invalid_value", param=place
        )
    return given.upper()


def _whereabouts(location: _Location, country: str | None, place: str) -> str:
    names = [name for name in (location.city, location.region, country) if name]
    if location.timezone:
        names.append(f"time zone {location.timezone}")
    for name in names:
        if len(name) > _LONGEST_PLACE or not name.isprintable():
            message = f"Invalid '{place}': expected names of at most {_LONGEST_PLACE} printable characters."
            raise InvalidRequest(message, code="invalid_value", param=place)
    return ", ".join(names)


def _domains(filters: _Filters | None, place: str) -> tuple[str, ...]:
    given = (filters and filters.allowed_domains) or ()
    if len(given) > _MOST_DOMAINS:
        raise InvalidRequest(
            f"Invalid '{place}': expected at most {_MOST_DOMAINS} domains.", code="invalid_value", param=place
        )
    return tuple(dict.fromkeys(_domain(name, f"{place}[{i}]") for i, name in enumerate(given)))


def _domain(given: str, place: str) -> str:
    try:
        name = host_name(given.strip())
    except ValueError:
        name = ""
    if not _HOST.match(name):
        raise InvalidRequest(
            f"Invalid '{place}': expected a domain without scheme, like 'example.com'.",
            code="invalid_value",
            param=place,
        )
    return name
