"""What an upstream's error means for the client: one table of the vendors' codes, types and messages.

Sources: the error table of DashScope (nested and flat envelopes, throttling under four names, `insufficient_quota` for
a limit that resets within a minute), and the bodies sent by vLLM, SGLang, Ollama and llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from app.providers._lenient import Json, as_count, as_list, as_object, read_object, without_halves
from app.providers._sse import SSEDecoder
from app.providers.base import Headers, UpstreamError, UpstreamProtocolError

_RETRY_AFTER = 1.0
"""Seconds; DashScope also enforces its limits per second, and sends no time."""
_LONGEST = 2000


class _Report(msgspec.Struct, frozen=True):
    """The contents of a body, in whichever envelope.

    `code` contains the names (code and type), in lower case, for the table.
    """

    status: int
    code: str
    names: str
    message: str
    param: str | None = None
    """The request parameter it names, under the client's name for it."""


class _Rule(msgspec.Struct, frozen=True):
    """How to answer if the names, or the message, match. None: any."""

    status: int
    code: str
    names: re.Pattern[str] | None = None
    sentence: re.Pattern[str] | None = None
    param: str | None = None
    retryable: bool = False

    def matches(self, report: _Report) -> bool:
        return bool(
            (self.names and self.names.search(report.names)) or (self.sentence and self.sentence.search(report.message))
        )


def _any(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_RULES = (
    _Rule(
        400,
        "content_policy_violation",
        _any("data_?inspection_?failed|customroleblocked|faqruleblocked|ipinfringementsuspect|content_policy"),
        _any("may contain inappropriate content"),
        param="input",
    ),
    _Rule(
        502,
        "upstream_billing",
        _any("arrearage|unpurchased|notpurchased|overdue|freetieronly"),
        _any(
            "free allocated quota exceeded|account is in good standing|insufficient (account "
            ")?(balance|credits)|balance is insufficient"
        ),
    ),
    _Rule(
        503,
        "server_is_overloaded",
        _any("serviceunavailable|modelunavailable|overloaded"),
        _any("system capacity limits"),
        retryable=True,
    ),
    _Rule(
        429,
        "rate_limit_exceeded",
        _any(
            "throttling|limit_requests|limitrequests|limit_burst_rate|insufficient_quota|resourceexhausted|rate_?limit"
        ),
        retryable=True,
    ),
    _Rule(
        400,
        "invalid_value",
        sentence=_any(r"range of max_tokens|max_(completion_)?tokens\W.{0,60}too large"),
        param="max_output_tokens",
    ),
    _Rule(
        400,
        "context_length_exceeded",
        _any("exceed_context_size|context_length_exceeded"),
        _any(
            "range of input length|maximum (context|model) length|exceeds the available context"
            "|(longer than|exceeds?) the model's .{0,20}(context|length)"
        ),
        param="input",
    ),
    _Rule(400, "unsupported_image", sentence=_any("image input is not supported|mmproj"), param="input"),
    _Rule(
        404,
        "model_not_found",
        _any("model_?not_?found"),
        _any(r"unsupported model|model not exist|\bmodel\b.{0,200}(does not exist|not found|is not supported)"),
        param="model",
    ),
    _Rule(504, "upstream_timeout", _any("requesttimeout|request_timeout"), retryable=True),
)

_SPENT = _Rule(502, "upstream_billing", sentence=_any("check your plan and billing"))
"""`insufficient_quota` with this message. DashScope also uses the code for a limit that resets."""

_BY_STATUS = {
    401: _Rule(502, "upstream_authentication"),
    402: _Rule(502, "upstream_billing"),
    403: _Rule(502, "upstream_authentication"),
    408: _Rule(504, "upstream_timeout", retryable=True),
    429: _Rule(429, "rate_limit_exceeded", retryable=True),
    501: _Rule(502, "upstream_unsupported"),
    503: _Rule(503, "server_is_overloaded", retryable=True),
    504: _Rule(504, "upstream_timeout", retryable=True),
    529: _Rule(503, "server_is_overloaded", retryable=True),
}
_CLIENT_ERROR, _SERVER_ERROR, _NO_STATUS = 400, 500, 600
_REJECTED = frozenset({400, 413, 422})
_FAILED = _Rule(502, "upstream_error", retryable=True)
_MISDIRECTED = _Rule(502, "upstream_error")

_OURS = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "chat_template_kwargs": "enable_thinking",
}
"""The client's names of parameters that upstreams call differently."""
_TOLD = ("message", "msg", "detail", "error", "errors", "error_msg", "error_message", "status_msg")
"""Where the message may be, most likely first."""
_DEEPEST = 4
_MINIMAX = "base_resp"
"""In every answer of MiniMax, with code 0 on success."""
_MINIMAX_STATUS = {1001: 504, 1002: 429, 1004: 401, 1008: 402, 1039: 429, 2013: 400}
"""The statuses equivalent to its codes."""
_ENVELOPES = ("error", "errors", _MINIMAX)
_REQUEST_PARTS = frozenset({"body", "query", "path", "header"})

