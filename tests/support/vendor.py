"""A simulation of the vendor's Responses API: it enforces the vendor's rules for tools and answers in the vendor's
frames.

Its streams differ from the public ones as the real ones do: no space after a colon, an id and a status comment in every
frame, items of every type under `msg_<uuid>`, an `output_index` that is sometimes wrong, no code deltas, and errors
inside HTTP 200.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tests.providers.responses_stream import CREATED, STARTED, Json, frames
from tests.support.script import Piece, Raw, Reply
from tests.support.upstream import ScriptedUpstream

_LISTED = frozenset(
    {
        "model",
        "input",
        "instructions",
        "previous_response_id",
        "conversation",
        "stream",
        "store",
        "tools",
        "tool_choice",
        "temperature",
    }
    | {"top_p", "max_output_tokens", "enable_thinking", "reasoning"}
)
_BUILT_IN = frozenset({"web_search", "web_extractor", "code_interpreter", "web_search_image", "image_search"})
_PREFIX = "<400> InternalError.Algo.InvalidParameter: "


class Turn:
    """One answer, event by event."""

    def __init__(self) -> None:
        self._events: list[Json] = [CREATED, STARTED]
        self._items: list[Json] = []
        self._tools: dict[str, Json] = {}
        self._ended = False

    def thinks(self, text: str) -> Turn:
        """A piece of thinking."""
        item = self._item("reasoning", summary=[])
        self._added(item)
        self._about("response.reasoning_text.delta", item, delta=text)
        self._about("response.reasoning_text.done", item, text=text)
        return self._done({**item, "summary": [{"type": "summary_text", "text": text}]})

    def searches(self, *queries: str, sources: Sequence[str] = (), done: bool = True) -> Turn:
        """A web search; its queries appear only at its end, where pages are listed once per query.

        Not `done`: the end is never sent.
        """
        item = self._item("web_search_call", status="in_progress", action={"type": "search", "query": "Web search"})
        self._added(item)
        for phase in ("in_progress", "searching", "completed"):
            self._about(f"response.web_search_call.{phase}", item)
        found = [{"type": "url", "url": url} for _ in queries for url in sources]
        action = {"type": "search", "query": "Web search", "queries": list(queries), "sources": found}
        return self._done({**item, "status": "completed", "action": action}, "web_search") if done else self

    def extracts(self, url: str, goal: str, output: str) -> Turn:
        """A page is read; the only events are those of the item."""
        item = self._item("web_extractor_call", status="in_progress", urls=[url], goal=goal)
        self._added(item)
        return self._done({**item, "status": "completed", "output": output}, "web_extractor")

    def computes(self, code: str, logs: str | None) -> Turn:
        """Code is run; the item contains it from the beginning. Without `logs` the end is never sent."""
        item = self._item("code_interpreter_call", status="in_progress", code=code, container_id="")
        self._added(item)
        for phase in ("in_progress", "interpreting", *(("completed",) if logs is not None else ())):
            self._about(f"response.code_interpreter_call.{phase}", item)
        if logs is None:
            return self
        return self._done(
            {**item, "status": "completed", "outputs": [{"type": "logs", "logs": logs}]}, "code_interpreter"
        )

    def finds_images(self, tool: str, arguments: str, output: str) -> Turn:
        """`web_search_image` or `image_search`."""
        item = self._item(f"{tool}_call", status="in_progress", name=tool, arguments=arguments)
        self._added(item)
        return self._done({**item, "status": "completed", "output": output}, tool)

    def calls(self, name: str, arguments: str, call_id: str = "call_1") -> Turn:
        """A function call, whose arguments are sent whole."""
        item = self._item("function_call", call_id=call_id, name=name, arguments="", status="in_progress")
        self._added(item)
        return self._done({**item, "arguments": arguments, "status": "completed"})

    def says(self, *texts: str) -> Turn:
        """The answer."""
        item = self._item("message", role="assistant", status="in_progress", content=[])
        self._added(item)
        for text in texts:
            self._about("response.output_text.delta", item, content_index=0, delta=text, logprobs=[])
        part: Json = {"type": "output_text", "text": "".join(texts), "annotations": [], "logprobs": None}
        self._about("response.output_text.done", item, content_index=0, text="".join(texts))
        return self._done({**item, "status": "completed", "content": [part]})

    def breaks(self, code: str, message: str) -> Turn:
        """The answer ends with an error."""
        self._ended = True
        error: Json = {"status": "failed", "output": [], "error": {"code": code, "message": message}}
        self._events.append({"type": "response.failed", "response": error})
        return self

    def reply(self) -> Reply:
        """The whole answer as the server writes it."""
        return Reply(pieces=self.pieces())

    def pieces(self) -> Sequence[Piece]:
        """The same, frame by frame."""
        if not self._ended:
            self._ended = True
            usage: Json = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
            billed = {
                **usage,
                "prompt_tokens_details": {"cached_tokens": 3},
                "x_billing_type": "response_api",
                "plugins": self._tools,
            }
            usage |= {"output_tokens_details": {"reasoning_tokens": 5}, "x_details": [billed], "x_tools": self._tools}
            response = {"status": "completed", "output": self._items, "usage": usage, "x_unknown": True}
            self._events.append({"type": "response.completed", "response": response})
        return [Raw(frame + b"\n\n") for frame in frames(*self._events).split(b"\n\n")[:-1]]

    def _item(self, kind: str, **fields: Any) -> Json:
        return {"type": kind, "id": f"msg_{uuid.uuid4()}", **fields}

    def _added(self, item: Json) -> None:
        self._about("response.output_item.added", item, item=item)

    def _done(self, item: Json, tool: str | None = None) -> Turn:
        # wrong except for the first, like documented samples
        self._about("response.output_item.done", item, item=item, output_index=0)
        self._items.append(item)
        if tool is not None:
            self._tools[tool] = {"count": self._tools.get(tool, {"count": 0})["count"] + 1}
        return self

    def _about(self, event: str, item: Mapping[str, Any], /, **fields: Any) -> None:
        about = {} if "item" in fields else {"item_id": item["id"]}
        self._events.append({"type": event, "output_index": len(self._items), **about, **fields})


def play(upstream: ScriptedUpstream, *turns: Turn) -> None:
    """Answer the next requests with these turns, in order; a request that breaks a rule gets the vendor's error instead
    of its turn.
    """
    left = deque(turns)

    def respond(body: Json) -> Reply:
        wrong = _broken_rule(body)
        return Turn().breaks("InvalidParameter", _PREFIX + wrong).reply() if wrong else left.popleft().reply()

    upstream.respond = respond


def _broken_rule(body: Json) -> str | None:
    if unlisted := body.keys() - _LISTED:
        return f"parameters that are ignored without a word: {unlisted}"
    tools: Sequence[Json] = body.get("tools", [])
    kinds = {tool["type"] for tool in tools}
    if unknown := kinds - _BUILT_IN - {"function"}:
        return f"tools that are ignored without a word: {unknown}"
    if "web_extractor" in kinds and "web_search" not in kinds:
        return "The web_extractor tool must be executed with web_search tool."
    if "code_interpreter" in kinds and not body.get("enable_thinking", True):
        return "Normal mode does not support Code interpreter. Please set enable_thinking to true."
    if body.get("tool_choice") == "required" and len(tools) != 1:
        return "tool_choice required needs exactly one tool."
    return _mistaken_name(body, tools) or _stray_result(body["input"])


def _mistaken_name(body: Json, tools: Sequence[Json]) -> str | None:
    names = {entry["name"] for entry in (*tools, *body["input"]) if entry.get("type") in ("function", "function_call")}
    return f"taken for built-in tools: {taken}" if (taken := names & (_BUILT_IN | {"file_search", "search"})) else None


def _stray_result(items: Sequence[Json]) -> str | None:
    for before, item in zip([{}, *items], items, strict=False):
        if item.get("type") == "function_call_output" and (before.get("type"), before.get("call_id")) != (
            "function_call",
            item["call_id"],
        ):
            return "a function_call_output must directly follow its function_call."
    return None
