"""The built-in model, and servers that speak OpenAI's `/embeddings`, real ones on the loopback."""

from __future__ import annotations

import json
import math
import threading
from array import array
from collections.abc import AsyncGenerator, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_args

import pytest

from app.knowledge.embed_http import HttpEmbedder
from app.knowledge.embed_local import MODELS, LocalEmbedder
from app.knowledge.ports.embedder import EmbeddingFailed
from app.knowledge.ports.passages import Vectors
from app.knowledge.relevance import SCALES
from app.settings import BuiltInEmbedding

OLD = "multilingual-e5-small"
Reply = tuple[int, dict[str, str], bytes]


class Server:
    """Answers with what `script` holds, then with the length of each text as its vector."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.script: list[Reply] = []
        self.url = ""

    def reply(self, headers: dict[str, str], body: dict[str, Any]) -> Reply:
        """Status, headers and body."""
        self.requests.append((headers, body))
        if self.script:
            return self.script.pop(0)
        data = [{"index": n, "embedding": [len(text), 1.0, 0.0]} for n, text in enumerate(body["input"])]
        return 200, {}, json.dumps({"data": data[::-1]}).encode()


@pytest.fixture
def server() -> Generator[Server]:
    """On a free port."""
    scripted = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/embeddings"
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, headers, answer = scripted.reply(
                {name.lower(): value for name, value in self.headers.items()}, body
            )
            self.send_response(status)
            for name, value in (*headers.items(), ("content-length", str(len(answer)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        scripted.url = f"http://127.0.0.1:{listening.server_port}/v1"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield scripted
        listening.shutdown()
        thread.join()


@pytest.fixture
async def embedder(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[HttpEmbedder]:
    """Of that server; it waits no time between tries."""
    monkeypatch.setattr("app.knowledge.embed_http._PAUSES", (0.0, 0.0, 0.0))
    opened = HttpEmbedder(server.url, model="text-embedding-v4", api_key="secret-key")
    yield opened
    await opened.aclose()


def rows(vectors: Vectors) -> list[list[float]]:
    """Row by row."""
    numbers = array("f", vectors.data).tolist()
    return [numbers[start : start + vectors.dimensions] for start in range(0, len(numbers), vectors.dimensions)]


async def test_texts_go_ten_at_a_time_and_come_back_in_order(server: Server, embedder: HttpEmbedder) -> None:
    found = await embedder.passages(["x" * n for n in range(1, 24)])
    assert [len(body["input"]) for _, body in server.requests] == [10, 10, 3]
    assert (found.model, found.dimensions) == ("text-embedding-v4", 3)
    assert [row[0] / row[1] for row in rows(found)] == pytest.approx(list(range(1, 24)), rel=1e-5)
    assert [math.hypot(*row) for row in rows(found)] == pytest.approx([1] * 23)
    headers, body = server.requests[0]
    assert headers["authorization"] == "Bearer secret-key"
    assert (body["model"], body["encoding_format"]) == ("text-embedding-v4", "float")


async def test_a_busy_server_is_asked_again(server: Server, embedder: HttpEmbedder) -> None:
    server.script = [(429, {"retry-after": "0"}, b"{}"), (503, {}, b"")]
    assert (await embedder.passages(["abc"])).dimensions == 3
    assert len(server.requests) == 3


async def test_a_question_is_asked_once_more_and_no_longer(server: Server, embedder: HttpEmbedder) -> None:
    server.script = [(503, {}, b"")] * 2
    with pytest.raises(EmbeddingFailed, match="503"):
        await embedder.query("abc")
    assert len(server.requests) == 2


_FAILURES: list[tuple[Reply, int, str]] = [
    ((503, {}, b"stack trace"), 4, "503"),
    ((401, {}, b"secret-key is wrong"), 1, "401"),
    ((200, {}, b"<html>"), 1, "cannot be parsed"),
    ((200, {}, b'{"data":[]}'), 1, "0 vectors for 1"),
    ((200, {}, b'{"data":[{"embedding":[null]}]}'), 1, "cannot be parsed"),
    ((200, {}, b'{"data":[{"embedding":[]}]}'), 1, "empty"),
]


@pytest.mark.parametrize(
    ("reply", "tries", "says"),
    _FAILURES,
)
async def test_what_does_not_pass_is_told_without_internals(
    server: Server, embedder: HttpEmbedder, reply: Reply, tries: int, says: str
) -> None:
    server.script = [reply] * tries
    with pytest.raises(EmbeddingFailed, match=says) as failed:
        await embedder.passages(["abc"])
    assert len(server.requests) == tries
    assert "secret" not in str(failed.value)


async def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.knowledge.embed_http._PAUSES", ())
    embedder = HttpEmbedder("http://127.0.0.1:9/v1", model="m", api_key=None)
    with pytest.raises(EmbeddingFailed, match="cannot be reached"):
        await embedder.query("abc")
    await embedder.aclose()


def test_every_built_in_model_can_be_chosen_and_its_scale_is_known() -> None:
    assert set(get_args(BuiltInEmbedding)) == set(MODELS) == set(SCALES)


async def test_the_store_says_which_built_in_model_is_used() -> None:
    embedder = LocalEmbedder()
    usual = await embedder.query("whale")
    assert (usual.model, usual.dimensions, len(usual.data)) == ("universal-sentence-encoder-multilingual-3", 512, 2048)
    earlier = [await embedder.query("whale", model=OLD), await embedder.passages(["whale"], model=OLD)]
    assert [(one.model, one.dimensions, len(one.data)) for one in earlier] == [(OLD, 384, 1536)] * 2
    assert (await embedder.passages(["whale"], model="of a server")).model == usual.model
    assert (await LocalEmbedder(OLD).query("whale")).model == OLD


@pytest.mark.parametrize(
    "text",
    ["", "\0", "\ud800 alone", "\ufdfa" * 20_000, "鲸" * 30_000],
    ids=["empty", "nul", "surrogate", "ligatures", "long"],
)
async def test_a_text_of_any_kind_has_a_vector(text: str) -> None:
    (vector,) = rows(await LocalEmbedder().query(text))
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("model", MODELS)
async def test_a_built_in_model_knows_what_is_meant_in_both_languages(model: str) -> None:
    embedder = LocalEmbedder(model)
    texts = [
        "The cat sleeps on the sofa.",
        "公司去年的营业收入增长了百分之十。",
        "Open the valve before you start the pump.",
    ]
    found = await embedder.passages(texts)

    async def nearest(question: str) -> int:
        (asked,) = rows(await embedder.query(question))
        likeness = [sum(a * b for a, b in zip(row, asked, strict=True)) for row in rows(found)]
        return likeness.index(max(likeness))

    assert await nearest("annual revenue growth") == 1
    assert await nearest("where is the kitten") == 0
    assert await nearest("启动水泵的步骤") == 2
    assert all(math.hypot(*row) == pytest.approx(1, abs=1e-5) for row in rows(found))
