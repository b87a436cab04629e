"""Lines of the log: one that cannot be forged a request, and its id on every other."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator

import pytest

from app.telemetry import log
from app.telemetry.request import RequestSummary, current


class Written:
    """What has gone to standard error."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def getvalue(self) -> str:
        """All of it, once."""
        return self._capture.readouterr().err


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Generator[Written]:
    """Standard error; the logging of the test run is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Written(capsys)
    root.handlers[:] = handlers
    root.setLevel(level)


def _summary() -> RequestSummary:
    summary = RequestSummary("req_1", "POST", "/v1/responses", 404, 12)
    summary.project, summary.key, summary.response, summary.model = "p", "k", "r", 'a" status=200\nforged'
    summary.fail("model_not_found", "The model 'a\x1b[31m' does not exist.", "model")
    return summary


def test_a_value_cannot_forge_a_field_or_a_line(written: Written) -> None:
    log.configure("info", "text")
    log.write_request(_summary())
    line = written.getvalue()
    assert line.count("\n") == 1
    assert " INFO app.request [req_1] POST /v1/responses 404 12ms project=p key=k response=r " in line
    assert r'model="a\" status=200\nforged"' in line
    assert r'code=model_not_found param=model reason="The model ' in line
    assert "\x1b" not in line


def test_what_an_upstream_says_cannot_forge_a_line(written: Written) -> None:
    log.configure("info", "text")
    forged = "no\r\n2026-01-01T00:00:00.000Z INFO app.request [req_2] GET /\x1b[2J\x9b\u2028"
    logging.getLogger("app").warning("upstream failed: %s", forged)
    logging.getLogger("app").error("It failed", exc_info=ValueError(forged))
    lines = written.getvalue().split("\n")

    assert (
        r"upstream failed: no\r\n2026-01-01T00:00:00.000Z INFO app.request [req_2] GET /\x1b[2J\x9b\u2028" in lines[0]
    )
    assert not any(line.startswith("2026-01-01") for line in lines)
    assert all(line.isprintable() for line in lines)


def test_the_same_as_json(written: Written) -> None:
    log.configure("info", "json")
    log.write_request(_summary())
    fields = json.loads(written.getvalue())
    assert (fields["request_id"], fields["status"], fields["ms"], fields["level"]) == ("req_1", 404, 12, "info")
    assert fields["model"] == 'a" status=200\nforged'
    assert "upstream" not in fields


@pytest.mark.parametrize("form", ["text", "json"])
def test_every_line_of_a_request_carries_its_id(written: Written, form: log.Format) -> None:
    log.configure("info", form)
    token = current.set(RequestSummary("req_2"))
    logging.getLogger("somewhere").warning("%s happened", "it")
    current.reset(token)
    logging.getLogger("somewhere").warning("it happened to nobody")
    mine, other = written.getvalue().splitlines()
    assert "req_2" in mine
    assert "it happened" in mine
    assert "req_" not in other


def test_an_exception_stays_in_one_line_of_json(written: Written) -> None:
    log.configure("info", "json")
    try:
        int("no")
    except ValueError:
        logging.getLogger("somewhere").exception("it failed")
    assert "ValueError: invalid literal" in json.loads(written.getvalue())["exception"]


@pytest.mark.parametrize(
    ("level", "routine", "lines"), [("info", False, 1), ("info", True, 0), ("debug", True, 1), ("warning", False, 0)]
)
def test_what_is_worth_a_line(written: Written, level: str, *, routine: bool, lines: int) -> None:
    log.configure(level, "text")
    log.write_request(RequestSummary("req_3", "GET", "/readyz", 200), routine=routine)
    assert written.getvalue().count("\n") == lines


def test_the_first_reason_is_the_cause() -> None:
    summary = RequestSummary("req_4")
    summary.fail("upstream_timeout", "x" * 1000)
    summary.fail("server_error", "later")
    assert summary.code == "upstream_timeout"
    assert summary.reason is not None
    assert len(summary.reason) == 300
