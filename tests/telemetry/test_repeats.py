"""An outage is told when it begins, and once a minute."""

from __future__ import annotations

import io
import logging
from collections.abc import Generator

import pytest

from app.telemetry.log import Handler
from app.telemetry.repeats import SECONDS


class Stage:
    """A logger, what it has written, and a time that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.written = io.StringIO()
        self.handler = Handler("text", lambda: self.now)
        self.handler.setStream(self.written)
        self.log = logging.Logger("here")
        self.log.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        """Messages, without time and level."""
        return [line.partition(" here ")[2] for line in self.written.getvalue().splitlines()]


@pytest.fixture
def stage() -> Generator[Stage]:
    made = Stage()
    yield made
    made.handler.close()


def test_what_is_repeated_is_counted(stage: Stage) -> None:
    for number in range(600):
        stage.log.error("response %s could not be stored: port %d", f"01a22d2f-{number:04x}", number)
    assert stage.lines == ["response 01a22d2f-0000 could not be stored: port 0"]

    stage.now += SECONDS + 1
    stage.log.info("served")
    assert stage.lines[1:] == [
        "response 01a22d2f-0000 could not be stored: port 0 (599 more like this in 60 s)",
        "served",
    ]


def test_after_a_quiet_minute_it_is_told_again(stage: Stage) -> None:
    for pause in (0.0, SECONDS + 1, SECONDS + 1):
        stage.now += pause
        stage.log.warning("the database is unavailable")
    assert stage.lines == ["the database is unavailable"] * 3


def test_different_things_are_told_apart(stage: Stage) -> None:
    stage.log.warning("upstream %s fails", "alpha")
    stage.log.warning("upstream %s fails", "beta")
    stage.log.error("upstream %s fails", "beta")
    stage.log.info("upstream %s fails", "beta")
    stage.log.info("upstream %s fails", "beta")
    assert len(stage.lines) == 5


def _here() -> None:
    raise LookupError


def _there() -> None:
    raise LookupError


def test_two_mistakes_with_one_message_are_both_told(stage: Stage) -> None:
    for _ in range(2):
        for broken in (_here, _there):
            try:
                broken()
            except LookupError:
                stage.log.exception("failed")
    assert stage.written.getvalue().count("Traceback") == 2


def test_the_memory_is_bounded(stage: Stage) -> None:
    for number in range(3000):
        stage.log.warning("".join(chr(ord("a") + int(digit)) for digit in str(number)))
    assert len(stage.lines) == 3000
