"""The measurements of one server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.processes import Running
from benchmarks.servers import HERE, Server

LOAD = HERE / "bin/load"
_MEMORY_EVERY = 0.25
_HUNG_AFTER = 180


@dataclass(frozen=True)
class Case:
    """One kind of load.

    A paced case is a fixed number of streams; the others send the next request as soon as they are answered.
    """

    model: str
    flags: tuple[str, ...] = ()
    paced: bool = False
    per_token: bool = False


_STREAMED = ("-stream", "-workers", "8")
_HELD = ("-stream", "-each", "1")
_SESSION_400K = ("-items", "300", "-bytes", "400000")
SESSION_1800K = ("-items", "600", "-bytes", "1800000")
"""A coding agent's request late in its work."""
_ALONE = ("-stream", "-workers", "1")
CASES = {
    "n": Case("sim-t50"),
    "n40k": Case("sim-t50", ("-turn", "50")),
    "n40k-parts": Case("sim-t50", ("-turn", "50", "-parts")),
    "n400k": Case("sim-t50", (*_SESSION_400K, "-workers", "4")),
    "n1800k": Case("sim-t50", (*SESSION_1800K, "-workers", "2")),
    "s10": Case("sim-t10-w10", _STREAMED),
    "s400": Case("sim-t400-w20", _STREAMED, per_token=True),
    "p100": Case("sim-t200-p20-stamp", (*_HELD, "-workers", "100", "-ramp", "500ms"), paced=True, per_token=True),
    "p400": Case("sim-t200-p20-stamp", (*_HELD, "-workers", "400", "-ramp", "2s"), paced=True, per_token=True),
    "b100": Case(
        "sim-t200-p20-stamp", (*_HELD, "-background", "-workers", "100", "-ramp", "500ms"), paced=True, per_token=True
    ),
    "resume": Case("sim-t2000", (*_STREAMED, "-resume", "1000")),
    "queue": Case("sim-t10", ("-background", "-workers", "50")),
    "first": Case("sim-t5-f5-p5", _ALONE),
    "f400k": Case("sim-t5-f5-p5", (*_SESSION_400K, *_ALONE)),
    "f1800k": Case("sim-t5-f5-p5", (*SESSION_1800K, *_ALONE)),
}
NEED_STORE = ("b100", "resume", "queue")
"""Only what is stored can be generated in the background, or resumed."""
SLOW = "sim-t30-p1000"
"""A token a second for half a minute."""
MODELS = sorted({SLOW, *(case.model for case in CASES.values())})


@dataclass(frozen=True)
class Measurement:
    """The result of one run of one case.

    `values` are named as in the table; `errors` counts failed answers by reason.
    """

    server: str
    case: str
    round: int
    values: dict[str, float]
    errors: dict[str, int]


class LoadFailed(Exception):
    """The load generator itself failed, or a server hung."""


@dataclass(frozen=True)
class Subject:
    """A running server, ready to be measured."""

    server: Server
    running: Running

    def measure(self, name: str, number: int, seconds: float) -> Measurement:
        """Run one of CASES. Closed loops last about `seconds`."""
        case = CASES[name]
        limit = () if case.paced else ("-seconds", f"{seconds}s")
        report, spent = self.load(["-model", case.model, *case.flags, *limit])
        done = report["tokens"] * 1e-6 if case.per_token else report["ok"] * 1e-3
        values = {"cpu": spent.own / done, "database": spent.database / done} if done else {}
        values |= {"cores": spent.own / spent.seconds, "rps": report["rps"]}
        for kind in ("total_ms", "first_ms", "delay_ms"):
            values |= {f"{kind[:-3]}_{share}": ms for share, ms in report.get(kind, {}).items()}
        return Measurement(self.server.name, name, number, values, report["errors"])

    def measure_alone(self, number: int, *, streams: bool) -> Measurement:
        """A fresh process: time until ready, memory before its first request, and the maximum while it serves 400
        streams.
        """
        values = {"ready": self.running.ready_after, "idle": self.memory()}
        errors: dict[str, int] = {}
        if streams:
            case = CASES["p400"]
            report, spent = self.load(["-model", case.model, *case.flags], memory=True)
            values["loaded"], errors = spent.memory, report["errors"]
        return Measurement(self.server.name, "alone", number, values, errors)

    def measure_chain(self, number: int, chains: int, folder: Path) -> Measurement:
        """CPU per request early and late in a conversation: turns 2-4 and 48-50.

        If responses are stored each turn refers to the previous one; otherwise the whole conversation is sent again.
        """
        if self.server.chains:
            ids = folder / f"{self.server.name}-chains.json"
            ids.unlink(missing_ok=True)
            common = ["-model", "sim-t50", "-chains", str(ids), "-count", str(chains), "-to"]
            first, early, middle, late = (self.load([*common, turn]) for turn in ("1", "4", "47", "50"))
            runs = [first, early, middle, late]
        else:
            early, late = (self.load(["-model", "sim-t50", "-turn", turn, "-seconds", "1s"]) for turn in ("3", "49"))
            runs = [early, late]
        errors = {reason: count for report, _ in runs for reason, count in report["errors"].items()}
        costs = (spent.own / report["ok"] * 1e3 if report["ok"] else 0.0 for report, spent in (early, late))
        return Measurement(self.server.name, "chain", number, dict(zip(("early", "late"), costs, strict=True)), errors)

    def warm_up(self, seconds: float) -> None:
        """Fill caches and pools; errors here would occur in the measured runs, too."""
        for name in ("n", "s10"):
            self.measure(name, -1, seconds)

    def load(self, arguments: Sequence[str], *, memory: bool = False) -> tuple[dict[str, Any], Spent]:
        """Run the load generator; its report, and what the server used.

        With `memory`, memory is watched, too. Raises LoadFailed.
        """
        before, begin, most = self._cpu(), time.monotonic(), 0.0
        command = [str(LOAD), "-url", self.server.url, *self.server.load, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as load:  # noqa: S603 - our own program
            while memory and load.poll() is None and time.monotonic() - begin < _HUNG_AFTER:
                most = max(most, self.memory())
                time.sleep(_MEMORY_EVERY)
            try:
                report, trouble = load.communicate(timeout=_HUNG_AFTER)
            except subprocess.TimeoutExpired as error:
                load.kill()
                raise LoadFailed(f"{self.server.name} hung") from error
        if load.returncode:
            raise LoadFailed(trouble)
        after = self._cpu()
        return json.loads(report), Spent(after[0] - before[0], after[1] - before[1], time.monotonic() - begin, most)

    def memory(self) -> float:
        """MiB used by the server's processes now."""
        return processes.memory_mib(self.running.pid)

    def _cpu(self) -> tuple[float, float]:
        return processes.cpu_seconds([self.running.pid]), processes.cpu_seconds(self.server.database_pids)


@dataclass(frozen=True)
class Spent:
    """The cost of a run:

    CPU seconds of the server and of its databases, wall-clock seconds, and the maximum of MiB, if watched.
    """

    own: float
    database: float
    seconds: float
    memory: float
