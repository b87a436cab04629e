"""The initial response: echoes the request, with the API's defaults for what was not sent."""

from __future__ import annotations

import msgspec

from app.engine.request.admission import Admitted
from app.engine.request.thinking import Decision
from app.protocol.wire.requests import given
from app.protocol.wire.response import ConversationEcho, ReasoningEcho, Response

_AUTO = msgspec.Raw(b'"auto"')
_PLAIN_TEXT = msgspec.Raw(b'{"format":{"type":"text"}}')


def begin(admitted: Admitted, decision: Decision, model: str, response_id: str, now: int) -> Response:
    """The response in progress.

    It shows the effective values, not those sent: `model` is the real one behind an alias.
    """
    request = admitted.request
    reasoning = request.reasoning
    summary = (reasoning.summary or reasoning.generate_summary) if reasoning else None
    return Response(
        id=response_id,
        created_at=now,
        status="in_progress",
        background=admitted.background,
        model=model,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        conversation=msgspec.UNSET if admitted.conversation is None else ConversationEcho(admitted.conversation),
        prompt_cache_key=request.prompt_cache_key,
        reasoning=ReasoningEcho(decision.effort, summary),
        enable_thinking=msgspec.UNSET if decision.enabled is None else decision.enabled,
        safety_identifier=request.safety_identifier,
        store=admitted.store,
        temperature=1.0 if request.temperature is None else request.temperature,
        text=_text(admitted),
        tool_choice=given(request.tool_choice) or _AUTO,
        tools=admitted.tools.echo,
        top_logprobs=request.top_logprobs or 0,
        top_p=1.0 if request.top_p is None else request.top_p,
        truncation=request.truncation or "disabled",
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        user=request.user,
        metadata=request.metadata or {},
    )


def _text(admitted: Admitted) -> msgspec.Raw:
    config = admitted.request.text
    if config is None or (config.format is None and config.verbosity is None):
        return _PLAIN_TEXT
    wanted = config.format
    shown: dict[str, object] = {"type": "text"}
    if wanted is not None and wanted.type == "json_schema":
        shown = {
            "type": wanted.type,
            "name": wanted.name,
            "description": wanted.description,
            "schema": wanted.schema,
            "strict": bool(wanted.strict),
        }
    elif wanted is not None:
        shown = {"type": wanted.type}
    echo: dict[str, object] = {"format": shown}
    if config.verbosity is not None:
        echo["verbosity"] = config.verbosity
    return msgspec.Raw(msgspec.json.encode(echo))
