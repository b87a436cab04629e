"""Measurements as Markdown: medians over the rounds, and the ratio of each to nginx's figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cases import Measurement
from benchmarks.servers import OTHER

RULER = "nginx"


class Figures:
    """All measurements of a session."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._rows = measurements

    def values(self, server: str, case: str, key: str) -> dict[int, float]:
        """The figure by round."""
        return {m.round: m.values[key] for m in self._rows if (m.server, m.case) == (server, case) and key in m.values}

    def failed(self, server: str, case: str) -> str:
        """Why answers of this case were wrong; empty if all were correct."""
        reasons = [reason for m in self._rows if (m.server, m.case) == (server, case) for reason in m.errors]
        return max(reasons, key=reasons.count) if reasons else ""

    def median(self, server: str, case: str, key: str) -> float | None:
        found = self.values(server, case, key)
        return median(found.values()) if found else None

    def ratio(self, server: str, case: str, key: str) -> float | None:
        """Median of the ratios to nginx, each within one round."""
        own, ruler = self.values(server, case, key), self.values(RULER, case, key)
        ratios = [own[number] / ruler[number] for number in own if ruler.get(number)]
        return median(ratios) if ratios and server != RULER else None

    def against(self, server: str, case: str, key: str) -> float | None:
        """Median of the ratios to the same gateway of the other checkout, each within one round."""
        own, other = self.values(server, case, key), self.values(server + OTHER, case, key)
        ratios = [own[number] / other[number] for number in own if other.get(number)]
        return median(ratios) if ratios else None

    def over(self, server: str, case: str, other: str, key: str) -> float | None:
        """Median of the differences between two cases, each within one round."""
        own, less = self.values(server, case, key), self.values(server, other, key)
        found = [own[number] - less[number] for number in own if number in less]
        return median(found) if found else None

    def rounds_ratio(self, server: str, key: str) -> float | None:
        """Median of the ratios of a tool round to a whole answer through nginx, each within one round of measuring."""
        own, answers = self.values(server, "tools", key), self.values(RULER, "tools", "plain_0")
        ratios = [own[number] / answers[number] for number in own if answers.get(number)]
        return median(ratios) if ratios else None

    def added(self, server: str, case: str, key: str) -> float | None:
        """Median of the differences to the simulator called directly, each within one round."""
        own, direct = self.values(server, case, key), self.values("direct", case, key)
        found = [own[number] - direct[number] for number in own if number in direct]
        return median(found) if found else None

    def chain_ratio(self, server: str) -> float | None:
        """A late turn compared with an early one, minus nginx's cost of passing on the additional bytes."""
        early, late = self.median(server, "chain", "early"), self.median(server, "chain", "late")
        nginx_early, nginx_late = self.median(RULER, "chain", "early"), self.median(RULER, "chain", "late")
        if not early or late is None or server == RULER:
            return None
        return (late - ((nginx_late or 0) - (nginx_early or 0))) / early


@dataclass(frozen=True)
class Column:
    title: str
    case: str
    cell: Callable[[Figures, str], str]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _cost(title: str, case: str, digits: int) -> Column:
    def cell(f: Figures, server: str) -> str:
        ratio = f.ratio(server, case, "cpu")
        return _number(f.median(server, case, "cpu"), digits) + (f" ({ratio:.1f}x)" if ratio else "")

    return Column(title, case, cell)


def _plain(title: str, case: str, keys: Sequence[str], digits: int) -> Column:
    def cell(f: Figures, server: str) -> str:
        return " / ".join(_number(f.median(server, case, key), digits) for key in keys).strip(" /")

    return Column(title, case, cell)


def _round(way: str) -> Column:
    def cell(f: Figures, server: str) -> str:
        ratio = f.rounds_ratio(server, way)
        return _number(f.median(server, "tools", way), 3) + (f" ({ratio:.1f}x)" if ratio else "")

    return Column(f"a round, {way}", "tools", cell)


def _parts(f: Figures, server: str) -> str:
    """The parts of a round: the model's turn, the results (read from the cache, cited, stored, sent on), the search
    itself.
    """
    whole, cached, turn = (f.values(server, "tools", key) for key in ("plain", "cached", "turn"))
    if not whole:
        return ""
    parts = (turn.values(), (cached[n] - turn[n] for n in turn), (whole[n] - cached[n] for n in whole))
    return " / ".join(_number(median(part), 3) for part in parts)


def _database(f: Figures, server: str) -> str:
    costs = [f.median(server, case, "database") for case in ("n", "n40k", "s10")]
    return " / ".join(_number(cost, 3) for cost in costs) if any(costs) else ""


def _against(title: str, case: str, key: str = "cpu") -> Column:
    return Column(title, case, lambda f, server: _number(f.against(server, case, key), 2))


