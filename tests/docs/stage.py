"""What docs/tools.md is played on: a scripted model, and behind the tools a web site, a search engine and an MCP server
on loopback.

Only these stand in for something. The gateway, its tools, the sandbox, the files and their search are the real ones.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image, ImageDraw

from tests.support.gateway import Gateway, running_gateway
from tests.support.mcp_server import McpServer, serving_mcp
from tests.support.script import Call, Reply
from tests.support.site import Answer, Site, Visit, serving_site
from tests.support.upstream import ScriptedUpstream, models_page, serving

MODEL = "qwen3.7-plus"
_SITE, _MCP = "https://example.com", "https://mcp.example.com/mcp"
"""Addresses of the page that stand for the ones on loopback."""


class Stage(msgspec.Struct, frozen=True):
    """A gateway whose tools all run."""

    gateway: Gateway
    upstream: ScriptedUpstream
    addresses: Mapping[str, str]
    """Of the page -> on loopback."""

    def inward(self, text: str) -> str:
        """Text of the page as it is run."""
        for printed, real in self.addresses.items():
            text = text.replace(printed, real)
        return text

    def outward(self, text: str) -> str:
        """What was printed as the page shows it."""
        for printed, real in self.addresses.items():
            text = text.replace(real, printed)
        return text

    def play(self, replies: Sequence[Reply]) -> None:
        """Let the model say this next."""
        self.upstream.reset()
        self.upstream.pages["/v1/models"] = models_page(MODEL)
        self.upstream.script(*replies)


@contextmanager
def staged(directory: Path) -> Generator[Stage]:
    """Serve everything while the block runs."""
    with serving(ScriptedUpstream()) as upstream, serving_site() as site, serving_mcp() as mcp:
        upstream.pages["/v1/models"] = models_page(MODEL)
        _furnish(site)
        settings = {"searxng_url": site.origin, "fetch_allow": '["127.0.0.1"]'}
        with running_gateway(directory, upstream.url, **settings) as gateway:
            yield Stage(gateway, upstream, {_MCP: _address(mcp), _SITE: site.origin})


def _address(mcp: McpServer) -> str:
    return mcp.url("modern")


def _furnish(site: Site) -> None:
    site.pages["/tower"] = Answer.html(_TOWER, title="Eiffel Tower")
    site.pages["/search"] = lambda visit: _found(site, visit)
    site.pages["/map.png"] = Answer(_encoded(_scene(3)), 200, "image/png")
    picture = _scene(1)
    site.pages["/photo.jpg"] = Answer(_encoded(picture.resize((160, 120)), "JPEG"), 200, "image/jpeg")
    site.pages["/night.jpg"] = Answer(_encoded(_scene(2), "JPEG"), 200, "image/jpeg")
    site.pages["/report.md"] = Answer.text("# Report\n\nRevenue grew by 12 percent in 2025.\n")


def _found(site: Site, visit: Visit) -> Answer:
    """What SearXNG answers."""
    if "categories=images" in visit.path:
        images = [
            ("Eiffel Tower by day", "/photo.jpg"),
            ("Broken", "/gone.jpg"),
            ("Eiffel Tower by night", "/night.jpg"),
        ]
        return Answer.json(
            {
                "results": [
                    {
                        "title": title,
                        "url": site.url("/tower"),
                        "img_src": site.url(path),
                        "template": "images.html",
                        "score": 1 / number,
                    }
                    for number, (title, path) in enumerate(images, 1)
                ]
            }
        )
    results = [
        {
            "url": site.url("/tower"),
            "title": "Eiffel Tower",
            "content": "It is 330 metres tall.",
            "engine": "e",
            "score": 2.0,
        },
        {
            "url": site.url("/paris"),
            "title": "Sights of Paris",
            "content": "Towers and bridges.",
            "engine": "e",
            "score": 1.0,
        },
    ]
    return Answer.json({"query": "q", "results": results})


_TOWER = "<p>The Eiffel Tower is 330 metres tall. It opened on 31 March 1889.</p>" + "".join(
    f"<p>Paragraph {number} tells of rivets, paint and visitors, which nobody asked for here, at some length.</p>"
    for number in range(1, 60)
)


def _scene(seed: int) -> Image.Image:
    """A picture like no other: ellipses in many colours."""
    chance = random.Random(seed)  # noqa: S311 - the same picture in every run
    picture = Image.new("RGB", (320, 240), (seed * 60 % 256, 90, 160))
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        left, top = chance.randrange(320), chance.randrange(240)
        colour = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
        pen.ellipse((left, top, left + chance.randrange(20, 150), top + chance.randrange(20, 150)), fill=colour)
    return picture


def _encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


def furnish_directory(directory: Path) -> None:
    """The files of the reader that examples open."""
    (directory / "handbook.md").write_text(
        "# Travel\n\nTrains are booked in second class. Flights need the consent of your manager.\n\n"
        "# Leave\n\nEverybody has 30 days of leave a year.\n",
        encoding="utf-8",
    )
    (directory / "sales.csv").write_text("month,amount\nJan,120\nFeb,150\nMar,90\n", encoding="utf-8")
    (directory / "photo.png").write_bytes(_encoded(_scene(1)))


def calls(*wanted: tuple[str, Mapping[str, Any]]) -> Reply:
    """The model calls these functions side by side."""
    return Reply(
        pieces=[
            Call(name, [json.dumps(arguments, ensure_ascii=False)], id=f"call_{index}", index=index)
            for index, (name, arguments) in enumerate(wanted)
        ]
    )


_PLOT = """\
import pandas as pd
import matplotlib.pyplot as plt