_NAMED_STATUS = (
    (401, _any("invalid_?api_?key|not authorized|unauthorized|authentication")),
    (403, _any("access_?denied|permission|forbidden")),
    (400, _any("invalid_?(parameter|request|value)|bad_?request|validation")),
)
"""For errors inside a stream, which have no status but sometimes a meaningful name."""

_LAYER = re.compile(r"^<(\d{3})> *InternalError[\w.]*: *")
_LINK = re.compile(
    r"\s*(?:(?:for (?:more )?(?:details|information)|please (?:see|visit|refer to)|see)[^.\n]{0,60}?)?https?://\S+",
    re.IGNORECASE,
)
_KEY = re.compile(r"\b(?:sk|Bearer)[-_ ][\w*.-]{6,}")
_REQUEST_ID = re.compile(r"\s*[(\[]?\brequest[ _-]?id\b\W{0,4}[\w-]{8,}[)\]]?", re.IGNORECASE)


def error_from_reply(status: int, headers: Headers, body: bytes, *, quota_passes: bool = True) -> UpstreamError:
    """The error for an answer whose status is not 200. `headers` has lower-case names.

    `quota_passes`: the upstream reports a limit that resets as an exhausted quota.
    """
    return _judge(_read(body, status), _seconds(headers), quota_passes=quota_passes)


def error_in_stream(body: bytes, status: int | None = None, *, quota_passes: bool = True) -> UpstreamError:
    """The error for a body inside a 200 stream; `status` if the vendor sent one with it; a success status is
    ignored.
    """
    return _judge(_read(body, status if status and status >= _CLIENT_ERROR else None), None, quota_passes=quota_passes)


def _judge(report: _Report, retry_after: float | None, *, quota_passes: bool) -> UpstreamError:
    rule = next((rule for rule in _RULES if rule.matches(report)), None) or _by_status(report)
    if not quota_passes and "insufficient_quota" in report.names and _SPENT.matches(report):
        rule = _SPENT
    message = report.message or f"The upstream answered with status {report.status}."
    if rule.code == "upstream_authentication":
        # Without the prefix clients would suspect their own keys.
        message = f"The upstream refused the gateway's credentials: {message}"
    if rule.status == _BY_STATUS[429].status and retry_after is None:
        retry_after = _RETRY_AFTER
    return UpstreamError(
        message,
        status=rule.status,
        code=rule.code,
        param=rule.param or (report.param if rule.status == _CLIENT_ERROR else None),
        retry_after=retry_after if rule.retryable else None,
        retryable=rule.retryable,
    )


def _by_status(report: _Report) -> _Rule:
    if report.status in _REJECTED:
        return _Rule(400, report.code or "upstream_rejected")
    if report.status in _BY_STATUS:
        return _BY_STATUS[report.status]
    return _FAILED if report.status >= _SERVER_ERROR else _MISDIRECTED


def _read(body: bytes, status: int | None) -> _Report:
    """Find the fields in `{"error": {…}}`, `{"error": "…"}`, flat bodies, and FastAPI's `{"detail": …}`."""
    outer = _object(body)
    fields = _fields(outer)
    told = _sentence(fields)[:_LONGEST]
    code, kind = fields.get("code"), fields.get("type")
    names = " ".join(name for name in (code, kind) if isinstance(name, str)).lower()
    layer = _LAYER.match(told)
    # The status of the model layer, inside the message, is closest to the cause.
    known = int(layer[1]) if layer else status or _numbered(fields)
    if known is None:
        known = next((guess for guess, pattern in _NAMED_STATUS if pattern.search(names)), None)
    if known is None:
        known = 400 if _complaints(outer.get("detail")) else 500
    message = _cleaned(told[layer.end() :] if layer else told)
    return _Report(known, code if isinstance(code, str) else "", names, message, _param(fields))


