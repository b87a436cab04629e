"""NUL and unpaired surrogates: refused by name in every parameter, on both databases, before anything is done."""

from __future__ import annotations

import json
from typing import Any, cast

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.e2e.streams import MODEL
from tests.support.gateway import Gateway
from tests.support.operations import OPERATIONS
from tests.support.upstream import ScriptedUpstream
from tests.support.wire import connected, head

BAD = ["\x00", "a\x00b", "\ud800", "a\udfffb", "\udc00\ud800"]
ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


@pytest.fixture(params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest) -> Gateway:
    """A gateway on each database."""
    return cast(
        "Gateway", request.getfixturevalue("sqlite_gateway" if request.param == "sqlite" else "postgres_gateway")
    )


def refused(answer: httpx.Response, param: str) -> None:
    """Holds the answer to what it should be."""
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_value", param)
    assert error["message"].startswith(f"Invalid '{param}'")
    assert "remove or replace them" in error["message"]


def post(path: str, body: Any, *, ascii_only: bool = True) -> dict[str, Any]:
    """The request; not `ascii_only`, halves of pairs go as what is no UTF-8, and NUL still as an escape."""
    content = json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    return {"method": "POST", "url": path, "content": content, "headers": {"content-type": "application/json"}}


CREATE: list[tuple[dict[str, Any], str]] = [
    ({"input": "$"}, "input"),
    ({"model": "$"}, "model"),
    ({"user": "$"}, "user"),
    ({"safety_identifier": "$"}, "safety_identifier"),
    ({"prompt_cache_key": "$"}, "prompt_cache_key"),
    ({"instructions": "$"}, "instructions"),
    ({"previous_response_id": "$"}, "previous_response_id"),
    ({"metadata": {"a": "$"}}, "metadata.a"),
    ({"metadata": {"a": "b", "$": "c"}}, "metadata.\ufffd"),
    ({"include": ["$"]}, "include[0]"),
    ({"input": [{**ITEM, "id": "$"}]}, "input[0].id"),
    ({"input": [ITEM, {**ITEM, "content": [{"type": "input_text", "text": "$"}]}]}, "input[1].content[0].text"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": "$"}]}, "input[0].output"),
    ({"tools": [{"type": "function", "name": "$", "parameters": {}}]}, "tools[0].name"),
    (
        {"tools": [{"type": "function", "name": "f", "parameters": {"properties": {"$": {}}}}]},
        "tools[0].parameters.properties.\ufffd",
    ),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["$"]}]}, "tools[0].vector_store_ids[0]"),
    ({"tools": [{"type": "code_interpreter", "container": "$"}]}, "tools[0].container"),
]


def planted(value: Any, bad: str) -> Any:
    """With the characters where `$` stands; nothing else of them counts for the name."""
    return json.loads(json.dumps(value).replace('"$"', json.dumps(bad)))


@pytest.mark.parametrize(("fields", "param"), CREATE)
async def test_in_a_request_for_a_response(
    served: Gateway, upstream: ScriptedUpstream, fields: dict[str, Any], param: str
) -> None:
    async with served.http() as http:
        for bad in ("\x00", "\ud800"):
            for stream in (False, True):
                body = {"model": MODEL, "input": "Hi", "stream": stream, **planted(fields, bad)}
                refused(await http.request(**post("/v1/responses", body)), param)
        refused(
            await http.request(
                **post("/v1/responses", {"model": MODEL, **planted(fields, "\udfff")}, ascii_only=False)
            ),
            param,
        )
    assert not upstream.requests


COLD: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/vector_stores", {"name": "$"}, "name"),
    ("/v1/vector_stores", {"description": "$"}, "description"),
    ("/v1/vector_stores", {"metadata": {"a": "$"}}, "metadata.a"),
    ("/v1/vector_stores", {"metadata": {"$": "a"}}, "metadata.\ufffd"),
    ("/v1/vector_stores", {"file_ids": ["$"]}, "file_ids[0]"),
    ("/v1/vector_stores/vs_1", {"name": "$"}, "name"),
    ("/v1/vector_stores/vs_1/search", {"query": "$"}, "query"),
    ("/v1/vector_stores/vs_1/search", {"query": "q", "filters": {"type": "eq", "key": "$", "value": 1}}, "filters.key"),
    (
        "/v1/vector_stores/vs_1/search",
        {"query": "q", "filters": {"type": "eq", "key": "k", "value": "$"}},
        "filters.value",
    ),
    ("/v1/vector_stores/vs_1/files", {"file_id": "$"}, "file_id"),
    ("/v1/vector_stores/vs_1/files", {"file_id": "file-1", "attributes": {"$": 1}}, "attributes.\ufffd"),
    ("/v1/vector_stores/vs_1/files/file-1", {"attributes": {"a": "$"}}, "attributes.a"),
    ("/v1/vector_stores/vs_1/file_batches", {"file_ids": ["$"]}, "file_ids[0]"),
    (
        "/v1/vector_stores/vs_1/file_batches",
        {"files": [{"file_id": "file-1", "attributes": {"a": "$"}}]},
        "files[0].attributes.a",
    ),
    ("/v1/containers", {"name": "$"}, "name"),
    ("/v1/containers", {"name": "n", "file_ids": ["$"]}, "file_ids[0]"),
    ("/v1/containers/cntr_1/files", {"file_id": "$"}, "file_id"),
]


@pytest.mark.parametrize(("path", "body", "param"), COLD)
async def test_in_the_body_of_another_route(served: Gateway, path: str, body: dict[str, Any], param: str) -> None:
    async with served.http() as http:
        for bad in ("\x00", "\ud800", "\udc00"):
            refused(await http.request(**post(path, planted(body, bad))), param)
        refused(await http.request(**post(path, planted(body, "\udfff"), ascii_only=False)), param)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
