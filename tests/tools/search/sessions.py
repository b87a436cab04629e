"""A web search as the engine asks for it, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

import msgspec

from app.protocol.wire.hosted import HostedCall, SearchAction, WebSearchCall
from app.settings import Settings
from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.ports.tool import Missing, Source, Tool, ToolContext, ToolOutcome, ToolServices, ToolSession
from app.tools.web_search import TOOL
from tests.support.site import Answer, Visit


class Sources:
    """Numbers them, as the engine does."""

    def __init__(self) -> None:
        self.cited: list[Source] = []

    def __call__(self, source: Source) -> int:
        if source not in self.cited:
            self.cited.append(source)
        return self.cited.index(source) + 1


async def _ask(question: str, *, images: object = (), max_tokens: int = 1000) -> str:
    raise AssertionError("a web search does not ask the model")


def build(**settings: object) -> Tool:
    fetcher = GuardedFetcher(allow=("127.0.0.1",), robots=False)
    built = TOOL.build(ToolServices(settings=Settings.model_validate(settings), fetcher=fetcher, files=None))
    assert not isinstance(built, Missing)
    return built


async def open_session(
    tool: Tool, entry: Mapping[str, object] | None = None, *, cite: Sources | None = None
) -> ToolSession:
    request = tool.configure(msgspec.Raw(msgspec.json.encode({"type": "web_search", **(entry or {})})), "tools[0]")
    context = ToolContext(
        project_id="p",
        response_id="r",
        model="qwen",
        images=(),
        include=frozenset(),
        note=None,
        ask=_ask,
        cite=cite or Sources(),
    )
    return await request.open(context)


def call_of(arguments: object, name: str = "web_search") -> HostedCall:
    return HostedCall(
        "call_1", name, arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    )


def action_of(outcome: ToolOutcome) -> SearchAction:
    assert isinstance(outcome.item, WebSearchCall)
    assert outcome.item.status == "completed"
    assert isinstance(outcome.item.action, SearchAction)
    return outcome.item.action


def found(*urls: str, text: str = "text") -> Answer:
    return Answer.json(
        {"results": [{"url": url, "title": f"About {url}", "content": text, "score": -i} for i, url in enumerate(urls)]}
    )


def query_of(visit: Visit) -> str:
    return parse_qs(visit.path.partition("?")[2])["q"][0]


def urls_of(outcome: ToolOutcome) -> list[str]:
    sources = action_of(outcome).sources
    assert sources is not msgspec.UNSET
    return [source.url for source in sources]