def _object(body: bytes) -> Json:
    """The body's object; the first of a list, that of the first event of an event stream."""
    try:
        return as_object(without_halves(read_object(next(iter(SSEDecoder().whole(body)), b""))))
    except (UpstreamProtocolError, RecursionError):
        # A proxy's HTML page or plain text: only the status says what happened.
        return {}


def _fields(outer: Json) -> Json:
    """The object that describes the error.

    It may be in envelopes, and these beside or inside an answer that it ended.
    """
    for _ in range(_DEEPEST):
        held = next((fields for holder in (*_answers(outer), outer) if (fields := _held(holder))), None)
        if held is None:
            break
        outer = held
    return next((answer for answer in _answers(outer) if _sentence(answer)), outer)


def _answers(outer: Json) -> list[Json]:
    """The parts of the body that may be an answer that ended with an error."""
    return [as_object(outer.get("response")), *map(as_object, as_list(outer.get("choices")))]


def _held(holder: Json) -> Json | None:
    """The object in one of the envelopes."""
    for name in _ENVELOPES:
        entries = as_list(holder.get(name))
        fields = as_object(entries[0]) if entries else {}
        if fields and not (name == _MINIMAX and not as_count(fields.get("status_code"))):
            return fields
    return None


def _numbered(fields: Json) -> int | None:
    """The status that the code is, or corresponds to."""
    number = as_count(fields.get("code"))
    if number is not None and _CLIENT_ERROR <= number < _NO_STATUS:
        return number
    return _MINIMAX_STATUS.get(as_count(fields.get("status_code")) or 0)


def _sentence(value: Any, depth: int = 0) -> str:
    """The message, whether it is text, an object with a text, or a list of either."""
    if isinstance(value, str):
        return value
    if depth > _DEEPEST:
        return ""
    complaints = _complaints(value)
    if complaints:
        return "; ".join(map(_complaint, complaints))
    if isinstance(value, list):
        return "; ".join(filter(None, (_sentence(one, depth + 1) for one in value)))  # pyright: ignore[reportUnknownVariableType]
    found = as_object(value)
    return next((told for name in _TOLD if (told := _sentence(found.get(name), depth + 1))), "")


def _complaints(value: Any) -> list[Mapping[str, Any]]:
    """The entries of a list as FastAPI writes it:

    `{"loc": ["body", "messages"], "msg": "Field required", "type": "missing"}`.
    """
    entries = map(as_object, as_list(value))
    return [entry for entry in entries if isinstance(entry.get("loc"), list) and isinstance(entry.get("msg"), str)]


def _complaint(entry: Mapping[str, Any]) -> str:
    place = ".".join(_place(entry))
    return f"{place}: {entry['msg']}" if place else str(entry["msg"])


def _place(entry: Mapping[str, Any]) -> list[str]:
    """The position of the error in the request's body."""
    place = [str(step) for step in entry["loc"] if isinstance(step, str | int)]
    return place[1:] if place and place[0] in _REQUEST_PARTS else place


def _param(fields: Mapping[str, Any]) -> str | None:
    """The wrong parameter: `param`, or the first position in a list of complaints."""
    named = fields.get("param")
    if not isinstance(named, str):
        places = [place for entry in _complaints(fields.get("detail")) if (place := _place(entry))]
        named = places[0][0] if places else ""
    name = re.split(r"[.\[]", named, maxsplit=1)[0]
    return _OURS.get(name, name) or None


def _cleaned(message: str) -> str:
    """The vendor's message without links, keys and request ids, which concern the operator only."""
    for pattern in (_LINK, _REQUEST_ID):
        message = pattern.sub("", message)
    return _KEY.sub("[key]", message).strip(" \n,;:")


def _seconds(headers: Headers) -> float | None:
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "")
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
            return float(value) / scale
    return None
