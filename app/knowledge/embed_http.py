"""Embeddings from any server that speaks OpenAI's `/embeddings`:

DashScope (text-embedding-v4), vLLM, SGLang, Ollama, llama.cpp.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from app.knowledge.ports.embedder import EmbeddingFailed
from app.knowledge.ports.passages import Vectors

if TYPE_CHECKING:
    import httpx

_AT_ONCE = 10
"""Texts per request: DashScope's maximum."""
_SECONDS = 60.0
_MOST_BYTES = 16 * 1024 * 1024
"""Of a response: ten vectors take less than one."""
_PAUSES = (0.5, 2.0, 8.0)
"""Seconds before each retry."""
_LONGEST_PAUSE = 30.0
_TOO_MANY, _SERVER_ERROR = 429, 500
_OK = 200


class _One(msgspec.Struct, frozen=True):
    embedding: tuple[float, ...]
    index: int = 0


class _Answer(msgspec.Struct, frozen=True):
    data: tuple[_One, ...]


_decode = msgspec.json.Decoder(_Answer).decode


class HttpEmbedder:
    """Embeddings from a server with OpenAI's API. The length of vectors is taken from its responses."""

    def __init__(self, base_url: str, *, model: str, api_key: str | None) -> None:
        """`base_url`: up to and including `/v1`."""
        self._url = f"{base_url.rstrip('/')}/embeddings"
        self._model = model
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client: httpx.AsyncClient | None = None

    async def passages(self, texts: Sequence[str], *, model: str | None = None) -> Vectors:
        """Vectors of passages, with retries. The server has one model."""
        del model
        return await self._vectors(texts, _PAUSES)

    async def query(self, text: str, *, model: str | None = None, project: str = "") -> Vectors:
        """The vector of a query.

        A request waits for it, so there is only one retry. The server has one model, and no fair scheduling.
        """
        del model, project
        return await self._vectors([text], _PAUSES[:1])

    async def _vectors(self, texts: Sequence[str], pauses: Sequence[float]) -> Vectors:
        rows = [
            row
            for start in range(0, len(texts), _AT_ONCE)
            for row in await self._embed(texts[start : start + _AT_ONCE], pauses)
        ]
        dimensions = len(rows[0]) if rows else 0
        if any(len(row) != dimensions for row in rows) or (texts and not dimensions):
            raise EmbeddingFailed("the embeddings server returned vectors that are empty or of different lengths")
        return Vectors(self._model, dimensions, b"".join(_unit(row) for row in rows))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _embed(self, texts: Sequence[str], pauses: Sequence[float]) -> list[tuple[float, ...]]:
        body = msgspec.json.encode({"model": self._model, "input": texts, "encoding_format": "float"})
        answer = await self._post(body, pauses)
        try:
            found = sorted(_decode(answer).data, key=lambda one: one.index)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EmbeddingFailed("the embeddings server's response cannot be parsed") from error
        if len(found) != len(texts):
            raise EmbeddingFailed(f"the embeddings server returned {len(found)} vectors for {len(texts)} texts")
        return [one.embedding for one in found]

    async def _post(self, body: bytes, pauses: Sequence[float]) -> bytes:
        """The response, with retries if a server is busy or unreachable. Raises EmbeddingFailed."""
        trouble = ""
        for pause in (*pauses, None):
            wait, answer = await self._try(body)
            if isinstance(answer, bytes):
                return answer
            trouble = answer
            if pause is None or wait is None:
                break
            await asyncio.sleep(min(max(pause, wait), _LONGEST_PAUSE))
        raise EmbeddingFailed(trouble)

    async def _try(self, body: bytes) -> tuple[float | None, bytes | str]:
        """The response's bytes, or an error message.

        And how long to wait before the next attempt, None if there is no use in one.
        """
        import httpx  # noqa: PLC0415 - only used with an embeddings server

        if self._client is None:
            self._client = httpx.AsyncClient(
                headers={"content-type": "application/json", **self._headers}, timeout=_SECONDS
            )
        answer = bytearray()
        try:
            async with self._client.stream("POST", self._url, content=body) as response:
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    if len(answer) > _MOST_BYTES:
                        return None, "the embeddings server's response is too large"
        except httpx.HTTPError as error:
            return 0, f"the embeddings server cannot be reached ({type(error).__name__})"
        if response.status_code == _OK:
            return 0, bytes(answer)
        worth = response.status_code == _TOO_MANY or response.status_code >= _SERVER_ERROR
        return (
            _seconds(response.headers.get("retry-after")) if worth else None
        ), f"the embeddings server returned {response.status_code}"


def _seconds(header: str | None) -> float:
    return float(header) if header and header.isascii() and header.isdigit() else 0


def _unit(row: Sequence[float]) -> bytes:
    length = math.hypot(*row) or 1.0
    return array("f", [number / length for number in row]).tobytes()
