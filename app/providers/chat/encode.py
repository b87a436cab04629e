"""The Chat Completions dialect, requests: a call to the body of `POST /chat/completions`, and vendors' differences, as
data.

Sans-io.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from app.protocol.messages import Assistant, Call, FilePart, FunctionTool, ImagePart, Message, Part, TextPart, User
from app.providers.base import DEFAULT_SAMPLING, JsonObject, JsonSchema, ModelCall, Sampling, Thinking, UpstreamError
from app.providers.facts import ModelFacts

Force = Literal["named", "required"]
Format = Literal["json_object", "json_schema"]

_encode = msgspec.json.encode
_JSON_MODE = {"response_format": {"type": "json_object"}}

COMMON_SAMPLING: Mapping[str, str] = MappingProxyType(
    {
        "temperature": "temperature",
        "top_p": "top_p",
        "max_output_tokens": "max_tokens",
        "presence_penalty": "presence_penalty",
        "frequency_penalty": "frequency_penalty",
        "seed": "seed",
        "top_logprobs": "top_logprobs",
    }
)
"""Names that every server knows, except `max_tokens`, which OpenAI has renamed."""


def _every_format(_: ModelFacts) -> frozenset[Format]:
    return frozenset({"json_object", "json_schema"})


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of server does differently."""

    name: str
    think: Callable[[Thinking, ModelFacts], dict[str, Any]]
    """The parameters for thinking, for a model that can think.

    `enabled` is set whenever effort or budget are; no effort is "none".
    """
    reasoning_field: str | None
    """The field of an assistant message for its thinking; None: there is none."""
    separates_thinking: bool = False
    """Thinking is always separated from the answer; elsewhere a parser must be configured for it."""
    sampling: Mapping[str, str] = COMMON_SAMPLING
    """Field of `Sampling` -> name on the wire; missing ones are not sent."""
    whole_answers: bool = True
    """An unstreamed answer may be requested whole."""
    forced_calls: frozenset[Force] = frozenset({"named", "required"})
    forced_calls_while_thinking: bool = True
    formats: Callable[[ModelFacts], frozenset[Format]] = _every_format
    """The formats that are enforced for a model."""
    formats_while_thinking: bool = False
    files: Literal["never", "by_model", "always"] = "never"
    file_urls: bool = False
    image_urls: bool = False
    """It fetches images itself unless the operator says otherwise.

    Only a service outside the operator's network may: a server inside it can reach what no client should.
    """
    strict_tools: bool = False
    """`strict` of a function has an effect."""
    quota_passes: bool = False
    """`insufficient_quota` is a limit that resets, not an exhausted balance."""
    identifiers: frozenset[Literal["user", "prompt_cache_key"]] = frozenset()
    """Which of these it accepts."""
    tokenizer: Literal["of messages", "of text"] | None = None
    """What its `/tokenize` takes, beside the API's own paths; a server that takes text renders it by
    `/apply-template`.
    """


# --- Messages
# ------------------------------------------------------------------------------------------------------------------


def encode_messages(messages: Sequence[Message], dialect: Dialect, *, reasoning: bool) -> bytes:
    """The messages, comma-separated, without brackets. Raises UpstreamError 400 for a file the dialect cannot carry."""
    return b"".join(_listed(_pieces(messages, dialect, dialect.reasoning_field if reasoning else None)))


def _pieces(messages: Sequence[Message], dialect: Dialect, reasoning_field: str | None) -> list[bytes]:
    """The messages in pieces, each encoded once, at half the cost of dictionaries; a comma precedes every message."""
    pieces: list[bytes] = []
    for message in messages:
        if type(message) is User:
            content = message.content
            pieces += (
                b',{"role":"user","content":',
                _encode(content if isinstance(content, str) else _content(content, dialect)),
                b"}",
            )
        elif type(message) is Assistant:
            pieces += _assistant(message, reasoning_field)
        else:
            pieces += (
                b',{"role":"tool","tool_call_id":',
                _encode(message.call_id),
                b',"content":',
                _encode(message.content),
                b"}",
            )
    return pieces


def _listed(pieces: list[bytes]) -> list[bytes]:
    """The pieces without the comma before the first entry."""
    if pieces:
        pieces[0] = pieces[0].removeprefix(b",")
    return pieces


def _assistant(message: Assistant, reasoning_field: str | None) -> Sequence[bytes]:
    text, calls = message.text, message.calls
    thinking = called = b""
    if reasoning_field and message.reasoning:
        thinking = b',"%b":%b' % (reasoning_field.encode(), _encode(message.reasoning))
    if calls:
        called = b',"tool_calls":[%b]' % b",".join(map(_call, calls))
    if not (text or thinking or called):  # a turn with only thinking leaves nothing if thinking is omitted
        return ()
    # Empty rather than null beside calls: every server accepts that, and templates that concatenate do, too.
    return (b',{"role":"assistant","content":', _encode(text), thinking, called, b"}")


def _call(call: Call) -> bytes:
    written = _encode(call.call_id), _encode(call.name), _encode(call.arguments)
    return b'{"id":%b,"type":"function","function":{"name":%b,"arguments":%b}}' % written


def _content(parts: Sequence[Part], dialect: Dialect) -> str | list[dict[str, Any]]:
    """Text alone as one string, since text models and older templates accept nothing else."""
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "\n".join(texts) if len(texts) == len(parts) else [_part(part, dialect) for part in parts]