_COSTS = ("n", "n40k", "n40k-parts", "n400k", "n1800k", "s10", "s400", "p100", "p400")
_TABLES = {
    "CPU of the server (user and system)": [
        _cost("n: whole answer, ms a request", "n", 3),
        _cost("n40k: 40 KB history, ms a request", "n40k", 3),
        _cost("n40k-parts: the same in content parts", "n40k-parts", 3),
        _cost("n400k: a coding agent's session, ms a request", "n400k", 2),
        _cost("n1800k: a long one, ms a request", "n1800k", 2),
        _cost("s10: stream of 10 tokens, ms a request", "s10", 3),
        _cost("s400: bulk, us a token", "s400", 2),
        _cost("p100: 100 paced streams, us a token", "p100", 1),
        _cost("p400: 400 paced streams, us a token", "p400", 1),
        _plain("b100: 100 paced background streams, us a token", "b100", ["cpu"], 1),
        Column(
            "b100 over p100, us a token", "b100", lambda f, server: _number(f.over(server, "b100", "p100", "cpu"), 1)
        ),
        _plain("resume: the second half of 2,000 events, ms a request", "resume", ["cpu"], 2),
        _plain("queue: background response until completed, ms", "queue", ["cpu"], 2),
        _plain("p400: cores", "p400", ["cores"], 2),
        Column("databases besides: n / n40k / s10, ms a request", "n", _database),
    ],
    "Time": [
        Column(
            "first token alone, added ms", "first", lambda f, server: _number(f.added(server, "first", "first_p50"), 2)
        ),
        _plain("f400k: first token, ms", "f400k", ["first_p50"], 1),
        _plain("f1800k: first token, ms", "f1800k", ["first_p50"], 1),
        _plain("stall: delay of a token, p50 / p99 / worst ms", "stall", ["delay_p50", "delay_p99", "delay_max"], 1),
        _plain("p100: delay of a token, p50 / p99 ms", "p100", ["delay_p50", "delay_p99"], 1),
        _plain("b100: delay of a token, p50 / p99 ms", "b100", ["delay_p50", "delay_p99"], 1),
        _plain("resume: streams a second", "resume", ["rps"], 0),
        _plain("queue: background responses a second", "queue", ["rps"], 0),
        _plain("p400: delay of a token, p50 / p99 ms", "p400", ["delay_p50", "delay_p99"], 1),
        _plain("n: p50 / p99 ms", "n", ["total_p50", "total_p99"], 1),
        _plain("n: requests a second", "n", ["rps"], 0),
    ],
    "Against the other checkout: ratio of CPU": [
        *(_against(case, case) for case in _COSTS),
        _against("stall: p99 of a token's delay", "stall", "delay_p99"),
    ],
    "Tool loop, CPU ms": [
        _plain("answer, no round: plain / stream", "tools", ["plain_0", "stream_0"], 3),
        _round("plain"),
        _round("stream"),
        Column("of a plain round: turn / results / search", "tools", _parts),
        _cost("crowd: a response with two rounds", "crowd", 2),
        _plain("crowd: cores", "crowd", ["cores"], 2),
        _plain("crowd: delay of a token, p50 / p99 ms", "crowd", ["delay_p50", "delay_p99"], 1),
        _plain("crowd: MiB before / most", "crowd", ["before", "most"], 0),
    ],
    "Memory, start, conversations": [
        _plain("ready after, s", "alone", ["ready"], 2),
        _plain("idle / 400 streams, MiB", "alone", ["idle", "loaded"], 0),
        _plain("open: MiB before / with 2,000 streams", "open", ["before", "most"], 0),
        _plain("open: KiB a stream", "open", ["each"], 1),
        _plain("conversation: turns 2-4 / 48-50, ms a request", "chain", ["early", "late"], 3),
        Column("late / early, beyond the bytes", "chain", lambda f, server: _number(f.chain_ratio(server), 2)),
    ],
}


def render(servers: Sequence[str], measurements: Sequence[Measurement]) -> str:
    """Every table with a figure, one row per server, without empty rows and columns."""
    figures = Figures(measurements)
    return "\n".join(part for title, columns in _TABLES.items() if (part := _render(title, columns, servers, figures)))


def _render(title: str, columns: Sequence[Column], servers: Sequence[str], figures: Figures) -> str:
    cells = {c.title: [_checked(c, figures, server) for server in servers] for c in columns}
    cells = {heading: column for heading, column in cells.items() if any(column)}
    if not cells:
        return ""
    rows = [
        f"| {server} | " + " | ".join(row) + " |"
        for server, *row in zip(servers, *cells.values(), strict=True)
        if any(row)
    ]
    head = ["| " + title + " | " + " | ".join(cells) + " |", "|---" * (len(cells) + 1) + "|"]
    return "\n".join([*head, *rows, ""])


def _checked(column: Column, figures: Figures, server: str) -> str:
    failed = figures.failed(server, column.case)
    return "fails: " + " ".join(failed[:60].replace("|", " ").split()) if failed else column.cell(figures, server)
