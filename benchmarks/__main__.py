"""Measure this gateway beside nginx and others; prints Markdown, and keeps every figure and log in benchmarks/results.

Runs are interleaved (round by round, case by case, server by server), so that other load affects all alike, and every
answer is checked in full. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from benchmarks import databases, file_search, open_streams, servers, stall, table, tool_loop
from benchmarks.cases import CASES, MODELS, NEED_STORE, LoadFailed, Measurement, Subject
from benchmarks.processes import NotReady, Running
from benchmarks.servers import HERE, Server

OURS = ("nostore", "sqlite", "postgres")
GATEWAYS = ("nginx", *OURS, "litellm")
ALONE = ("startup", "memory", "open")
APART = "files"
LOOP = {"tools": tool_loop.measure_rounds, "crowd": tool_loop.measure_crowd}
ALL_CASES = (*CASES, "stall", *ALONE, "chain", *LOOP, APART)
RESULTS = HERE / "results"
_Found = TypeVar("_Found")


class Session:
    """One measuring session: its options, its files, and its results."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.direct = servers.upstream(MODELS)
        self.found: list[Measurement] = []
        self.troubles: list[str] = []
        self.names = [name for name in options.gateways if name == "direct"]
        """The rows of the tables."""

    def run(self) -> None:
        """Measure each server alone in a fresh process, then all of them together."""
        with ExitStack() as stack:
            direct = self._start(stack, self.direct)
            chosen = self._chosen(stack)
            self.names += [server.name for server in chosen]
            if direct is None:
                return
            if not set(ALONE).isdisjoint(self.options.cases):
                self._alone(chosen)
            if not {*ALONE, APART}.issuperset(self.options.cases):
                self._together(stack, direct, chosen)

    def _chosen(self, stack: ExitStack) -> list[Server]:
        """The servers to measure, besides the simulator; the databases are started for them."""
        chosen: list[Server] = []
        for name in self.options.gateways:
            if name == "nginx":
                chosen.append(servers.nginx(self.direct, self.folder))
            elif name == "litellm":
                chosen.append(servers.litellm(os.environ["LITELLM"], self.direct, self.folder, MODELS))
            elif name in OURS:
                chosen += [self._gateway(stack, name, checkout) for checkout in self.options.checkouts]
        return chosen

    def _gateway(self, stack: ExitStack, kind: str, checkout: Path | None) -> Server:
        database = stack.enter_context(databases.started()) if kind == "postgres" else None
        return servers.gateway(kind, self.direct, self.folder, database, checkout)

    def _alone(self, chosen: Sequence[Server]) -> None:
        cases = set(self.options.cases)
        for number in range(self.options.rounds):
            for server in chosen:
                if not cases.isdisjoint(("startup", "memory")):
                    self._in_fresh_process(server, lambda s, n=number: s.measure_alone(n, streams="memory" in cases))
                if "open" in cases:
                    self._in_fresh_process(server, lambda s, n=number: open_streams.measure(s, n))

    def _in_fresh_process(self, server: Server, measure: Callable[[Subject], Measurement]) -> None:
        with ExitStack() as stack:
            if subject := self._start(stack, server):
                self._keep(lambda: measure(subject))

    def _together(self, stack: ExitStack, direct: Subject, chosen: Sequence[Server]) -> None:
        subjects = [subject for server in chosen if (subject := self._start(stack, server))]
        for subject in subjects:
            self._attempt(lambda s=subject: s.warm_up(1))
        if "direct" in self.options.gateways:
            subjects.insert(0, direct)
        for number in range(self.options.rounds):
            for case in self.options.cases:
                for subject in self._for_case(case, direct, subjects):
                    self._keep(lambda s=subject, c=case, n=number: self._measure(s, c, n))

    def _for_case(self, case: str, direct: Subject, subjects: list[Subject]) -> list[Subject]:
        """The added time to the first token requires the time of the simulator itself; the tool loop is measured beside
        nginx.
        """
        if case in (*ALONE, APART):
            return []
        if case in LOOP:
            return [subject for subject in subjects if subject.server.tools or subject.server.name == table.RULER]
        if case in NEED_STORE:
            return [subject for subject in subjects if subject.server.chains]
        return subjects if case != "first" or direct in subjects else [direct, *subjects]

    def _measure(self, subject: Subject, case: str, number: int) -> Measurement:
        if case == "chain":
            return subject.measure_chain(number, self.options.chains, self.folder)
        if case == "stall":
            return stall.measure(subject, number)
        if case in LOOP:
            return LOOP[case](subject, number, self.options.seconds)
        return subject.measure(case, number, self.options.seconds)

    def _keep(self, measure: Callable[[], Measurement]) -> None:
        found = self._attempt(measure)
        if found is None:
            return
        self.found.append(found)
        _say(
            f"{found.case:10} {found.server:14} round {found.round + 1}  "
            + "  ".join(f"{k} {v:.3g}" for k, v in found.values.items())
        )
        for reason, count in found.errors.items():
            self._trouble(f"{found.case} {found.server}: {count} answers failed: {reason}")

    def _attempt(self, measure: Callable[[], _Found]) -> _Found | None:
        try:
            return measure()
        except LoadFailed as error:
            self._trouble(str(error))
            return None

    def _start(self, stack: ExitStack, server: Server) -> Subject | None:
        """Start a server for the lifetime of the stack; None if it does not start."""
        try:
            running = server.start(self.folder)
        except (NotReady, OSError) as error:
            self._trouble(f"{server.name} did not start: {error}")
            return None
        stack.callback(Running.stop, running)
        return Subject(server, running)

    def _trouble(self, text: str) -> None:
        self.troubles.append(text)
        _say(text)


