"""What is known of a request that is ready for its upstream."""

from __future__ import annotations

import pytest

from app.engine.model.preparation import estimated_size
from app.protocol.messages import Assistant, User
from app.providers.base import ModelCall


@pytest.mark.parametrize(
    ("text", "written"), [("a" * 1000, 1000), ("\N{ROCKET}" + "a" * 996, 1000), ("字" * 1000, 3000)]
)
def test_the_size_that_usage_is_estimated_from_is_that_of_the_text_as_it_is_sent(text: str, written: int) -> None:
    calls = [
        ModelCall(model="m", system=text),
        ModelCall(model="m", messages=(User(text),)),
        ModelCall(model="m", messages=(Assistant(text),)),
    ]
    assert all(written <= estimated_size(call) <= written + 100 for call in calls)
    assert estimated_size(ModelCall(model="m", prefix=text.encode(), messages=(User(text),))) >= 2 * written
