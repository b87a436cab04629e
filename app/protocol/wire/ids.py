"""Identifiers: responses with UUIDs of version 7, items with ids that encode where they are stored, and calls.

An item id is its type's prefix and 48 hex digits: 32 of the response's UUID, 8 of the position, 8 that hold the
direction (the top bit: 1 for output) and a 31-bit checksum of the rest. So an item is found without an index, and
foreign ids, such as the 48 digits of the original API, are not mistaken for this gateway's.
"""

from __future__ import annotations

import re
from zlib import crc32

import msgspec

_RANDOM_BYTES = 10
_TIME_BITS = 48
_POSITION_BITS = 32
_OUTPUT = 1 << 31
_CHECKSUM = _OUTPUT - 1

_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "local_shell_call": "lsh",
    "local_shell_call_output": "lsho",
    "shell_call": "sh",
    "shell_call_output": "sho",
    "apply_patch_call": "apc",
    "apply_patch_call_output": "apco",
    "tool_search_call": "tsc",
    "tool_search_output": "tso",
    "additional_tools": "at",
    "image_generation_call": "ig",
    "web_search_call": "ws",
    "file_search_call": "fs",
    "code_interpreter_call": "ci",
    "web_extractor_call": "we",
    "web_search_image_call": "wsi",
    "image_search_call": "is",
    "x_tool_call": "tc",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
    "compaction": "cmp",
}

_UUID = re.compile(
    r"(?:resp_)?([0-9a-f]{8})(-?)([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{12})", re.ASCII | re.IGNORECASE
)
_ITEM = re.compile(
    r"[a-z]+_(([0-9a-f]{8})([0-9a-f]{4})(7[0-9a-f]{3})([89ab][0-9a-f]{3})([0-9a-f]{12})([0-9a-f]{8}))([0-9a-f]{8})"
)


class ItemLocation(msgspec.Struct, frozen=True, gc=False):
    """Where an item is stored: the response, its input or output, and the position in that list, from 0."""

    response_id: str
    output: bool
    position: int


def response_id(now_ms: int, random: bytes) -> str:
    """A UUID version 7 (RFC 9562, 5.7) in canonical text, from the Unix time in milliseconds and ten random bytes."""
    if len(random) != _RANDOM_BYTES or now_ms >> _TIME_BITS:
        raise ValueError("a response id takes 48 bits of time and 10 random bytes")
    bits = int.from_bytes(random)
    digits = f"{now_ms:012x}{0x7000 | bits >> 64 & 0xFFF:x}{1 << 63 | bits & (1 << 62) - 1:x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def normalize_response_id(text: str) -> str | None:
    """The canonical id for any spelling (with or without hyphens, `resp_`, capitals); None if it is not an id."""
    match = _UUID.fullmatch(text)
    return "-".join(match.group(1, 3, 4, 5, 6)).lower() if match else None


def created_at(response_id: str) -> float:
    """When the canonical id was made, in seconds of Unix time."""
    return int(response_id[:8] + response_id[9:13], 16) / 1000


def conversation_id(now_ms: int, random: bytes) -> str:
    """The id of a new conversation: `conv_` and 48 hex digits. Arguments as for `response_id`."""
    return item_id("conv", response_id(now_ms, random), 0, output=False)


def item_prefix(item_type: str) -> str:
    """The prefix of ids of items of this type; types without their own prefix share `item`."""
    return _PREFIXES.get(item_type, "item")


def item_id(prefix: str, response_id: str, position: int, *, output: bool) -> str:
    """The id of the item at `position` of the response's output, or of its input. Takes a canonical response id."""
    if position >> _POSITION_BITS:
        raise ValueError("the position of an item has 32 bits")
    place = f"{response_id.replace('-', '')}{position:08x}"
    mark = crc32(place.encode()) & _CHECKSUM
    return f"{prefix}_{place}{mark | _OUTPUT if output else mark:08x}"


def locate(item_id: str) -> ItemLocation | None:
    """Where the item with this id is stored; None for an id that `item_id` did not create."""
    match = _ITEM.fullmatch(item_id)
    if match is None:
        return None
    place, *uuid, position, mark = match.groups()
    bits = int(mark, 16)
    if crc32(place.encode()) & _CHECKSUM != bits & _CHECKSUM:
        return None
    return ItemLocation("-".join(uuid), output=bits >= _OUTPUT, position=int(position, 16))


def call_id(response_id: str, position: int) -> str:
    """The id of the call at `position` of the response: `call_` and 32 hex digits, unique because the UUID's random
    part is.

    The position replaces the top 16 bits of the UUID's time, which change only every 49 days.
    """
    return f"call_{response_id.replace('-', '')[4:]}{position:04x}"


def new_id(response_id: str, prefix: str, position: int) -> str:
    """The id of a new object at `position` of the output: a call if the prefix is `call`, otherwise an item."""
    if prefix == "call":
        return call_id(response_id, position)
    return item_id(prefix, response_id, position, output=True)
