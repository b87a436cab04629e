"""The Responses dialect, requests: one turn of the model as the body of `POST /responses`.

For upstreams with this API, such as the vendor of Qwen. Its documentation and behaviour determine the rules here:
it silently ignores unlisted parameters, so none of those is sent. Responses are read in `_responses_decode.py`.

Functions named like the vendor's own tools are renamed (`_responses_native.py`), or they would be mistaken for those.
Earlier calls of built-in tools are sent as calls of such functions, since results belong into results: as assistant
text, a page's content would speak with the model's voice, and models imitate what they seem to have written. Only if
the vendor runs a tool itself in this request, its earlier calls are omitted: shown a function that is not offered, the
model would call it instead of the tool. The vendor does not require them either, and the model can search again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgspec

from app.protocol.messages import (
    Assistant,
    Call,
    FilePart,
    FunctionTool,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolResult,
    User,
)
from app.providers.base import ModelCall, Sampling, Thinking
from app.providers.responses.native import homeward, outward, tool_type

_encode = msgspec.json.encode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _CallItem(msgspec.Struct):
    """Identifies a function call among input items, and its name."""

    type: str = ""
    call_id: str = ""
    name: str = ""


_decode_call = msgspec.json.Decoder(_CallItem).decode


def encode_call(call: ModelCall) -> bytes:
    """The body of `POST /responses`: always streamed, and never stored there, since the gateway keeps the state."""
    body: dict[str, object] = {"model": call.model}
    if call.system is not None:
        body["instructions"] = call.system
    native = [tool_type(entry) for entry in call.native_tools]
    prefix, messages = (
        _without_calls(call.prefix, call.messages, frozenset(native)) if native else (call.prefix, call.messages)
    )
    body["input"] = msgspec.Raw(b"[%b]" % _input(prefix, messages))
    tools = [*({"type": name} for name in native), *(_function(tool) for tool in _offered(call))]
    if tools:
        body["tools"] = tools
    if call.forced_call is not None:
        body["tool_choice"] = "required"
    body |= _thinking(call.thinking)
    body |= _sampling(call.sampling)
    body["stream"] = True
    body["store"] = False
    return _encode(body)


def encode_messages(messages: Sequence[Message], *, reasoning: bool) -> bytes:
    """The messages as input items, comma-separated, without brackets; `reasoning` includes the thinking."""
    return b",".join(_items(messages, reasoning=reasoning))


def _offered(call: ModelCall) -> Sequence[FunctionTool]:
    """The functions to offer.

    `required` is accepted with exactly one function, so forcing a named one means offering no other.
    """
    forced = call.forced_call
    if forced is None or forced.name is None:
        return call.tools
    return [tool for tool in call.tools if tool.name == forced.name]


def _function(tool: FunctionTool) -> dict[str, object]:
    described = {} if tool.description is None else {"description": tool.description}
    return {"type": "function", "name": outward(tool.name), **described, "parameters": tool.parameters}


def _thinking(thinking: Thinking) -> dict[str, object]:
    """`enable_thinking`, which every model supports, and `reasoning.effort`, which overrides it.

    This API accepts no budget.
    """
    effort = "none" if thinking.enabled is False else thinking.effort
    switch: dict[str, object] = {} if thinking.enabled is None else {"enable_thinking": thinking.enabled}
    return switch if effort is None else {**switch, "reasoning": {"effort": effort}}


def _sampling(sampling: Sampling) -> dict[str, object]:
    """The three sampling parameters that this API reads."""
    read = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_output_tokens": sampling.max_output_tokens,
    }
    return {name: value for name, value in read.items() if value is not None}


def _without_calls(
    prefix: bytes, messages: Sequence[Message], names: frozenset[str]
) -> tuple[bytes, Sequence[Message]]:
    """The context without the calls of these functions and their results."""
    left_out: set[str] = set()
    # In JSON text a quotation mark inside a string is escaped, so this can only occur in a call.
    if any(b'"name":"%b"' % outward(name).encode() in prefix for name in names):
        prefix = _encoded_without_calls(prefix, names, left_out)
    remaining: list[Message] = []
    for message in messages:
        match message:
            case Assistant():
                left_out.update(call.call_id for call in message.calls if call.name in names)
                calls = tuple(call for call in message.calls if call.name not in names)
                remaining.append(msgspec.structs.replace(message, calls=calls))
            case ToolResult() if message.call_id in left_out:
                continue
            case _:
                remaining.append(message)
    return prefix, remaining


def _encoded_without_calls(prefix: bytes, names: frozenset[str], left_out: set[str]) -> bytes:
    """Encoded items without the calls of these functions and their results; the calls' ids are added to `left_out`."""
    kept: list[bytes] = []
    for item in _decode_items(b"[%b]" % prefix):
        call = _decode_call(item)
        if call.type == "function_call" and homeward(call.name) in names:
            left_out.add(call.call_id)
        elif call.call_id not in left_out:
            kept.append(bytes(item))
    return b",".join(kept)