sales = pd.read_csv("sales.csv")
sales.plot.bar(x="month", y="amount")
plt.show()
print("total:", sales["amount"].sum())"""


def scripts(stage: Stage) -> Mapping[str, Sequence[Reply]]:
    """What the model says in each example."""
    tower = stage.inward("https://example.com/tower")
    extract = "Evidence in page:\nIt opened on 31 March 1889.\n\nSummary:\nThe tower opened in 1889."
    read_tower = ("web_extractor", {"urls": [tower], "goal": "When did it open?"})
    return {
        "several": [
            calls(
                ("web_search", {"queries": ["Eiffel Tower height"]}),
                ("code_interpreter", {"code": "print(330 * 3.28084)"}),
            ),
            Reply.say("It is 330 metres tall [1], which is 1083 feet."),
        ],
        "stream": [
            calls(("code_interpreter", {"code": "print(2**64)"})),
            Reply.say("2 to the 64th is 18446744073709551616."),
        ],
        "turns": [
            calls(("code_interpreter", {"code": "numbers = list(range(1, 11))"})),
            Reply.say("I have the numbers."),
            calls(("code_interpreter", {"code": "sum(numbers)"})),
            Reply.say("They add up to 55."),
        ],
        "web_search": [
            calls(("web_search", {"queries": ["Eiffel Tower height"]})),
            Reply.say("It is 330 metres tall [1]."),
        ],
        "web_extractor": [calls(read_tower), Reply.say(extract), Reply.say("It opened on 31 March 1889 [1].")],
        "code_interpreter": [
            calls(("code_interpreter", {"code": _PLOT})),
            Reply.say("The total is 360. Here is the [chart](sandbox:/mnt/data/plot-1.png)."),
        ],
        "file_search": [
            calls(("knowledge_search", {"queries": ["How many days of leave do employees have?"]})),
            Reply.say("You have 30 days of leave a year [1]."),
        ],
        "web_search_image": [
            calls(("web_search_image", {"queries": ["Eiffel Tower"], "count": 2})),
            Reply.say("Here are two."),
        ],
        "image_search": [
            calls(("image_search", {"img_idx": 0, "bbox": [0, 0, 1000, 1000]})),
            Reply.say("Eiffel Tower Paris\ntower by day"),
            Reply.say("It looks like the Eiffel Tower."),
        ],
        "mcp": [calls(("mcp__calculator__add", {"a": 2, "b": 40})), Reply.say("The sum is 42.")],
        "approval": [calls(("mcp__store__delete", {})), Reply.say("It is done.")],
        "client": [calls(("shell", {"commands": ["echo hello"]})), Reply.say("It prints hello.")],
        "files": [Reply.say("Trains are booked in second class.")] * 3,
        "limits": [
            calls(("code_interpreter", {"code": "print(1)"}), ("code_interpreter", {"code": "print(2)"})),
            Reply.say("It printed 1; the second call was not made."),
        ],
        "failure": [
            calls(("web_extractor", {"urls": ["http://169.254.169.254/latest/meta-data/"], "goal": "credentials"})),
            Reply.say("That page cannot be read."),
        ],
    }
