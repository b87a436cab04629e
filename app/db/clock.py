"""The database's own clock: replicas compare times by it, since their clocks differ."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class now_ms(FunctionElement[int]):  # noqa: N801 - reads as a function in a statement, like those of `func`
    """Milliseconds since 1970 when the statement began; the same for all its rows, so that an index can be used."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "postgresql")
def _on_postgres(element: now_ms, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)"


@compiles(now_ms, "sqlite")
def _on_sqlite(element: now_ms, compiler: Any, **options: Any) -> str:
    # Not `unixepoch('subsec')`: SQLite before 3.42 answers it with NULL. 2440587.5 is the Julian day of 1970.
    return "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
