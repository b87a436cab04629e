"""Where a stream is when its owner dies: requests whose upstream stops at a chosen event, and goes on when it is asked
again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tests.support.mcp_server import McpServer
from tests.support.script import Call, Gate, Json, Piece, Raw, Reply, Text, Thought

_WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
_GRAMMAR: Json = {"type": "custom", "name": "write"}
_FINISH = Raw(
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
)
"""Before the usage and the end."""
STALL = "stall"
"""What the search engine never answers."""
HM = Thought("Hm.")


class Point(msgspec.Struct, frozen=True):
    """One stream, up to the event that its client sees last."""

    turns: Sequence[Sequence[Piece]]
    """What the upstream says, turn by turn; it stops at the end of the last one."""
    event: str
    """The type of the last event that is surely seen."""
    tools: Sequence[str] = ()
    shown: bool = True
    """Somebody has seen more than the beginning."""
    ended: bool = False
    """It ends, before its owner dies."""


def _call(name: str, arguments: Json, index: int = 0) -> Call:
    text = json.dumps(arguments)
    return Call(name, [text[:7], text[7:]], id=f"call_{name}_{index}", index=index)


def _begun(name: str, *fragments: str) -> Call:
    return Call(name, fragments, id=f"call_{name}_0")


_SEARCH = _call("web_search", {"queries": ["tower"]})
_CODE = _call("code_interpreter", {"code": "print(2 ** 64)"})

POINTS: Mapping[str, Point] = {
    "in_progress": Point([[]], "response.in_progress", shown=False),
    "thinking": Point([[HM]], "response.reasoning_summary_text.delta"),
    "thought and called": Point([[HM, _begun("get_weather", "")]], "response.output_item.added", ("weather",)),
    "text begun": Point([[HM, Text("Half an ")]], "response.output_text.delta"),
    "text": Point([[HM, Text("Half an "), Text("answer")]], "response.output_text.delta"),
    "arguments": Point([[HM, _begun("get_weather", '{"ci')]], "response.function_call_arguments.delta", ("weather",)),
    "one of two calls": Point(
        [[HM, _call("get_weather", {}), Call("get_weather", ['{"a'], id="call_2", index=1)]],
        "response.function_call_arguments.delta",
        ("weather",),
    ),
    "input of a custom tool": Point(
        [[HM, _begun("write", '{"input": "ab')]], "response.output_item.added", ("custom",)
    ),
    "search called": Point([[HM, _begun("web_search", '{"quer')]], "response.output_item.done", ("search",)),
    "searching": Point(
        [[HM, _call("web_search", {"queries": [STALL]})], []], "response.web_search_call.searching", ("search",)
    ),
    "searched": Point([[HM, _SEARCH], []], "response.web_search_call.completed", ("search",)),
    "searched and thinking": Point([[HM, _SEARCH], [HM]], "response.reasoning_summary_text.delta", ("search",)),
    "annotation": Point(
        [[HM, _SEARCH], [Text("It is 321 metres high [1]."), _begun("get_weather", '{"ci')]],
        "response.output_text.annotation.added",
        ("search", "weather"),
    ),
    "tools listed": Point([[HM]], "response.mcp_list_tools.completed", ("mcp",)),
    "mcp arguments": Point([[HM, _begun("add", '{"a": 1')]], "response.output_item.added", ("mcp",)),
    "mcp running": Point([[HM, _call("slow", {})], []], "response.mcp_call.in_progress", ("mcp",)),
    "mcp done": Point([[HM, _call("add", {"a": 1, "b": 2})], []], "response.mcp_call.completed", ("mcp",)),
    "mcp failed": Point([[HM, _call("fail", {})], []], "response.mcp_call.failed", ("mcp",)),
    "code": Point(
        [[HM, _begun("code_interpreter", '{"code": "print(1')]], "response.code_interpreter_call_code.delta", ("code",)
    ),
    "code running": Point(
        [[HM, _call("code_interpreter", {"code": "import time; time.sleep(600)"})], []],
        "response.code_interpreter_call.interpreting",
        ("code",),
    ),
    "code done": Point([[HM, _CODE], []], "response.code_interpreter_call.completed", ("code",)),
    "finished": Point([[HM, Text("All of it."), _FINISH]], "response.output_text.delta"),
    "terminal": Point([[HM, Text("All of it.")]], "response.completed", ended=True),
}


class Stage:
    """The upstream's side of all points: it stops where a point says, and only once."""

    def __init__(self, mcp: McpServer | None = None) -> None:
        self._mcp = mcp
        self._asked: Counter[tuple[str, int]] = Counter()

    def reply(self, body: Json) -> Reply:
        """The answer to a request of the upstream."""
        messages = body["messages"]
        name = next(_text(message) for message in messages if message["role"] == "user")
        point, turn = POINTS[name], sum(message["role"] == "assistant" for message in messages)
        self._asked[name, turn] += 1
        pieces = list(point.turns[min(turn, len(point.turns) - 1)])
        if point.ended or (turn < len(point.turns) - 1 and self._asked[name, turn] == 1):
            return Reply(pieces=pieces)
        if self._asked[name, turn] == 1:
            return Reply(pieces=[*pieces, Gate()] if pieces else [Gate(), HM])
        return Reply(pieces=[Text("Hello again.")])

    def request(self, name: str) -> Json:
        """The request of a point."""
        entries: dict[str, Any] = {
            "weather": _WEATHER,
            "custom": _GRAMMAR,
            "search": {"type": "web_search"},
            "code": {"type": "code_interpreter", "container": {"type": "auto"}},
        }
        if self._mcp is not None:
            entries["mcp"] = {
                "type": "mcp",
                "server_label": "shop",
                "server_url": self._mcp.url(),
                "require_approval": "never",
            }
        return {"input": name, "tools": [entries[tool] for tool in POINTS[name].tools]}


def _text(message: Json) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
