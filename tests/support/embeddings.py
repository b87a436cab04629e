"""An embedding server for tests, which can be held up."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class EmbeddingServer(ThreadingHTTPServer):
    """Knows two words; its answers wait until it is open."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Embeddings)
        self.open = threading.Event()
        self.asked = threading.Event()

    @property
    def settings(self) -> dict[str, str]:
        """Of a gateway that uses it."""
        return {"embeddings_base_url": f"http://127.0.0.1:{self.server_port}/v1", "embeddings_model": "words"}


class _Embeddings(BaseHTTPRequestHandler):
    server: EmbeddingServer  # type: ignore[assignment] - the class above

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        self.server.asked.set()
        self.server.open.wait(60)
        vectors = [[float("whale" in text), 1.0] for text in ([texts] if isinstance(texts, str) else texts)]
        data = [{"object": "embedding", "index": number, "embedding": vector} for number, vector in enumerate(vectors)]
        body = json.dumps(
            {"object": "list", "data": data, "model": "words", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving_embeddings() -> Generator[EmbeddingServer]:
    """Serve on a free port while the block runs."""
    server = EmbeddingServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.open.set()
        server.shutdown()
        thread.join()
        server.server_close()
