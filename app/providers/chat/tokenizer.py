"""Counts the input tokens of a request by the tokenizer of the server that would answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar, cast

import msgspec

from app.providers.base import UpstreamProtocolError
from app.providers.errors import error_from_reply
from app.providers.http.upstream import ANSWER_LIMIT, ERROR_LIMIT, OK, client_for
from app.settings import Upstream

_JSON = "application/json"
_API = "/v1"
"""The end of a base URL; the tokenizer's paths are beside it."""
_IMAGES = frozenset({"image_url"})
_T = TypeVar("_T")


class _Request(msgspec.Struct):
    """The part of a Chat Completions request that becomes tokens."""

    model: str
    messages: list[dict[str, Any]]
    tools: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    chat_template_kwargs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Text(msgspec.Struct):
    """The request of a tokenizer of text: what chat templates write is a token, and so is the beginning."""

    model: str
    content: str
    add_special: bool = True
    parse_special: bool = True


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    """llama.cpp has no `count`."""

    tokens: list[msgspec.Raw]
    count: int | None = None


class TokenizerClient:
    """The tokenizer of one server: `/tokenize` of vLLM takes messages, that of llama.cpp text."""

    def __init__(self, upstream: Upstream, kind: Literal["of messages", "of text"]) -> None:
        root = upstream.base_url.rstrip("/").removesuffix(_API)
        self._client = client_for(upstream.model_copy(update={"base_url": root}))
        self._kind = kind

    async def count(self, request: Sequence[bytes]) -> int:
        """The tokens of a Chat Completions request, given in pieces, without its images. Raises UpstreamError."""
        asked = msgspec.json.decode(b"".join(request), type=_Request)
        for message in asked.messages:
            _leave_out_images(message)
        if self._kind == "of messages":
            told = await self._post("/tokenize", asked, _Tokens)
        else:
            prompt = (await self._post("/apply-template", asked, _Prompt)).prompt
            told = await self._post("/tokenize", _Text(asked.model, prompt), _Tokens)
        return len(told.tokens) if told.count is None else told.count

    async def aclose(self) -> None:
        """Close the HTTP connections."""
        await self._client.aclose()

    async def _post(self, path: str, body: msgspec.Struct, kind: type[_T]) -> _T:
        reply = await self._client.post(path, msgspec.json.encode(body), accept=_JSON)
        try:
            if reply.status != OK:
                raise error_from_reply(reply.status, reply.headers, await reply.read(ERROR_LIMIT))
            answer = await reply.read(ANSWER_LIMIT)
        finally:
            reply.close()
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamProtocolError(
                f"The upstream's answer to {path} cannot be parsed.", retryable=False
            ) from error


def _leave_out_images(message: dict[str, Any]) -> None:
    """Images become tokens by a rule of their own, which no tokenizer of texts knows."""
    if isinstance(content := message.get("content"), list):
        parts = cast("list[dict[str, Any]]", content)
        message["content"] = [part for part in parts if part.get("type") not in _IMAGES]
