"""What both image searches are played on: painted pictures, a site that is search service and web at once, a scripted
model.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from typing import Any

import msgspec
from PIL import Image, ImageDraw

from app.protocol.messages import ImagePart
from app.protocol.wire.hosted import HostedCall
from app.settings import Settings
from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.ports.tool import (
    Missing,
    Source,
    ToolContext,
    ToolFailure,
    ToolOutcome,
    ToolServices,
    ToolSession,
    ToolSpec,
    UrlCitation,
)
from tests.support.site import Answer, Site


def settings(**values: Any) -> Settings:
    """The gateway's settings; keys may be plain text."""
    return Settings(**values)


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture like no other: ellipses in many colours."""
    chance = random.Random(seed)  # noqa: S311 - the same picture in every run

    def colour() -> tuple[int, int, int]:
        return chance.randrange(256), chance.randrange(256), chance.randrange(256)

    picture = Image.new("RGB", size, colour())
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        left, top = chance.randrange(size[0]), chance.randrange(size[1])
        pen.ellipse((left, top, left + chance.randrange(20, 150), top + chance.randrange(20, 150)), fill=colour())
    return picture


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The picture as a file's content."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def bomb() -> bytes:
    """Ten kilobytes of PNG that are 80 million pixels."""
    return encoded(Image.new("1", (10_000, 8_000)))


def png(content: bytes) -> Answer:
    """What an image server answers."""
    return Answer(content, 200, "image/png")


class Stage:
    """One conversation with one tool."""

    def __init__(self, spec: ToolSpec, settings: Settings, images: Sequence[str] = ()) -> None:
        """`images`: URLs of the conversation's images."""
        self.cited: list[Source] = []
        self.questions: list[tuple[str, Sequence[ImagePart]]] = []
        self.description: str | ToolFailure = "a scene"
        """What the model says about an image."""
        self.fetcher = GuardedFetcher(allow=settings.fetch_allow)
        self.tool = spec.build(ToolServices(settings=settings, fetcher=self.fetcher, files=None))
        self._spec = spec
        self._images = [ImagePart(url) for url in images]

    async def session(self) -> ToolSession:
        """The tool at the conversation's service."""
        assert not isinstance(self.tool, Missing), self.tool
        request = self.tool.configure(self._spec.example, "tools[0]")
        context = ToolContext(
            project_id="p1",
            response_id="r1",
            model="qwen",
            images=self._images,
            include=frozenset(),
            note=None,
            ask=self._ask,
            cite=self._cite,
        )
        return await request.open(context)

    async def call(self, arguments: object) -> ToolOutcome:
        """The model calls the tool; text is passed on as it is. Raises what the tool raises."""
        session = await self.session()
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        call = HostedCall("call_1", self._spec.type, text)
        outcome = await session.run(call)
        begun, ended = msgspec.to_builtins(session.item(call)), msgspec.to_builtins(outcome.item)
        assert begun["status"] == "in_progress"
        assert {**begun, "status": "completed", "output": ended["output"]} == ended
        await session.aclose()
        return outcome

    async def aclose(self) -> None:
        """Close every connection."""
        if not isinstance(self.tool, Missing):
            await self.tool.aclose()
        await self.fetcher.aclose()

    async def _ask(self, question: str, *, images: Sequence[ImagePart] = (), max_tokens: int = 1000) -> str:
        assert max_tokens > 0
        self.questions.append((question, images))
        if isinstance(self.description, ToolFailure):
            raise self.description
        return self.description

    def _cite(self, source: Source) -> int:
        assert isinstance(source, UrlCitation)
        if source not in self.cited:
            self.cited.append(source)
        return self.cited.index(source) + 1


def results(outcome: ToolOutcome) -> list[dict[str, object]]:
    """The item's `output`, decoded."""
    return msgspec.json.decode(msgspec.to_builtins(outcome.item)["output"], type=list[dict[str, object]])


def searxng(site: Site, *found: tuple[str, str], thumbnails: bool = False) -> None:
    """Let the site's SearXNG find these: title, and path or URL of the image; best first."""

    def address(place: str) -> str:
        return site.url(place) if place.startswith("/") and not place.startswith("//") else place

    site.pages["/search"] = Answer.json(
        {
            "results": [
                {
                    "title": title,
                    "url": site.url(f"/page{number}"),
                    "img_src": address(place),
                    "thumbnail_src": address(f"/thumbnail{place}") if thumbnails else "",
                    "template": "images.html",
                    "score": 1 / number,
                }
                for number, (title, place) in enumerate(found, 1)
            ]
        }
    )