def _input(prefix: bytes, messages: Sequence[Message]) -> bytes:
    """The prefix followed by the messages.

    The prefix is parsed only if results answer several calls at its end: each result must directly follow its call.
    """
    results = _leading_results(messages)
    if not prefix:
        return encode_messages(messages, reasoning=True)
    if len(results) < 2:  # noqa: PLR2004 - a single result already follows its call directly
        return b",".join((prefix, *_items(messages, reasoning=True)))
    earlier = [bytes(item) for item in _decode_items(b"[%b]" % prefix)]
    calls: list[tuple[str, bytes]] = []
    while earlier and (last := _decode_call(earlier[-1])).type == "function_call":
        calls.insert(0, (last.call_id, earlier.pop()))
    return b",".join((*earlier, *_paired(calls, results), *_items(messages[len(results) :], reasoning=True)))


def _items(messages: Sequence[Message], *, reasoning: bool) -> Iterable[bytes]:
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        match message:
            case User(content):
                shown = content if isinstance(content, str) else [_part(part) for part in content]
                yield _encode({"role": "user", "content": shown})
            case ToolResult():
                yield _result(message)
            case Assistant():
                results = _leading_results(messages[position:]) if message.calls else ()
                position += len(results)
                yield from _said(message, reasoning=reasoning)
                yield from _paired([(call.call_id, _call(call)) for call in message.calls], results)


def _said(message: Assistant, *, reasoning: bool) -> Iterable[bytes]:
    if reasoning and message.reasoning:
        # The item needs an id. Derived from the text, the same context yields the same bytes, which suits the
        # upstream's prompt cache.
        name = "rs_" + blake2b(message.reasoning.encode(), digest_size=12).hexdigest()
        yield _encode(
            {"type": "reasoning", "id": name, "summary": [{"type": "summary_text", "text": message.reasoning}]}
        )
    if message.text:
        yield _encode({"role": "assistant", "content": message.text})


def _leading_results(messages: Sequence[Message]) -> Sequence[ToolResult]:
    results: list[ToolResult] = []
    for message in messages:
        if not isinstance(message, ToolResult):
            break
        results.append(message)
    return results


def _paired(calls: Sequence[tuple[str, bytes]], results: Sequence[ToolResult]) -> Iterable[bytes]:
    """Each call directly followed by its result, then the results without a call."""
    waiting = {result.call_id: result for result in results}
    for call_id, encoded in calls:
        yield encoded
        if call_id in waiting:
            yield _result(waiting.pop(call_id))
    yield from map(_result, waiting.values())


def _call(call: Call) -> bytes:
    return _encode(
        {"type": "function_call", "call_id": call.call_id, "name": outward(call.name), "arguments": call.arguments}
    )


def _result(result: ToolResult) -> bytes:
    return _encode({"type": "function_call_output", "call_id": result.call_id, "output": result.content})


def _part(part: Part) -> dict[str, str]:
    match part:
        case TextPart(text):
            return {"type": "input_text", "text": text}
        case ImagePart(url):
            return {"type": "input_image", "image_url": url}
        case FilePart():
            known = {"filename": part.filename, "file_url": part.file_url, "file_data": part.file_data}
            return {"type": "input_file"} | {name: value for name, value in known.items() if value is not None}
