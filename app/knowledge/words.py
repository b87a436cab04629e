"""The words of a text, as both databases index and look them up.

No database here segments Chinese: Postgres takes a whole run of it for one word, SQLite's `trigram` finds nothing of
two characters. So a run of Chinese, Japanese, Korean or Thai becomes its pairs of characters and its last character,
which makes every character the beginning of a word; other scripts are split at spaces and punctuation. Text joined by
punctuation (`XJ-9000/B`) is also indexed as one word without it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

_LONGEST = 64
"""Characters of a word; nothing longer is looked up."""

DENSE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
"""A character class: scripts written without spaces, and Korean, whose words include their endings."""

_PIECE = re.compile(rf"([{DENSE}]+)|[^\W_{DENSE}]+(?:[-_./:+#][^\W_{DENSE}]+)*")
_PART = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The distinct words of a text, in order, each of letters and digits, with case and width folded."""
    return list(dict.fromkeys(_words(text)))


def words_of_all(texts: Sequence[str]) -> list[str]:
    """The words of each text, joined by spaces."""
    return [" ".join(words(text)) for text in texts]


def is_beginning(word: str) -> bool:
    """Whether it is a single dense character, which is looked up as a prefix."""
    return len(word) == 1 and re.match(f"[{DENSE}]", word) is not None


def asked(text: str, limit: int) -> list[str]:
    """The words to look up, at most `limit`: those of the text, without the last characters of runs unless it is a
    run's only one.
    """
    found = list(dict.fromkeys(_words(text, ends=False)))
    return found[:limit]


def _words(text: str, *, ends: bool = True) -> Iterator[str]:
    for piece in _PIECE.finditer(unicodedata.normalize("NFKC", text).casefold()):
        written = piece[0]
        if piece[1]:
            yield from (written[at : at + 2] for at in range(len(written) - 1))
            if ends or len(written) == 1:
                yield written[-1]
            continue
        parts = _PART.findall(written)
        yield from (part[:_LONGEST] for part in parts)
        if len(parts) > 1:
            yield "".join(parts)[:_LONGEST]
