"""Reads from SQLite: each is one call in a thread.

Through the async driver each step of a statement (cursor, execution, rows, closing) is a call in a thread of its own,
which takes four times as much CPU as the statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Engine, Executable, RowMapping

THREADS = 8
"""How many statements run at once; one that changes something may wait for another process's write lock."""


class SqliteReader:
    """Executes single statements in autocommit. Its connections are opened when first needed."""

    def __init__(self, engine: Engine) -> None:
        """`engine`: with a pool of `THREADS` connections."""
        self._engine = engine
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sqlite-reader")

    async def fetch(self, statement: Executable, parameters: Mapping[str, Any] | None) -> Sequence[RowMapping]:
        """All rows. Raises SQLAlchemy's errors."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._rows, statement, parameters)

    def close(self) -> None:
        """Let the running statements end, and close the connections."""
        self._threads.shutdown()
        self._engine.dispose()

    def _rows(self, statement: Executable, parameters: Mapping[str, Any] | None) -> Sequence[RowMapping]:
        with self._engine.connect() as connection:
            return connection.execute(statement, parameters).mappings().all()
