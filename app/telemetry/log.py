"""The log on standard error, as text or JSON: every line has its request's id, and each request ends with one line."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal

import msgspec

from app.telemetry.repeats import Repeats
from app.telemetry.request import RequestSummary, current

Format = Literal["text", "json"]

REQUESTS = "app.request"
"""The logger of the line at the end of each request."""
_requests = logging.getLogger(REQUESTS)
_installed: list[Handler] = []
"""The handler that `configure` created."""
_WRITE_SECONDS = 0.01
"""Maximum time that a request's line is buffered."""
_encode = msgspec.json.Encoder().encode
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
_is_plain = re.compile(r"[A-Za-z0-9._:/@+-]+").fullmatch


class Handler(logging.StreamHandler[Any]):
    """Writes to standard error.

    If a warning or error repeats within a minute, only the first one and a count are written.
    """

    def __init__(self, form: Format, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` (seconds) times the repeats."""
        super().__init__(sys.stderr)
        self.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
        self._line = _json_line if form == "json" else _text_line
        self._repeats = Repeats(clock)
        self._waiting: list[str] = []
        """Buffered lines of requests, written together."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record unless it is a repeat."""
        try:
            if self._repeats.due:
                self._tell_repeats()
            admitted = record.levelno < logging.WARNING or self._repeats.admits(record)
        except Exception:  # noqa: BLE001 - like `logging`: a line that cannot be formatted must not break the caller
            self.handleError(record)
            return
        if admitted:
            self.flush()
            super().emit(record)

    def flush(self) -> None:
        """Write the buffered lines."""
        lines, self._waiting = self._waiting, []
        if lines:
            with suppress(OSError, ValueError):
                # a full disk or a closed pipe must not break a request, and cannot be reported
                self.stream.write("".join(lines))
        super().flush()

    def write_request(self, summary: RequestSummary) -> None:
        """Buffer a request's line, since writing costs more than formatting.

        Without a log record, which would double the cost.
        """
        if self._repeats.due:
            self._tell_repeats()
        self._waiting.append(self._line(summary))
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_later(_WRITE_SECONDS, self.flush)
            except RuntimeError:  # no event loop is running that could flush it
                self.flush()

    def _tell_repeats(self) -> None:
        for record in self._repeats.over():
            super().emit(record)


def _is_no_cut(record: logging.LogRecord) -> bool:
    """A stream is cut off on purpose if it has to be resumed elsewhere: no error, and the request has its line."""
    return not record.getMessage().startswith("ASGI callable returned without completing")


def configure(level: str, form: Format) -> None:
    """Log to standard error from now on."""
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    _installed[:] = [Handler(form)]
    root.addHandler(_installed[0])
    root.setLevel(level.upper())
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the URL of every call of the sandbox
    server = logging.getLogger("uvicorn.error")
    server.setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level.upper()]))
    server.addFilter(_is_no_cut)


def write_request(summary: RequestSummary, *, routine: bool = False) -> None:
    """Write the line of a finished request. `routine`: logged only at the most verbose level."""
    level = logging.DEBUG if routine else logging.INFO
    if not _requests.isEnabledFor(level):
        return
    if _installed:
        _installed[0].write_request(summary)
    else:  # another program configured logging
        _requests.log(level, "%s", _text(summary))


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _stamp(moment: float) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    milliseconds = int(moment * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _quoted(value: str) -> str:
    """The value as it is if unambiguous, otherwise as a JSON string, so that no value can forge a field or a line."""
    return value if _is_plain(value) else json.dumps(value)


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _text(summary: RequestSummary) -> str:
    """Written out field by field: a loop over the fields would take twice the time of the whole line."""
    one = summary
    text = f"{one.method} {one.route} {one.status} {one.ms}ms"
    if one.project is not None:
        text += f" project={one.project} key={one.key}"
    if one.response is not None:
        text += f" response={one.response} model={_quoted(one.model or '')} stream={'true' if one.stream else 'false'}"
    if one.upstream is not None:
        text += f" upstream={_quoted(one.upstream)} first_token_ms={one.first_token_ms}"
    if one.upstream_request is not None:
        text += f" upstream_request={_quoted(one.upstream_request)}"
    if one.outcome is not None:
        text += f" outcome={one.outcome} input_tokens={one.input_tokens} cached_tokens={one.cached_tokens}"
        text += (
            f" output_tokens={one.output_tokens} reasoning_tokens={one.reasoning_tokens} tool_calls={one.tool_calls}"
        )
    return text if one.code is None else f"{text}{_failure(one)}"


def _failure(summary: RequestSummary) -> str:
    told = (("code", summary.code), ("param", summary.param), ("reason", summary.reason))
    return "".join(f" {name}={_quoted(value)}" for name, value in told if value is not None)


def _text_line(summary: RequestSummary) -> str:
    return f"{_stamp(time.time())} INFO {REQUESTS} [{summary.request_id}] {_text(summary)}\n"


def _json_line(summary: RequestSummary) -> str:
    return f'{{"time":"{_stamp(time.time())}","level":"info","logger":"{REQUESTS}",{_encode(summary).decode()[1:]}\n'


class _TextFormatter(logging.Formatter):
    """`TIME LEVEL LOGGER [REQUEST] MESSAGE`"""

    def __init__(self) -> None:
        super().__init__("%(stamp)s %(levelname)s %(name)s%(request)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        record.stamp = _stamp(record.created)
        request_id = current.get().request_id
        record.request = f" [{request_id}]" if request_id else ""
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The message on one line, so that foreign text, such as an upstream's error, cannot forge another line."""
        record.message = _escaped(record.message.rstrip("\n"))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as above
        """The traceback, indented so that its lines cannot be mistaken for log lines."""
        return "\n".join(f"  {_escaped(line)}" for line in super().formatException(ei).split("\n"))


class _JsonFormatter(logging.Formatter):
    """One JSON object per line, with the field names of a request's line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = {"time": _stamp(record.created), "level": record.levelname.lower(), "logger": record.name}
        if request_id := current.get().request_id:
            fields["request_id"] = request_id
        fields["message"] = record.getMessage()
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)
