"""Types shared by both dialects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from app.providers._lenient import as_count, as_object

Count = Annotated[int, msgspec.Meta(ge=0)]


class Report(msgspec.Struct, gc=False):
    """The fields that identify a payload without an answer as an error, in whichever envelope."""

    error: Any = None
    errors: Any = None
    message: Any = None
    error_message: Any = None
    """Only in flat errors, like the one before."""
    detail: Any = None
    """Only in those of FastAPI."""
    base_resp: Any = None
    """MiniMax's: it is in every answer, and 0 on success."""

    def reports(self) -> bool:
        """Whether it is an error, if there is no answer."""
        flat = self.message or self.error_message or self.detail
        return bool(self.error or self.errors or flat or as_count(as_object(self.base_resp).get("status_code")))


def report_of(value: Mapping[str, Any]) -> Report:
    """The error fields of an object that was read leniently."""
    return Report(**{name: value.get(name) for name in Report.__struct_fields__})