async def test_other_encodings_hide_nothing(served: Gateway, encoding: str) -> None:
    body = json.dumps({"name": "a\x00"}).encode(encoding)
    async with served.http() as http:
        for path in ("/v1/vector_stores", "/v1/responses", "/v1/containers"):
            answer = await http.post(path, content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "json_parse_error")


QUERIES = [
    ("/v1/files", "after"),
    ("/v1/files", "purpose"),
    ("/v1/vector_stores", "after"),
    ("/v1/vector_stores/vs_1/files", "before"),
    ("/v1/vector_stores/vs_1/files", "filter"),
    ("/v1/containers", "name"),
    ("/v1/containers/cntr_1/files", "after"),
    ("/v1/responses/0190b7c2-3f4e-7abc-8def-0123456789ab", "include[]"),
    ("/v1/responses/0190b7c2-3f4e-7abc-8def-0123456789ab/input_items", "after"),
    ("/v1/models", "unknown"),
    ("/v1/tools", "unknown"),
]


@pytest.mark.parametrize(("path", "name"), QUERIES)
async def test_in_a_query(served: Gateway, path: str, name: str) -> None:
    async with served.http() as http:
        for bad in ("%00", "a%00b", "%ED%A0%80", "%ed%bf%bf", "%FF"):
            refused(await http.get(f"{path}?x=1&{name}={bad}"), name)


PATHS = [operation for operation in OPERATIONS if "{" in operation]


NO_IDS = (
    "%00",
    "a%00b",
    "%ED%A0%80",
    "%FF",
    "..",
    "%2e%2e",
    "%2E.",
    ".",
    "a%0Ab",
    "a%20b",
    "a;b",
    "a%5Cb",
    "x" * 129,
    "%C3%A9",
    "%252e%252e",
)


@pytest.mark.parametrize("operation", PATHS)
async def test_in_a_path(served: Gateway, operation: str) -> None:
    """Nothing but what ids are made of. The name is that of the place."""
    method, path = operation.split()
    for name in [part.strip("{}") for part in path.split("/") if part.startswith("{")]:
        for bad in NO_IDS:
            raw = "/".join(
                bad if part == f"{{{name}}}" else "id_1" if part.startswith("{") else part for part in path.split("/")
            )
            async with connected(served) as wire:  # clients would take the dots away
                await wire.send(head(method, raw, key=served.key))
                answer = await wire.answer()
            if name == "model" and "%00" not in bad:
                assert answer.status == 404
            else:
                assert (answer.status, answer.error["param"]) == (400, name), (raw, answer.body)


def form(name: bytes, value: bytes, filename: bytes = b"a.txt") -> dict[str, Any]:
    """A form with one field and one file."""
    parts = [
        b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n',
        b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name, value) if name else b"",
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\nText.\r\n--B--\r\n' % filename,
    ]
    return {"content": b"".join(parts), "headers": {"content-type": "multipart/form-data; boundary=B"}}


@pytest.mark.parametrize("path", ["/v1/files", "/v1/containers/cntr_1/files"])
@pytest.mark.parametrize("bad", [b"\x00", b"a\x00b.txt", b"\xed\xa0\x80.txt"])
async def test_in_a_form(served: Gateway, path: str, bad: bytes) -> None:
    async with served.http() as http:
        refused(await http.post(path, **form(b"", b"", bad)), "file")
        refused(await http.post(path, **form(b"expires_after[anchor]", bad)), "expires_after[anchor]")
        refused(await http.post(path, **form(bad, b"x")), "form")


_TEXT = st.text(st.sampled_from("a/.%\\ \n\r\x00\x7f\x85\ud800\udfff\u2028北é😀'\"<{[;&=?#-_"), max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=6,
)
_NAMES = (
    "model",
    "input",
    "name",
    "metadata",
    "file_ids",
    "file_id",
    "files",
    "query",
    "filters",
    "attributes",
    "expires_after",
    "tools",
)
_BODIES = st.dictionaries(st.sampled_from(_NAMES) | _TEXT, _JSON, max_size=4)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_nothing_is_a_mistake_of_ours(served: Gateway, upstream: ScriptedUpstream, operation: str) -> None:
    """Whatever stands in path, query, headers and body."""
    method, path = operation.split()

    @settings(
        derandomize=True,
        max_examples=25,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(st.lists(_TEXT, min_size=3, max_size=3), st.lists(st.tuples(_TEXT, _TEXT), max_size=2), _BODIES, _TEXT)
    def check(ids: list[str], query: list[tuple[str, str]], body: dict[str, Any], header: str) -> None:
        parts = [_quoted(ids.pop()) or "x" if part.startswith("{") else part for part in path.split("/")]
        asked = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in query)
        headers = {b"x-odd": header.encode("utf-8", "surrogatepass").translate(None, b"\r\n\x00").strip()}
        content = json.dumps(body).encode() if method == "POST" else b""
        if content:
            headers[b"content-type"] = b"application/json"
        url = httpx.URL(served.base_url).copy_with(raw_path=f"{'/'.join(parts)}?{asked}".encode())
        answer = http.request(method, url, headers=headers, content=content)
        assert answer.status_code < 500, (answer.status_code, answer.text, str(url), content)
        if answer.status_code >= 400:
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}

    with httpx.Client(headers={"authorization": f"Bearer {served.key}"}, timeout=30, verify=False) as http:  # noqa: S501 - no TLS here
        check()
    upstream.requests.clear()


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
