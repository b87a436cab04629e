"""Requests made from the gateway's own description: no mistake of the gateway, and nothing the description does not
know.
"""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# Schemathesis leaves type parameters open in what it exports.

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.e2e_dialects import ask
from tests.support.gateway import Gateway
from tests.support.operations import OPERATIONS
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream

_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_MOST, _FEWER = 100, 15
"""Examples of a request: for responses, and for everything else."""
_BUDGET = settings(
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    database=None,
)


@pytest.fixture(scope="session")
def description(dialects: Gateway) -> schemathesis.BaseSchema:
    """What `/openapi.json` says."""
    return schemathesis.openapi.from_url(f"{dialects.base_url}/openapi.json")


def test_no_operation_is_forgotten(description: schemathesis.BaseSchema) -> None:
    paths: dict[str, dict[str, Any]] = description.raw_schema["paths"]
    described = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}

    assert {operation for operation in described if " /v1/" in operation} == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("mode", ["positive", "negative"])
async def test_the_description_holds(
    dialects: Gateway, upstream: ScriptedUpstream, description: schemathesis.BaseSchema, operation: str, mode: str
) -> None:
    upstream.default = Reply.say("Yes.")
    stored = (await ask(dialects))["id"]
    method, path = operation.split()
    cases = description[path][method].as_strategy(generation_mode=schemathesis.GenerationMode(mode))

    @settings(_BUDGET, max_examples=_MOST if path.startswith("/v1/responses") else _FEWER)
    @given(case=cases, real=st.booleans())
    def check(case: schemathesis.Case[Any], *, real: bool) -> None:
        if real and case.path_parameters and "response_id" in case.path_parameters and case.method != "DELETE":
            case.path_parameters["response_id"] = stored
        if real and method == "POST" and isinstance(case.body, dict):
            case.body |= {"model": "vllm/other", "input": "Hi"}
        case.call_and_validate(headers={"authorization": f"Bearer {dialects.key}"}, checks=_CHECKS, timeout=10)

    check()
    async with dialects.http() as http:
        assert (await http.get("/readyz")).status_code == 200
