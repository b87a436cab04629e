"""The cost of the line that ends a request: `python -m benchmarks.request_log`. Microseconds per line, written to a
file as a service does.

One request collects its figures, and the line is written; the best of several rounds, since anything else only adds to
it.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable

from app.telemetry import log
from app.telemetry.request import RequestSummary, current

_LINES = 20_000
_ROUNDS = 7
_IDS = [f"01a22d2f-4b5f-7c67-8e05-{number:012x}" for number in range(5000)]


def _serve(number: int) -> None:
    """The work for the log during a streamed request."""
    began = time.perf_counter()
    current.set(RequestSummary("req_81cc66270771bfe71127c604843e467b", "POST"))
    summary = current.get()
    summary.route = "/v1/responses"
    summary.project, summary.key = "proj_5d1f6a", "key_81cc66270771bfe71127c604"
    summary.response, summary.model, summary.stream = _IDS[number % len(_IDS)], "qwen3.7-plus", True
    summary.upstream_request = "d41d8cd98f00b204e9800998ecf8427e"
    summary.upstream, summary.first_token_ms = "dashscope", 231
    summary.outcome, summary.tool_calls = "completed", 1
    summary.input_tokens, summary.cached_tokens, summary.output_tokens, summary.reasoning_tokens = 812, 256, 301, 120
    summary.status = 200
    summary.end(began)
    log.write_request(summary)


def _best(work: Callable[[int], None]) -> float:
    rounds: list[float] = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for number in range(_LINES):
            work(number)
        rounds.append(time.process_time() - began)
    return min(rounds) / _LINES * 1e6


def main() -> None:
    """Measure both formats, and a disabled log."""
    results: list[str] = []
    with tempfile.TemporaryFile("w", buffering=1) as file:  # line-buffered, like standard error
        for level, form in (("info", "text"), ("info", "json"), ("warning", "text")):
            log.configure(level, "json" if form == "json" else "text")
            for handler in logging.getLogger().handlers:
                if isinstance(handler, log.Handler):
                    handler.setStream(file)
            results.append(f"{level:8} {form:5} {_best(_serve):6.2f} µs of CPU per request")
    sys.stdout.write(os.linesep.join(results) + os.linesep)


if __name__ == "__main__":
    main()
