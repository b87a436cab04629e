"""`web_search_image`: images on the web by words (the vendor's tool), from the first configured image engine that
answers.

Results are shown only after the image itself was checked: dead links, and links to something else, are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.protocol.messages import FunctionTool
from app.protocol.wire.hosted import HostedCall, HostedItem, WebSearchImageCall
from app.tools.images import by_words
from app.tools.images.base import MOST, FoundImage, ImageQuery, image_providers
from app.tools.images.links import SPARE, working
from app.tools.images.showing import HOW_TO_SHOW, as_arguments, as_list, as_output, shown
from app.tools.ports.fetcher import Fetcher
from app.tools.ports.tool import (
    Missing,
    Price,
    ToolContext,
    ToolFailure,
    ToolOutcome,
    ToolRequest,
    ToolServices,
    ToolSpec,
    check_entry,
)
from app.tools.search.base import Providers

_TYPE = "web_search_image"
_ENTRY = msgspec.Raw(b'{"type":"web_search_image"}')
_USUAL_COUNT = 10
_MOST_QUERIES = 5
_QUERY_CHARS = 400
_FUNCTION = FunctionTool(
    name=_TYPE,
    description=f"Search the web for images by words. Returns titles, image URLs and the pages they are from. "
    f"{HOW_TO_SHOW}.",
    parameters=msgspec.Raw(
        msgspec.json.encode(
            {
                "type": "object",
                "properties": {
                    "queries": {
                        "type": "array",
                        "items": {"type": "string"},
                        "minItems": 1,
                        "maxItems": _MOST_QUERIES,
                        "description": (
                            "What the images shall show, in a few words; several wordings or languages find more."
                        ),
                    },
                    "count": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": MOST,
                        "description": f"Images wanted, {_USUAL_COUNT} by default.",
                    },
                },
                "required": ["queries"],
            }
        )
    ),
)


class _Arguments(msgspec.Struct, frozen=True):
    queries: list[str] | str
    count: int | None = None


class _Session:
    functions: Sequence[FunctionTool] = (_FUNCTION,)
    announcements: Sequence[HostedItem] = ()
    note: str | None = None

    def __init__(self, engines: Providers[ImageQuery, FoundImage], fetcher: Fetcher, context: ToolContext) -> None:
        self._engines = engines
        self._fetcher = fetcher
        self._context = context

    def item(self, call: HostedCall) -> WebSearchImageCall:
        return WebSearchImageCall(id="", status="in_progress", arguments=as_arguments(call.arguments))

    def may_repeat(self, call: HostedCall) -> bool:
        del call
        return True

    async def run(self, call: HostedCall) -> ToolOutcome:
        queries, count = _read(call.arguments)
        candidates = await by_words.search(self._engines, queries, count + SPARE)
        results = shown([(image, None) for image in await working(self._fetcher, candidates, count)])
        text = as_list(results, self._context.cite) if results else "No images were found. Try other or fewer words."
        return ToolOutcome(
            text=text, item=msgspec.structs.replace(self.item(call), status="completed", output=as_output(results))
        )

    async def aclose(self) -> None:
        pass


def _read(arguments: str) -> tuple[list[str], int]:
    """Queries and count. Raises ToolFailure."""
    try:
        asked = msgspec.json.decode(arguments, type=_Arguments, strict=False)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ToolFailure('The arguments are not of the form {"queries": ["red panda"], "count": 10}.') from error
    wordings = [asked.queries] if isinstance(asked.queries, str) else asked.queries
    queries = list(dict.fromkeys(" ".join(text.split())[:_QUERY_CHARS] for text in wordings if text.strip()))
    if not 1 <= len(queries) <= _MOST_QUERIES:
        raise ToolFailure(f"`queries` must contain 1 to {_MOST_QUERIES} non-empty texts.")
    return queries, max(1, min(asked.count or _USUAL_COUNT, MOST))


class WebSearchImage:
    """The tool."""

    def __init__(self, engines: Providers[ImageQuery, FoundImage], fetcher: Fetcher) -> None:
        self._engines = engines
        self._fetcher = fetcher

    def configure(self, raw: msgspec.Raw, place: str) -> ToolRequest:
        """Accepts only `type`."""
        check_entry(raw, place)

        async def begin(context: ToolContext) -> _Session:
            return _Session(self._engines, self._fetcher.on_behalf(context.project_id), context)

        return ToolRequest(open=begin, echo=_ENTRY, names=(_TYPE,), native=_ENTRY)

    async def aclose(self) -> None:
        """Close the engines' connections."""
        await self._engines.aclose()


def _build(services: ToolServices) -> WebSearchImage | Missing:
    engines = image_providers(services.settings)
    if not engines.names:
        return Missing(
            "GATEWAY_SEARXNG_URL",
            "Set it to the address of a SearXNG server, or set the key of a search service that knows images: "
            "GATEWAY_SERPER_API_KEY, GATEWAY_BRAVE_API_KEY or GATEWAY_BOCHA_API_KEY. If GATEWAY_SEARCH_PROVIDERS is "
            "set, it must include it.",
        )
    return WebSearchImage(engines, services.fetcher)


TOOL = ToolSpec(
    type=_TYPE,
    build=_build,
    example=_ENTRY,
    description="Finds images on the web by words, and drops those that cannot be loaded.",
    price=Price(0.0, note="SearXNG; keyed providers charge by their own list"),
)