def main() -> int:
    """Measure, print the tables, keep the figures; 1 if anything went wrong."""
    options = _options()
    _build()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unwinds like Ctrl-C, so that every server is stopped
    folder = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    session = Session(options, folder)
    session.run()
    report = "\n".join([_facts(options), "", table.render(session.names, session.found), *session.troubles])
    if APART in options.cases:
        report += f"\n{file_search.report(file_search.PASSAGES // 10 if options.quick else file_search.PASSAGES)}"
    (folder / "report.md").write_text(report)
    (folder / "runs.json").write_text(json.dumps([asdict(m) for m in session.found], indent=1))
    for data in folder.glob("*.db*"):
        data.unlink()
    sys.stdout.write(f"\n{report}")
    _say(f"\nkept with the servers' logs in {folder.relative_to(HERE.parent)}")
    return 1 if session.troubles else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gateways", default=",".join(GATEWAYS), help="from: direct, %(default)s (litellm needs the variable LITELLM)"
    )
    parser.add_argument("--cases", default=",".join(ALL_CASES), help="from: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over this many (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="length of a closed-loop run (%(default)s)")
    parser.add_argument("--chains", type=int, default=200, help="conversations of the case chain (%(default)s)")
    parser.add_argument(
        "--beside", type=Path, help="another checkout of this repository, whose gateways are measured beside these"
    )
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, and roughly how fast")
    options = parser.parse_args()
    options.gateways = _names(parser, options.gateways, ("direct", *GATEWAYS))
    options.cases = _names(parser, options.cases, ALL_CASES)
    options.checkouts = [None]
    if options.beside:
        options.checkouts.append(options.beside.resolve(strict=True))
    if options.quick:
        options.rounds, options.seconds, options.chains = 1, 1, 60
    if "litellm" in options.gateways and not os.environ.get("LITELLM"):
        options.gateways.remove("litellm")
        _say("litellm is left out: set LITELLM to its program (pip install 'litellm[proxy]' in a separate environment)")
    return options


def _build() -> None:
    """Compile the simulator and the load generator."""
    for program, package in (("go", "golang-go"), ("nginx", "nginx-light")):
        if shutil.which(program) is None:
            sys.exit(f"The benchmarks need {program}; on Debian: apt-get install -y {package}")
    subprocess.run(["go", "build", "-o", "bin/", "./upstream", "./load"], cwd=HERE, check=True)  # noqa: S607 - wherever Go is


def _names(parser: argparse.ArgumentParser, given: str, known: Sequence[str]) -> list[str]:
    names = given.split(",")
    if unknown := set(names).difference(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return names


def _facts(options: argparse.Namespace) -> str:
    """The conditions of the measurements."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown CPU",
    )
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {' beside '.join(map(_commit, options.checkouts))}, {os.cpu_count()} "
        f"cores ({cpu}), Python {platform.python_version()}, {_answer('nginx', '-v').removeprefix('nginx version: ')}, "
        f"{options.rounds} round(s) of {options.seconds:g} s, load {os.getloadavg()[0]:.1f}."
    )


def _commit(checkout: Path | None) -> str:
    return _answer("git", "-C", str(checkout or HERE), "describe", "--always", "--dirty")


def _answer(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # noqa: S603 - constant commands
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
