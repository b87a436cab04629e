"""Finds marks such as `</think>` in a text that comes in pieces. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def settled(text: str, marks: Sequence[str]) -> int:
    """Length of the beginning of `text` that can no longer become part of a mark.

    Each mark begins with its only `<`.
    """
    last = text.rfind("<")
    return last if last >= 0 and any(mark.startswith(text[last:]) for mark in marks) else len(text)
