"""`image_search`: what looks like an image of the conversation comes first, whichever way it was found."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncGenerator, Callable, Generator

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.hosted import HostedCall, ImageSearchCall
from app.tools.fetch.addresses import AddressGuard
from app.tools.image_search import TOOL, Engines, ImageSearch
from app.tools.images.base import image_providers, lens_providers
from app.tools.ports.tool import Missing, ToolFailure, ToolOutcome, ToolServices, ToolSpec, UrlCitation
from tests.support.site import Answer, Site, serving_site
from tests.tools.images.stage import Stage, bomb, encoded, png, results, scene, searxng, settings

# One event loop, and with it one worker process, for all of them.
pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGINAL = scene(1)
WHOLE = {"img_idx": 0, "bbox": [0, 0, 1000, 1000]}
Start = Callable[..., Stage]


def inline(content: bytes, kind: str = "image/png") -> str:
    """The image as a data: URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def thumbnail(picture: Image.Image) -> Answer:
    """A small JPEG of it."""
    return Answer(encoded(picture.resize((160, 120)), "JPEG", quality=60), 200, "image/jpeg")


def looking_from_here(spec: ToolSpec = TOOL) -> ToolSpec:
    """The tool on a machine whose own address is public."""

    def build(services: ToolServices) -> ImageSearch:
        lens, words = lens_providers(services.settings), image_providers(services.settings)
        return ImageSearch(Engines(lens, words, services.fetcher, AddressGuard(("127.0.0.1",)), 16 * 1024 * 1024))

    return msgspec.structs.replace(spec, build=build)


def keyed(site: Site, *names: str, **more: object) -> dict[str, object]:
    """Settings with keys of these services, all at the site."""
    return {
        **{f"{name}_api_key": "k" for name in names},
        "search_base_urls": dict.fromkeys(names, site.origin),
        "fetch_allow": ("127.0.0.1",),
        **more,
    }


