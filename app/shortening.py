"""Shortens texts to a number of bytes of UTF-8, in whole characters."""

from __future__ import annotations


def beginning(text: str, size: int, mark: str = "") -> str:
    """At most `size` bytes of it, which is about the same number of tokens in every language, and `mark` if something
    is missing.
    """
    encoded, size = text.encode(errors="replace"), max(size, 0)
    if len(encoded) <= size:
        return text
    return encoded[:size].decode(errors="ignore") + mark


def without_middle(text: str, size: int) -> str:
    """Its first and last `size` / 2 bytes, with a note of what is missing between them."""
    encoded, half = text.encode(errors="replace"), max(size, 0) // 2
    if len(encoded) <= size:
        return text
    end = encoded[len(encoded) - half :]
    note = f"\n[… {len(encoded) - 2 * half} bytes are left out here …]\n"
    return encoded[:half].decode(errors="ignore") + note + end.decode(errors="ignore")


def printable(text: str) -> str:
    """With a question mark for each character that would change how the rest is shown."""
    return "".join(char if char.isprintable() else "?" for char in text)
