"""Log probabilities and counts of tokens."""

from __future__ import annotations

import msgspec


class Logprob(msgspec.Struct, frozen=True, gc=False):
    """One alternative for a token."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()


class TokenLogprob(msgspec.Struct, frozen=True):
    """One token of the answer with its alternatives, as `logprobs` carries it."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()
    top_logprobs: tuple[Logprob, ...] = ()


class TokenUsage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one model turn, as the upstream reports them."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