def titles(outcome: ToolOutcome) -> list[object]:
    """Of the results, in order."""
    return [result["title"] for result in results(outcome)]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Generator[Site]:
    """The search services, and the web."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving_site() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def start(site: Site) -> AsyncGenerator[Start]:
    """Begins a conversation with these images; the settings default to the site as SearXNG."""
    stages: list[Stage] = []

    def begin(*images: str, spec: ToolSpec = TOOL, **values: object) -> Stage:
        stage = Stage(spec, settings(**(values or {"searxng_url": site.origin, "fetch_allow": ("127.0.0.1",)})), images)
        stages.append(stage)
        return stage

    yield begin
    for stage in stages:
        await stage.aclose()


@pytest.fixture
def gallery(site: Site) -> Site:
    """Four pictures in the web, with thumbnails; the third is the original, only smaller and paler.

    SearXNG knows all of them.
    """
    pale = Image.blend(ORIGINAL.resize((200, 150)), Image.new("RGB", (200, 150), "white"), 0.1)
    pictures = {"/a.png": scene(2), "/b.png": scene(3), "/same.png": pale, "/c.png": scene(4)}
    for path, picture in pictures.items():
        site.pages |= {path: png(encoded(picture)), f"/thumbnail{path}": thumbnail(picture)}
    searxng(site, ("A", "/a.png"), ("B", "/b.png"), ("Same", "/same.png"), ("C", "/c.png"), thumbnails=True)
    return site


async def test_what_looks_like_the_image_comes_first(gallery: Site, start: Start) -> None:
    stage = start(inline(encoded(ORIGINAL)))
    outcome = await stage.call('{"img_idx": 0, "bbox": [0, 0, 1000, 1000]}')
    assert isinstance(outcome.item, ImageSearchCall)
    assert (outcome.item.name, outcome.item.arguments) == ("image_search", '{"img_idx": 0, "bbox": [0, 0, 1000, 1000]}')
    first, *others = results(outcome)
    similarity = first.pop("similarity")
    assert isinstance(similarity, float)
    assert similarity > 0.9
    assert first == {
        "title": "Same",
        "url": gallery.url("/same.png"),
        "index": 1,
        "source": gallery.url("/page3"),
        "thumbnail": gallery.url("/thumbnail/same.png"),
    }
    assert {other["title"] for other in others} == {"A", "B", "C"}
    scores = [other["similarity"] for other in others]
    assert all(isinstance(score, float) and score < 0.6 for score in scores)
    assert scores == sorted(scores, key=str, reverse=True)
    assert outcome.text.splitlines()[:4] == [
        "1. Same",
        f"   url: {gallery.url('/same.png')}",
        f"   page: {gallery.url('/page3')} [1]",
        f"   similarity: {similarity:.2f} of 1",
    ]
    assert stage.cited[0] == UrlCitation(gallery.url("/page3"), "Same")


async def test_the_image_is_described_by_the_model_and_searched_for_in_its_words(gallery: Site, start: Start) -> None:
    stage = start(inline(encoded(scene(9))), inline(encoded(ORIGINAL)))
    stage.description = (
        'Here are the queries:\n1. "ellipses  in colour"\n\n- abstract ellipses\n* \u5f69\u8272\u692d\u5706\n4) one '
        "too many\n"
    )
    await stage.call({"img_idx": 1, "bbox": [0, 0, 1000, 1000]})
    [(question, [image])] = stage.questions
    assert "search queries" in question
    assert image.url.startswith("data:image/jpeg;base64,")
    asked = sorted(path.partition("&")[0] for path in gallery.paths if path.startswith("/search"))
    assert asked == [
        "/search?q=%E5%BD%A9%E8%89%B2%E6%A4%AD%E5%9C%86",
        "/search?q=abstract+ellipses",
        "/search?q=ellipses+in+colour",
    ]


async def test_only_the_box_is_described_and_compared(site: Site, start: Start) -> None:
    left, right = scene(5), scene(6)
    both = Image.new("RGB", (640, 240))
    both.paste(left, (0, 0))
    both.paste(right, (320, 0))
    site.pages |= {"/left.png": png(encoded(left)), "/right.png": png(encoded(right))}
    searxng(site, ("left", "/left.png"), ("right", "/right.png"))
    stage = start(inline(encoded(both)))
    outcome = await stage.call({"img_idx": 0, "bbox": [500, 0, 1000, 1000]})
    assert titles(outcome) == ["right", "left"]
    [(_, [image])] = stage.questions
    shown = Image.open(io.BytesIO(base64.b64decode(image.url.partition(",")[2])))
    assert shown.size == (320, 240)


async def test_an_image_by_url_is_fetched(gallery: Site, start: Start) -> None:
    gallery.pages["/mine.jpg"] = Answer(encoded(ORIGINAL, "JPEG"), 200, "image/jpeg")
    outcome = await start(gallery.url("/mine.jpg")).call(WHOLE)
    assert titles(outcome)[0] == "Same"


async def test_candidates_that_are_gone_or_hostile_are_dropped(site: Site, start: Start) -> None:
    site.pages |= {
        "/thumbnail/bomb.png": png(bomb()),
        "/bomb.png": png(bomb()),
        "/thumbnail/text.png": png(b"no picture"),
        "/thumbnail/dead.png": thumbnail(ORIGINAL),  # the image itself is gone
        "/no-thumbnail.png": png(encoded(ORIGINAL)),
        "/thumbnail/good.png": thumbnail(scene(2)),
        "/good.png": png(encoded(scene(2))),
    }
    names = ("bomb", "text", "dead", "no-thumbnail", "good", "gone")
    searxng(site, *((name, f"/{name}.png") for name in names), thumbnails=True)
    assert titles(await start(inline(encoded(ORIGINAL))).call(WHOLE)) == ["no-thumbnail", "good"]


async def test_nothing_found_is_no_failure(site: Site, start: Start) -> None:
    searxng(site)
    outcome = await start(inline(encoded(ORIGINAL))).call(WHOLE)
    assert results(outcome) == []
    assert outcome.text == "No similar images were found."


def lens(site: Site) -> None:
    """Serper Lens knows A and the original, in this order."""
    matches = [
        {"title": title, "link": site.url("/p"), "imageUrl": site.url(path)}
        for title, path in (("A", "/a.png"), ("Same", "/same.png"))
    ]
    site.pages["/lens"] = Answer.json({"organic": matches})


async def test_an_engine_for_images_is_asked_first_and_its_order_is_kept(gallery: Site, start: Start) -> None:
    lens(gallery)
    gallery.pages["/mine.png"] = png(encoded(ORIGINAL))
    stage = start(gallery.url("/mine.png"), spec=looking_from_here(), **keyed(gallery, "serper"))
    outcome = await stage.call(WHOLE)
    [visit] = [visit for visit in gallery.visits if visit.path == "/lens"]
    assert visit.json == {"url": gallery.url("/mine.png")}
    assert titles(outcome) == ["A", "Same"]
    assert [float(str(result["similarity"])) > 0.9 for result in results(outcome)] == [False, True]
    assert stage.questions == []


async def test_lens_is_told_no_address_of_an_inner_network(gallery: Site, start: Start) -> None:
    lens(gallery)
    gallery.pages["/mine.png"] = png(encoded(ORIGINAL))
    stage = start(gallery.url("/mine.png"), **keyed(gallery, "serper", searxng_url=gallery.origin))
    assert titles(await stage.call(WHOLE))[0] == "Same"
    assert "/lens" not in gallery.paths


@pytest.mark.parametrize("part", [True, False])
async def test_lens_is_not_asked_about_what_has_no_address(gallery: Site, start: Start, part: bool) -> None:
    lens(gallery)
    gallery.pages["/mine.png"] = png(encoded(ORIGINAL))
    image = gallery.url("/mine.png") if part else inline(encoded(ORIGINAL))
    stage = start(image, spec=looking_from_here(), **keyed(gallery, "serper", searxng_url=gallery.origin))
    outcome = await stage.call({"img_idx": 0, "bbox": [0, 0, 1000, 999 if part else 1000]})
    assert titles(outcome)[0] == "Same"
    assert "/lens" not in gallery.paths


async def test_an_engine_that_takes_bytes_gets_the_part_and_needs_no_model(gallery: Site, start: Start) -> None:
    web = {"visuallySimilarImages": [{"url": gallery.url("/same.png")}], "bestGuessLabels": [{"label": "ellipses"}]}
    gallery.pages["/v1/images:annotate"] = Answer.json({"responses": [{"webDetection": web}]})
    stage = start(inline(encoded(ORIGINAL)), **keyed(gallery, "google_vision"))
    outcome = await stage.call({"img_idx": 0, "bbox": [0, 0, 500, 500]})
    assert titles(outcome) == ["ellipses"]
    [visit] = [visit for visit in gallery.visits if visit.path == "/v1/images:annotate"]
    sent = msgspec.json.decode(visit.body)["requests"][0]["image"]["content"]
    assert Image.open(io.BytesIO(base64.b64decode(sent))).size == (160, 120)
    assert stage.questions == []


async def test_words_are_searched_when_the_engine_for_images_fails(gallery: Site, start: Start) -> None:
    gallery.pages["/v1/images:annotate"] = Answer.text("quota", status=429)
    stage = start(inline(encoded(ORIGINAL)), **keyed(gallery, "google_vision", searxng_url=gallery.origin))
    assert titles(await stage.call(WHOLE))[0] == "Same"
    alone = start(inline(encoded(ORIGINAL)), **keyed(gallery, "google_vision"))
    with pytest.raises(ToolFailure, match="no search service answered"):
        await alone.call(WHOLE)


async def test_without_a_description_the_model_is_told_why(gallery: Site, start: Start) -> None:
    stage = start(inline(encoded(ORIGINAL)))
    stage.description = ToolFailure("The model takes no images; GATEWAY_VISION_MODEL can name one that does.")
    with pytest.raises(
        ToolFailure, match=r"^The image cannot be described: The model takes no images; GATEWAY_VISION_MODEL can name"
    ):
        await stage.call(WHOLE)
    stage.description = " \n"
    with pytest.raises(ToolFailure, match="said nothing"):
        await stage.call(WHOLE)
    assert gallery.visits == []


async def test_without_an_engine_that_answers_the_model_is_told(site: Site, start: Start) -> None:
    site.pages["/search"] = Answer.text("broken", status=500)
    with pytest.raises(ToolFailure, match="no search service answered"):
        await start(inline(encoded(ORIGINAL))).call(WHOLE)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (inline(bomb()), "more than 50 million pixels"),
        (inline(b"%PDF-1.7", "application/pdf"), "is not a JPEG"),
        (inline(encoded(ORIGINAL)[:3000]), "is damaged"),
        ("data:image/png,%89PNG", "not in base64"),
        ("data:image/png;base64,abcde", "not in base64"),
        ("data:image/png;base64", "not in base64"),
        ("file:///etc/passwd", "cannot be loaded"),
        ("http://169.254.169.254/image.png", "cannot be loaded"),
        ("nothing", "cannot be loaded"),
    ],
    ids=["bomb", "pdf", "cut off", "percent", "bad base64", "no data", "file", "metadata", "no url"],
)
async def test_an_image_that_cannot_be_used_says_why(site: Site, start: Start, image: str, sentence: str) -> None:
    with pytest.raises(ToolFailure, match=sentence):
        await start(image).call(WHOLE)
    assert site.visits == []


async def test_a_huge_image_is_refused(site: Site, start: Start) -> None:
    site.pages |= {
        "/huge.png": Answer(encoded(ORIGINAL), 200, "image/png", repeat=0.0),
        "/page.png": Answer.html("no image"),
    }
    values = {"searxng_url": site.origin, "fetch_allow": ("127.0.0.1",), "limits": {"fetch_bytes": 5000}}
    for image, sentence in (
        (inline(bytes(5100)), "larger than 5000"),
        (site.url("/huge.png"), "larger"),
        (site.url("/page.png"), "html"),
    ):
        with pytest.raises(ToolFailure, match=sentence):
            await start(image, **values).call(WHOLE)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "not of the form"),
        ("[0]", "not of the form"),
        ({"img_idx": "first"}, "not of the form"),
        ({"img_idx": 0, "bbox": [0, 0, 1000]}, "not of the form"),
        ({"img_idx": 0, "bbox": ["a", 0, 1, 1]}, "not of the form"),
        ({"img_idx": 2, "bbox": [0, 0, 1000, 1000]}, "no image 2: .* the last one is 1"),
        ({"img_idx": -1, "bbox": [0, 0, 1000, 1000]}, "no image -1"),
        ({"img_idx": 0, "bbox": [600, 0, 400, 1000]}, "0 <= x1 < x2 <= 1000"),
        ({"img_idx": 0, "bbox": [0, 500, 1000, 500]}, "0 <= y1 < y2 <= 1000"),
        ({"img_idx": 0, "bbox": [0, 0, 1920, 1080]}, "thousandths"),
        ({"img_idx": 0, "bbox": [-10, 0, 500, 500]}, "thousandths"),
        ({"img_idx": 0, "bbox": [0, 0, 10, 10]}, "smaller than 10 pixels"),
    ],
)
async def test_wrong_arguments_become_a_sentence(site: Site, start: Start, arguments: object, sentence: str) -> None:
    with pytest.raises(ToolFailure, match=sentence):
        await start(inline(encoded(ORIGINAL)), inline(encoded(ORIGINAL))).call(arguments)
    assert site.visits == []


async def test_a_conversation_without_images_is_told_so(site: Site, start: Start) -> None:
    with pytest.raises(ToolFailure, match="no image in the conversation"):
        await start().call(WHOLE)
    assert site.visits == []


async def test_an_item_begins_whatever_the_arguments_are(start: Start) -> None:
    session = await start().session()

    @given(
        st.one_of(st.text(), st.sampled_from(['{"a":' * 50_000, "[" * 100_000, "\ud800", "null", '{"img_idx": []}']))
    )
    def begins(text: str) -> None:
        call = HostedCall("call_1", "image_search", text)
        item = session.item(call)
        assert isinstance(item, ImageSearchCall)
        assert (item.status, item.output, item) == ("in_progress", "", session.item(call))
        assert isinstance(msgspec.json.decode(item.arguments), dict)

    begins()


async def test_without_an_image_engine_the_setting_is_named(start: Start) -> None:
    for missing in (start(tavily_api_key="k").tool, start(exa_api_key="k", jina_api_key="k").tool):
        assert isinstance(missing, Missing)
        assert missing.setting == "GATEWAY_SEARXNG_URL"
        assert "GATEWAY_GOOGLE_VISION_API_KEY" in missing.reason


async def test_the_entry_takes_nothing_but_its_type(start: Start) -> None:
    tool = start().tool
    assert not isinstance(tool, Missing)
    request = tool.configure(TOOL.example, "tools[0]")
    assert (request.echo, request.native, request.names) == (TOOL.example, TOOL.example, ("image_search",))
    with pytest.raises(InvalidRequest) as refusal:
        tool.configure(msgspec.Raw(b'{"type":"image_search","size":"large"}'), "tools[2]")
    assert refusal.value.param == "tools[2].size"
