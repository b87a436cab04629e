"""Results of several searches merged into one list: only allowed pages, without duplicates, best first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from app.shortening import beginning
from app.tools.search.base import Query, Result

_LONGEST_URL = 2000
_LONGEST_TITLE = 300
_TRACKING = ("utm_", "gclid", "fbclid", "msclkid", "spm")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_RANK_OFFSET = 60
"""Of reciprocal rank fusion; its authors' value (Cormack, Clarke, Büttcher 2009)."""


def is_allowed(url: str, domains: Sequence[str]) -> bool:
    """Whether it is an http(s) address on one of the hosts or a subdomain of one; no domains: on any host."""
    if len(url) > _LONGEST_URL or "\\" in url or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        host = host_name(parts.hostname or "")
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or not host:
        return False
    return not domains or any(host == domain or host.endswith(f".{domain}") for domain in domains)


def host_name(name: str) -> str:
    """A host's name normalized for comparison: lower case, in ASCII, without the trailing dot.

    Raises ValueError for an invalid one.
    """
    return name.rstrip(".").encode("idna").decode().lower()


def tidied(results: Iterable[Result], query: Query) -> tuple[Result, ...]:
    """The usable results of a provider, cut to the requested lengths."""
    return tuple(
        msgspec.structs.replace(
            found,
            title=beginning(" ".join(found.title.split()), _LONGEST_TITLE, "…"),
            snippet=beginning(found.snippet.strip(), query.chars, "…"),
            content=beginning(found.content.strip(), query.chars, "…") if found.content else None,
            published=beginning(found.published, _LONGEST_TITLE, "…") if found.published else None,
        )
        for found in results
        if is_allowed(found.url, query.allowed_domains)
    )


def merged(lists: Iterable[Sequence[Result]], limit: int) -> list[Result]:
    """One list from several rankings, by reciprocal rank fusion; of duplicates, the first is kept."""
    scores: dict[str, float] = {}
    pages: dict[str, Result] = {}
    for ranking in lists:
        ranked = {key: found for found in reversed(ranking) if (key := _identity(found.url))}
        for rank, (key, found) in enumerate(reversed(ranked.items())):
            scores[key] = scores.get(key, 0.0) + 1 / (_RANK_OFFSET + rank)
            pages.setdefault(key, found)
    best = sorted(scores, key=lambda key: -scores[key])
    return [pages[key] for key in best[:limit]]


def _identity(url: str) -> str:
    """Equal for addresses that differ only in irrelevant parts."""
    parts = urlsplit(url)
    host = host_name(parts.hostname or "").removeprefix("www.")
    port = f":{parts.port}" if parts.port not in (None, _DEFAULT_PORTS.get(parts.scheme)) else ""
    kept = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if not name.startswith(_TRACKING)
    ]
    return f"{host}{port}{parts.path.rstrip('/')}?{urlencode(kept)}"
