"""The cost of the tool loop: CPU per round, by its parts, and a hundred concurrent responses with rounds.

A round is a turn in which the model calls `web_search`, and the call. Its cost is the slope over responses with
increasing rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import linear_regression

from benchmarks.cases import Measurement, Subject

ROUNDS = (0, 1, 4, 8)
_ENDS = (ROUNDS[0], ROUNDS[-1])
_ANSWER = "sim-t50"
_WAYS: dict[str, Sequence[str]] = {"plain": (), "stream": ("-stream", "-workers", "8")}
_SHARE = 0.1
"""Of the time of a case: a response with eight rounds counts as many."""
_CROWD = "sim-t50-p20-stamp"
_CROWD_CALLS = "-calls2-search100"
_CROWD_FLAGS = ("-stream", "-workers", "100", "-ramp", "1s")


def measure_rounds(subject: Subject, number: int, seconds: float) -> Measurement:
    """The case `tools`.

    CPU in ms: of an answer without rounds (`plain_0`, `stream_0`), of a round (`plain`, `stream`), of a plain round
    whose call fails at once (`turn`), and of one with results from the gateway's cache (`cached`). A server without
    tools only answers.
    """
    values: dict[str, float] = {}
    errors: dict[str, int] = {}

    def cost(way: str, options: str) -> float:
        report, spent = subject.load(["-model", _ANSWER + options, *_WAYS[way], "-seconds", f"{seconds * _SHARE}s"])
        errors.update(report["errors"])
        return spent.own / report["ok"] * 1e3 if report["ok"] else 0.0

    def slope(way: str, option: str = "", rounds: Sequence[int] = ROUNDS) -> float:
        costs = [cost(way, f"-calls{calls}{option}") for calls in rounds]
        values.setdefault(f"{way}_0", costs[0])
        return linear_regression(rounds, costs).slope

    if not subject.server.tools:
        values = {f"{way}_0": cost(way, "") for way in _WAYS}
    else:
        cost("plain", "-calls1")  # the first search of a process loads the HTTP client
        values |= {way: slope(way) for way in _WAYS}
        values |= {name: slope("plain", option, _ENDS) for name, option in (("turn", "-void"), ("cached", "-same"))}
    return Measurement(subject.server.name, "tools", number, values, errors)


def measure_crowd(subject: Subject, number: int, seconds: float) -> Measurement:
    """The case `crowd`: a hundred concurrent streams, each with two rounds whose search takes 100 ms; then 50 tokens,
    one every 20 ms.
    """
    model = _CROWD + (_CROWD_CALLS if subject.server.tools else "")
    before = subject.memory()
    report, spent = subject.load(["-model", model, *_CROWD_FLAGS, "-seconds", f"{seconds}s"], memory=True)
    values = {"before": before, "most": spent.memory, "cores": spent.own / spent.seconds}
    values |= {f"delay_{share}": ms for share, ms in report.get("delay_ms", {}).items()}
    if report["ok"]:
        values["cpu"] = spent.own / report["ok"] * 1e3
    return Measurement(subject.server.name, "crowd", number, values, report["errors"])