def _part(part: Part, dialect: Dialect) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case ImagePart(url, detail):
            image = {"url": url} if detail == "auto" else {"url": url, "detail": detail}
            return {"type": "image_url", "image_url": image}
        case FilePart():
            return {"type": "file", "file": _file(part, dialect)}


def _file(part: FilePart, dialect: Dialect) -> dict[str, str]:
    if dialect.files == "never" or (part.file_data is None and not (part.file_url and dialect.file_urls)):
        means = "files" if dialect.files == "never" else "files by URL"
        raise UpstreamError(f"The upstream cannot take {means}.", status=400, code="unsupported_file", param="input")
    given = {
        "filename": part.filename,
        "file_data": part.file_data,
        "file_url": part.file_url if part.file_data is None else None,
    }
    return {name: value for name, value in given.items() if value is not None}


# --- The request
# ---------------------------------------------------------------------------------------------------------------


def encode_call(call: ModelCall, dialect: Dialect, facts: ModelFacts, *, stream: bool) -> Sequence[bytes]:
    """The request's body in pieces: the system message, the prefix unchanged, the messages, then the parameters.

    Raises UpstreamError 400 for what the dialect cannot express.
    """
    system, answer_format = _formatted(call, dialect, facts)
    head = b"" if system is None else _encode({"role": "system", "content": system})
    parameters = _parameters(call, dialect, facts) | answer_format | _streaming(stream=stream)
    messages: list[bytes] = []
    for encoded in (head, call.prefix):
        if encoded:
            messages += (b",", encoded)
    messages += _pieces(call.messages, dialect, dialect.reasoning_field)
    return (b'{"model":%b,"messages":[' % _encode(call.model), *_listed(messages), b"],%b" % _encode(parameters)[1:])


def _parameters(call: ModelCall, dialect: Dialect, facts: ModelFacts) -> dict[str, Any]:
    sent = _sampling(call.sampling, dialect.sampling)
    if call.tools:
        sent["tools"] = [_tool(tool, dialect) for tool in call.tools]
        sent["parallel_tool_calls"] = call.parallel_tool_calls
        if call.forced_call is not None:
            name = call.forced_call.name
            sent["tool_choice"] = "required" if name is None else {"type": "function", "function": {"name": name}}
    for name in dialect.identifiers:
        value = getattr(call, name)
        if value is not None:
            sent[name] = value
    return sent | _thinking(call.thinking, dialect, facts)


def _streaming(*, stream: bool) -> dict[str, Any]:
    # Without the option usage is never sent, and clients see zeros.
    return {"stream": True, "stream_options": {"include_usage": True}} if stream else {"stream": False}


def _sampling(sampling: Sampling, names: Mapping[str, str]) -> dict[str, Any]:
    if sampling == DEFAULT_SAMPLING:
        return {}
    sent = {wire: value for field, wire in names.items() if (value := getattr(sampling, field)) is not None}
    if sampling.top_logprobs is not None and "top_logprobs" in names:
        sent["logprobs"] = True
    return sent


def _tool(tool: FunctionTool, dialect: Dialect) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None and dialect.strict_tools:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _thinking(thinking: Thinking, dialect: Dialect, facts: ModelFacts) -> dict[str, Any]:
    """What was requested, in the dialect's terms; what the model cannot do is omitted, since servers refuse it."""
    if facts.thinking == "never":
        return {}
    if thinking.enabled is False or thinking.effort == "none":
        thinking = Thinking(enabled=None if facts.thinking == "always" else False)
    elif thinking != Thinking():
        thinking = Thinking(enabled=True, effort=thinking.effort, budget=thinking.budget)
    return dialect.think(thinking, facts)


def think_by_template(thinking: Thinking, facts: ModelFacts) -> dict[str, Any]:
    """The switches of Qwen's chat template, which vLLM, SGLang and llama.cpp pass on.

    It has neither effort nor budget.
    """
    switches: dict[str, bool] = {}
    if thinking.enabled is not None:
        switches["enable_thinking"] = thinking.enabled
    if facts.preserves_thinking and thinking.enabled is not False:
        switches["preserve_thinking"] = True
    return {"chat_template_kwargs": switches} if switches else {}


def _formatted(call: ModelCall, dialect: Dialect, facts: ModelFacts) -> tuple[str | None, dict[str, Any]]:
    """The system message and `response_format`.

    A schema that is not enforced is added to the prompt, and JSON mode is used, for which the prompt must mention JSON:
    otherwise servers refuse it, or models fill the answer with blanks.
    """
    match call.format:
        case None:
            return call.system, {}
        case JsonSchema() as wanted if "json_schema" in dialect.formats(facts):
            return call.system, {"response_format": {"type": "json_schema", "json_schema": _schema(wanted)}}
        case JsonSchema(schema=schema):
            told = f"Answer with one JSON object that follows this JSON schema: {bytes(schema).decode()}"
        case JsonObject() if "json" in (call.system or "").lower():
            told = ""
        case JsonObject():
            told = "Answer with one JSON object."
    system = "\n\n".join(filter(None, (call.system, told)))
    return system, _JSON_MODE


def _schema(wanted: JsonSchema) -> dict[str, Any]:
    given = {"name": wanted.name, "description": wanted.description, "schema": wanted.schema, "strict": wanted.strict}
    return {name: value for name, value in given.items() if value is not None}
