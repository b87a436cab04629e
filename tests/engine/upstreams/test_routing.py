"""Which upstream gets a request, and what happens when it fails before its first byte."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing

import pytest

from app.engine.upstreams.routing import Route, Router
from app.protocol.deltas import Text, TurnFinished
from app.protocol.wire.errors import NotFound
from app.providers.base import ModelCall, UpstreamError, UpstreamModel
from tests.engine.scripted import ScriptedProvider, Turn

ANSWER: Turn = ([Text("a")], [TurnFinished("stop")])


def busy(retry_after: float = 0.001) -> UpstreamError:
    return UpstreamError("Busy.", status=503, retryable=True, retry_after=retry_after)


def route(
    provider: ScriptedProvider, *models: str, weight: int = 1, attempts: int = 3, exclusive: bool = False
) -> Route:
    listed = tuple(UpstreamModel(name) for name in models)
    return Route(provider, weight=weight, attempts=attempts, models=listed, exclusive=exclusive)


class Opened:
    """A router over routes, and what it did."""

    def __init__(self, *routes: Route, aliases: dict[str, str] | None = None) -> None:
        self.failures: list[str] = []
        self.router = Router(routes, aliases or {}, lambda name, _: self.failures.append(name))

    async def open(self, model: str = "m") -> tuple[str, list[str]]:
        """Send a request; the upstream that took it and the whole text."""

        async def build(route: Route) -> ModelCall:
            return ModelCall(model=f"{model} at {route.provider.name}")

        taken, first, rest = await self.router.open(self.router.target(model), build)
        async with aclosing(rest):
            batches = [first, *[batch async for batch in rest]]
        return taken.provider.name, [delta.text for batch in batches for delta in batch if isinstance(delta, Text)]


async def test_the_first_batch_and_the_rest_are_one_answer() -> None:
    provider = ScriptedProvider([[Text("a")], [Text("b")], [TurnFinished("stop")]])
    assert await Opened(route(provider)).open() == ("one", ["a", "b"])
    assert [call.model for call in provider.calls] == ["m at one"]
    assert provider.closed == 1


async def test_a_busy_upstream_is_asked_again() -> None:
    provider = ScriptedProvider(busy(), busy(), ANSWER)
    opened = Opened(route(provider))
    assert await opened.open() == ("one", ["a"])
    assert opened.failures == ["one", "one"]


async def test_attempts_are_limited_and_the_last_failure_is_told() -> None:
    provider = ScriptedProvider(busy(), busy(), ANSWER)
    with pytest.raises(UpstreamError, match="Busy"):
        await Opened(route(provider, attempts=2)).open()
    assert len(provider.calls) == 2


@pytest.mark.parametrize(
    "failure", [UpstreamError("No.", status=400), busy(retry_after=60)], ids=["refused", "asks to wait too long"]
)
async def test_some_failures_are_not_tried_again(failure: UpstreamError) -> None:
    provider = ScriptedProvider(failure, ANSWER)
    with pytest.raises(UpstreamError) as raised:
        await Opened(route(provider)).open()
    assert raised.value is failure
    assert len(provider.calls) == 1


async def test_an_answer_of_nothing_is_a_failure_worth_another_try() -> None:
    silent = route(ScriptedProvider([], ANSWER))
    opened = Opened(silent)
    assert await opened.open() == ("one", ["a"])
    assert opened.failures == ["one"]
    assert silent.resting_until > 0
    with pytest.raises(UpstreamError, match="answer was empty"):
        await Opened(route(ScriptedProvider([]), attempts=1)).open()


@pytest.mark.parametrize("retry_after", [0.0, 60.0])
async def test_another_upstream_takes_over_at_once_however_long_the_first_wants_rest(retry_after: float) -> None:
    one, two = ScriptedProvider(busy(retry_after), name="one"), ScriptedProvider(ANSWER, name="two")
    opened = Opened(route(one, attempts=1, weight=1000), route(two))
    answers = {(await opened.open())[0]}
    assert answers == {"two"}
    assert len(one.calls) <= 1


async def test_each_upstream_is_asked_with_its_own_attempts_in_turn() -> None:
    one, two = ScriptedProvider(busy(), name="one"), ScriptedProvider(busy(), busy(), ANSWER, name="two")
    opened = Opened(route(one, attempts=1), route(two, attempts=3))
    assert (await opened.open())[0] == "two"
    assert sorted(opened.failures) == ["one", "two", "two"]


async def test_an_upstream_that_failed_rests() -> None:
    one = ScriptedProvider(busy(), name="one")
    two = ScriptedProvider(*[ANSWER] * 30, name="two")
    opened = Opened(route(one, attempts=1), route(two))
    while not one.calls:
        await opened.open()
    left = 29 - len(two.calls)
    assert [(await opened.open())[0] for _ in range(left)] == ["two"] * left


async def test_a_request_that_cannot_be_built_is_not_sent() -> None:
    provider = ScriptedProvider(ANSWER)
    router = Router([route(provider)], {}, lambda _, __: None)

    async def refuse(_: Route) -> ModelCall:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await router.open(router.target("m"), refuse)
    assert provider.calls == []


async def test_weights_share_the_requests() -> None:
    one, two = ScriptedProvider(name="one"), ScriptedProvider(name="two")
    router = Router([route(one, weight=9), route(two)], {}, lambda _, __: None)
    first = Counter(router.target("m").routes[0].provider.name for _ in range(2000))
    assert 1650 <= first["one"] <= 1950


async def test_a_listed_model_goes_where_it_is_listed() -> None:
    lists = route(ScriptedProvider(name="lists"), "m")
    other = route(ScriptedProvider(name="other"), "n")
    open_to_all = route(ScriptedProvider(name="open"))
    router = Router([other, lists, open_to_all], {}, lambda _, __: None)
    assert [r.provider.name for r in router.target("m").routes] == ["lists"]
    assert {r.provider.name for r in router.target("unlisted").routes} == {"other", "lists", "open"}


async def test_a_model_that_nobody_serves_is_not_found() -> None:
    router = Router([route(ScriptedProvider(), "m", exclusive=True)], {"short": "m"}, lambda _, __: None)
    assert router.target("short").model == "m"
    with pytest.raises(NotFound) as raised:
        router.target("n")
    error = raised.value
    assert error.message == "The requested model 'n' does not exist. Available: m, short."
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")


async def test_models_are_listed_once_with_the_aliases() -> None:
    entry = UpstreamModel("m", 5, "qwen")
    routes = [Route(ScriptedProvider(), models=(entry,)), route(ScriptedProvider(), "n")]
    models = {
        model.id: model
        for model in Router(routes, {"short": "m", "far": "away", "n": "m"}, lambda _, __: None).models()
    }
    assert sorted(models) == ["far", "m", "n", "short"]
    assert models["short"] == UpstreamModel("short", 5, "qwen")


async def test_a_refresh_asks_for_the_lists_and_keeps_what_was_known_where_nobody_answers() -> None:
    fresh, dead = ScriptedProvider(name="fresh", listed=["new"]), ScriptedProvider(name="dead")
    dead.listed = UpstreamError("Gone.", status=503)
    fixed = ScriptedProvider(name="fixed", listed=["other"])
    opened = Opened(route(fresh), route(dead, "known"), Route(fixed, models=(UpstreamModel("named"),), fixed=True))
    await opened.router.refresh()
    assert [model.id for model in opened.router.models()] == ["new", "known", "named"]
    assert opened.failures == ["dead"]
    assert opened.router.target("new").routes[0].provider is fresh
