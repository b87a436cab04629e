"""A small S3 server over HTTP with the calls of an object store: put, multipart, get, copy, list, delete; signatures
are checked.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import md5, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

KEY_ID = "test-id"
SECRET = "test-secret"


class S3Server(ThreadingHTTPServer):
    """Buckets in memory; any bucket exists."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        """By `/bucket/key`."""
        self.uploads: dict[str, dict[int, bytes]] = {}
        """Parts of unfinished multipart uploads."""
        self.largest_body = 0
        self.down = False

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving_s3() -> Generator[S3Server]:
    """The server while the block runs."""
    server = S3Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: S3Server  # type: ignore[assignment] - the class above
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle_one_request(self) -> None:
        self.body = b""
        super().handle_one_request()

    def do_PUT(self) -> None:
        if not self._begin():
            return
        source = self.headers.get("x-amz-copy-source")
        if "uploadId" in self.query:
            self.server.uploads[self.query["uploadId"]][int(self.query["partNumber"])] = self.body
        elif source is not None:
            found = self.server.objects.get("/" + unquote(source).lstrip("/"))
            if found is None:
                self._answer(404, "<Error><Code>NoSuchKey</Code></Error>")
                return
            self.server.objects[self.key] = found
            self._answer(200, f"<CopyObjectResult><ETag>{_tag(found)}</ETag></CopyObjectResult>")
            return
        else:
            self.server.objects[self.key] = self.body
        self._answer(200, "", etag=_tag(self.body))

    def do_POST(self) -> None:
        if not self._begin():
            return
        if "uploads" in self.query:
            upload = f"upload-{len(self.server.uploads)}-{self.key[-8:]}"
            self.server.uploads[upload] = {}
            self._answer(
                200, f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            )
        elif "delete" in self.query:
            keys = [part.partition("</Key>")[0] for part in self.body.decode().split("<Key>")[1:]]
            bucket = self.key.split("/")[1]
            for key in keys:
                self.server.objects.pop(f"/{bucket}/{key}", None)
            gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            self._answer(200, f"<DeleteResult>{gone}</DeleteResult>")
        else:
            parts = self.server.uploads.pop(self.query["uploadId"])
            whole = b"".join(parts[number] for number in sorted(parts))
            self.server.objects[self.key] = whole
            self._answer(
                200, f"<CompleteMultipartUploadResult><ETag>{_tag(whole)}</ETag></CompleteMultipartUploadResult>"
            )

    def do_GET(self) -> None:
        if not self._begin():
            return
        if self.query.get("list-type") == "2":
            self._list()
            return
        found = self.server.objects.get(self.key)
        if found is None:
            self._answer(404, "<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._answer(200, found, etag=_tag(found))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        if not self._begin():
            return
        if "uploadId" in self.query:
            self.server.uploads.pop(self.query["uploadId"], None)
        else:
            self.server.objects.pop(self.key, None)
        self._answer(204, "")

    def _begin(self) -> bool:
        """Read the request; False if it was refused."""
        url = urlsplit(self.path)
        self.key = unquote(url.path).rstrip("/")
        self.query = dict(parse_qsl(url.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.largest_body = max(self.server.largest_body, len(self.body))
        if self.server.down:
            self._answer(400, "<Error><Code>Down</Code></Error>")
            return False
        if not self._is_signed():
            self._answer(403, "<Error><Code>SignatureDoesNotMatch</Code></Error>")
            return False
        return True

    def _list(self) -> None:
        prefix = f"{self.key}/{self.query.get('prefix', '')}"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        found = "".join(
            f"<Contents><Key>{escape(name[len(self.key) + 1 :])}</Key><LastModified>{now}</LastModified>"
            f"<Size>{len(content)}</Size><ETag>{_tag(content)}</ETag></Contents>"
            for name, content in sorted(self.server.objects.items())
            if name.startswith(prefix)
        )
        self._answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>")

    def _is_signed(self) -> bool:
        """AWS signature version 4, with the request's declaration of its body."""
        _, _, fields = self.headers.get("authorization", "").partition(" ")
        named = {name: value for name, _, value in (field.strip().partition("=") for field in fields.split(","))}
        if not {"Credential", "SignedHeaders", "Signature"} <= set(named):
            return False
        key_id, day, region, service, last = named["Credential"].split("/")
        url = urlsplit(self.path)
        asked = sorted(parse_qsl(url.query, keep_blank_values=True))
        query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in asked)
        headers = "".join(
            f"{name}:{' '.join(self.headers.get(name, '').split())}\n" for name in named["SignedHeaders"].split(";")
        )
        said = self.headers.get("x-amz-content-sha256", "")
        request = "\n".join((self.command, url.path, query, headers, named["SignedHeaders"], said))
        scope = f"{day}/{region}/{service}/{last}"
        text = "\n".join(
            ("AWS4-HMAC-SHA256", self.headers.get("x-amz-date", ""), scope, sha256(request.encode()).hexdigest())
        )
        key = f"AWS4{SECRET}".encode()
        for part in (day, region, service, last):
            key = hmac.digest(key, part.encode(), "sha256")
        is_body = said in {"UNSIGNED-PAYLOAD", sha256(self.body).hexdigest()}
        return (
            key_id == KEY_ID
            and is_body
            and hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), named["Signature"])
        )

    def _answer(self, status: int, body: str | bytes, *, etag: str = "") -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header("last-modified", datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"))
        if etag:
            self.send_header("etag", etag)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _tag(content: bytes) -> str:
    return f'"{md5(content, usedforsecurity=False).hexdigest()}"'
