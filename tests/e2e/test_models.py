"""`/v1/models`, and what a model's name leads to."""

from __future__ import annotations

from collections.abc import Generator

import openai
import pytest

from tests.e2e.streams import MODEL
from tests.support.gateway import Gateway, running_gateway
from tests.support.upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def gateway(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """One that has an alias, and in front of a server that serves only what it lists."""
    upstream_server.reset()
    with running_gateway(
        tmp_path_factory.mktemp("models"),
        upstream_server.url,
        upstream_dialect="llamacpp",
        aliases='{"gpt-4o": "qwen3-8b"}',
    ) as running:
        yield running


async def test_the_list(client: openai.AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]

    assert [model.id for model in models] == [MODEL, "gpt-4o"]
    assert {model.object for model in models} == {"model"}
    assert await client.models.retrieve("gpt-4o") == models[1]


async def test_an_unknown_model(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    with pytest.raises(openai.NotFoundError) as looked_up:
        await client.models.retrieve("gpt-5")
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as asked:
            await client.responses.create(model="gpt-5", input="Hi", stream=stream)
        assert (asked.value.code, asked.value.param) == ("model_not_found", "model")
        assert "The requested model 'gpt-5' does not exist." in asked.value.message

    assert looked_up.value.code == "model_not_found"
    assert not upstream.requests


async def test_a_name_with_slashes_is_one_name(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await client.models.retrieve("Qwen/Qwen3-8B")

    assert "'Qwen/Qwen3-8B'" in refused.value.message


async def test_an_alias_asks_for_the_real_model(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    first = await client.responses.create(model="gpt-4o", input="Hi")
    await client.responses.create(model="gpt-4o", input="More", previous_response_id=first.id)

    assert [request.body["model"] for request in upstream.requests] == [MODEL, MODEL]
