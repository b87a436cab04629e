"""Numbers of several processes, seen as one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.metrics import Registry
from app.telemetry.table import SharedTable, Table

ROOT = Path(__file__).parents[2]

WORKER = """
import sys
from pathlib import Path
from app.telemetry.metrics import Registry
from app.telemetry.table import SharedTable
registry = Registry(SharedTable(Path(sys.argv[1])))
registry.counter("served", "Served.", "kind").add(int(sys.argv[2]), "a")
registry.histogram("took", "Took.", bounds=(1.0, 2.0)).observe(1.5)
registry.gauge("open", "Open.").set_function(lambda: {(): 3.0})
registry.gauge("expired", "Expired.", merge=max).set_function(lambda: {(): 7.0})
registry.sample()
print("ready", flush=True)
sys.stdin.read()
"""


class Worker:
    """A process that counts, until it is told to end."""

    def __init__(self, directory: Path, count: int) -> None:
        command = [sys.executable, "-c", WORKER, str(directory), str(count)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """End it without a farewell."""
        self.process.kill()
        self.process.communicate()


def _shown(registry: Registry) -> dict[str, float]:
    families = text_string_to_metric_families(registry.render().decode())
    return {
        sample.name + "".join(sample.labels.values()): sample.value for family in families for sample in family.samples
    }


def _registry(directory: Path) -> Registry:
    registry = Registry(SharedTable(directory))
    registry.counter("served", "Served.", "kind").add(1, "a")
    registry.histogram("took", "Took.", bounds=(1.0, 2.0)).observe(0.5)
    registry.gauge("open", "Open.").set_function(lambda: {(): 1.0})
    registry.gauge("expired", "Expired.", merge=max).set_function(lambda: {(): 5.0})
    return registry


def test_a_scrape_of_one_shows_all(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    workers = [Worker(tmp_path, 10), Worker(tmp_path, 100)]
    shown = _shown(registry)
    assert (shown["served_totala"], shown["open"], shown["expired"]) == (111, 7, 7)
    assert (shown["took_bucket1.0"], shown["took_bucket2.0"], shown["took_bucket+Inf"], shown["took_sum"]) == (
        1,
        3,
        3,
        3.5,
    )
    for worker in workers:
        worker.kill()
    shown = _shown(registry)
    assert (shown["served_totala"], shown["open"], shown["expired"]) == (111, 1, 5)  # counters stay, gauges go


def test_a_new_worker_counts_on_where_one_has_ended(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    for expected in (11, 21, 31):
        worker = Worker(tmp_path, 10)
        assert _shown(registry)["served_totala"] == expected
        worker.kill()
    assert len(list(tmp_path.glob("*.numbers"))) == 2


def test_a_name_that_is_half_written_is_not_there_yet(tmp_path: Path) -> None:
    registry = _registry(tmp_path)
    worker = Worker(tmp_path, 10)
    with (tmp_path / "1.names").open("ab") as names:
        names.write(b'["later",[')
    assert _shown(registry)["served_totala"] == 11
    worker.kill()


def test_more_labels_than_there_is_room_for_break_nothing(tmp_path: Path) -> None:
    counter = (registry := _registry(tmp_path)).counter("wide", "Wide.", "label")
    for number in range(140_000):
        counter.add(1, str(number))
    assert _shown(registry)["served_totala"] == 1


def test_alone_there_are_no_files() -> None:
    registry = Registry(Table())
    registry.counter("served", "Served.").add(2)
    assert registry.names == {"served_total": ()}
    assert _shown(registry)["served_total"] == 2
