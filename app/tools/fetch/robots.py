"""robots.txt according to RFC 9309: the group of our product token or else of `*`, the longest matching rule, `*` and
`$` in rules.

The standard library's parser supports neither the longest match nor wildcards, and regular expressions built from
untrusted rules can take forever; matching here is linear.
"""

from __future__ import annotations

import re
import string
from urllib.parse import quote

import msgspec

MOST_BYTES = 500 * 1024
"""The rest is ignored (RFC 9309, 2.5, requires at least this much)."""
_MOST_RULES = 10_000
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_TOKEN = re.compile(r"[a-z_-]*")


class Robots(msgspec.Struct, frozen=True):
    """The rules for one product: pattern, and whether it allows."""

    rules: tuple[tuple[str, bool], ...] = ()

    @property
    def size(self) -> int:
        """Characters of all patterns."""
        return 100 + sum(len(pattern) + 100 for pattern, _ in self.rules)

    def allows(self, target: str) -> bool:
        """Whether a path with its query may be fetched. If an allow and a disallow rule are equally long, it may."""
        path = _normal(target)
        matching = [(len(pattern), allowed) for pattern, allowed in self.rules if _matches(pattern, path)]
        return max(matching, default=(0, True))[1]


def parse(content: bytes, product: str) -> Robots:
    """The rules for `product`, a lower-case token."""
    groups: dict[str, list[tuple[str, bool]]] = {}
    agents: list[str] = []
    in_rules = False
    for line in content[:MOST_BYTES].decode("utf-8-sig", "replace").splitlines():
        field, colon, rest = line.partition("#")[0].partition(":")
        name, value = field.strip().lower(), rest.strip()
        if not colon:
            continue
        if name == "user-agent":
            agents = [] if in_rules else agents
            in_rules = False
            agent = "*" if value.startswith("*") else _token(value)
            agents.append(agent)
            groups.setdefault(agent, [])
        elif name in {"allow", "disallow"}:
            in_rules = True
            for agent in {product, "*"}.intersection(agents if value else ()):
                groups[agent].append((_normal(quote(value, safe="%/*$?&=+,;:@!'()[]~")), name == "allow"))
    return Robots(tuple(groups.get(product, groups.get("*", []))[:_MOST_RULES]))


def _token(value: str) -> str:
    found = _TOKEN.match(value.lower())
    return found[0] if found else ""


def _normal(path: str) -> str:
    """A single spelling for what may be written with and without an escape."""

    def spell(escape: re.Match[str]) -> str:
        character = chr(int(escape[1], 16))
        return character if character in _UNRESERVED else escape[0].upper()

    return _ESCAPE.sub(spell, path)


def _matches(pattern: str, path: str) -> bool:
    to_end = pattern.endswith("$")
    first, *pieces = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    if not pieces:
        return at == len(path) or not to_end
    last = pieces.pop() if to_end else ""
    for piece in pieces:
        at = path.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return path.endswith(last) and len(path) - len(last) >= at
