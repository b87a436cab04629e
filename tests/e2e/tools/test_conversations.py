"""Built-in tools in a conversation: later turns read what the model read, not what the items show."""

from __future__ import annotations

import openai
import pytest

from tests.e2e.streams import MODEL, final, sent
from tests.e2e.tools.test_loop import SEARCH, call
from tests.support.gateway import Gateway
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream


@pytest.mark.usefixtures("site")
async def test_the_next_turn_reads_what_the_model_read(
    client: openai.AsyncOpenAI, gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    made = await client.conversations.create()
    upstream.script(
        Reply(pieces=[call("web_search", {"queries": ["tower height"]})]),
        Reply.say("It is 321 metres high [1]."),
        Reply.say("Yes."),
    )
    body = {"model": MODEL, "input": "How high?", "conversation": made.id, "tools": [SEARCH]}
    async with gateway.http() as http:
        final((await http.post("/v1/responses", json={**body, "stream": True})).content)
        read = sent(upstream)
        await http.post("/v1/responses", json={**body, "input": "Sure?"})

    assert [message["role"] for message in read] == ["user", "assistant", "tool"]
    assert sent(upstream)[:3] == read
    assert [message["role"] for message in sent(upstream)[3:]] == ["assistant", "user"]
    kinds = [item.type async for item in client.conversations.items.list(made.id, order="asc")]
    assert kinds == ["message", "web_search_call", "message", "message", "message"]
