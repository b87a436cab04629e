"""The tool with the real sandbox service, which the gateway's own launcher starts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

import msgspec
import pytest
import pytest_asyncio

from app.protocol.messages import ImagePart
from app.protocol.wire.errors import InvalidRequest, NotFound, RateLimited, Unavailable
from app.protocol.wire.hosted import CodeInterpreterCall, HostedCall, Logs, PlotImage
from app.settings import Settings
from app.tools.code_interpreter import TOOL, CodeInterpreter
from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.ports.containers import Container, NewContainer
from app.tools.ports.files import FileContent, FileHit, FileQuery
from app.tools.ports.tool import ContainerFile, Missing, Source, ToolContext, ToolFailure, ToolServices
from app.tools.sandbox.client import SandboxBusy
from sandbox.protocol import Confinement, SessionInfo
from tests.sandbox.running import descendants, until_gone

# One loop, so that the sandbox service is started once.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PROJECT = "project-a"
BARE = {"type": "code_interpreter"}
EXPIRED = "[The sandbox used before has expired: its variables and files are gone. This is a new one.]\n"


class StoredFiles:
    """The project's uploaded files."""

    async def read(self, project_id: str, file_id: str) -> FileContent:
        if project_id != PROJECT or file_id != "file-1":
            raise NotFound("No such file.")
        return FileContent(file_id, "numbers.csv", b"a\n1\n2\n")

    async def check(self, project_id: str, vector_store_ids: Sequence[str]) -> None:
        raise NotFound(f"{project_id} has none of {vector_store_ids}")

    async def search(self, project_id: str, query: FileQuery) -> Sequence[FileHit]:
        raise NotFound(f"{project_id}: {query}")


class Turn:
    """A response that uses the tool."""

    def __init__(
        self, tool: CodeInterpreter, entry: object = BARE, note: str | None = None, project: str = PROJECT
    ) -> None:
        self.sources: list[Source] = []
        self._tool = tool
        self._entry = msgspec.Raw(json.dumps(entry).encode())
        self._note = note
        self._project = project

    async def run(self, *codes: str) -> list[tuple[str, CodeInterpreterCall]]:
        """What the model reads, and the item, of each call."""
        session = await self._tool.configure(self._entry, "tools[0]").open(self._context())
        done: list[tuple[str, CodeInterpreterCall]] = []
        for code in codes:
            call = HostedCall("call_1", "code_interpreter", json.dumps({"code": code}))
            begun = session.item(call)
            outcome = await session.run(call)
            assert isinstance(outcome.item, CodeInterpreterCall)
            assert isinstance(begun, CodeInterpreterCall)
            assert (begun.container_id, begun.code) == (outcome.item.container_id, outcome.item.code)
            assert outcome.note == begun.container_id
            done.append((outcome.text, outcome.item))
        await session.aclose()
        return done

    async def run_together(self, *codes: str) -> list[str | ToolFailure]:
        """What the model reads of calls of one turn, side by side."""
        session = await self._tool.configure(self._entry, "tools[0]").open(self._context())

        async def one(code: str) -> str | ToolFailure:
            try:
                return (await session.run(HostedCall("call_1", "code_interpreter", json.dumps({"code": code})))).text
            except ToolFailure as failure:
                return failure

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(code)) for code in codes]
        return [task.result() for task in tasks]

    async def begun(self, arguments: str) -> CodeInterpreterCall:
        """The item of a call that is being written."""
        session = await self._tool.configure(self._entry, "tools[0]").open(self._context())
        item = session.item(HostedCall("call_1", "code_interpreter", arguments))
        assert isinstance(item, CodeInterpreterCall)
        return item

    async def described(self) -> str:
        """What the model reads of the tool."""
        session = await self._tool.configure(self._entry, "tools[0]").open(self._context())
        return session.functions[0].description or ""

    def _context(self) -> ToolContext:
        return ToolContext(
            project_id=self._project,
            response_id="r",
            model="m",
            images=(),
            include=frozenset(),
            note=self._note,
            ask=self._ask,
            cite=self._cite,
        )

    async def _ask(self, question: str, *, images: Sequence[ImagePart] = (), max_tokens: int = 1000) -> str:
        raise ToolFailure(f"{question} {images} {max_tokens}")

    def _cite(self, source: Source) -> int:
        self.sources.append(source)
        return len(self.sources)


def built(**settings: object) -> CodeInterpreter | Missing:
    tool = TOOL.build(
        ToolServices(settings=Settings.model_validate(settings), fetcher=GuardedFetcher(), files=StoredFiles())
    )
    assert isinstance(tool, CodeInterpreter | Missing)
    return tool


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def tool() -> AsyncGenerator[CodeInterpreter]:
    made = built(limits={"tool_seconds": 10})
    assert isinstance(made, CodeInterpreter)
    yield made
    await made.aclose()


async def test_code_runs_and_its_output_is_shown_and_read(tool: CodeInterpreter) -> None:
    [(text, item)] = await Turn(tool).run("print('hello'); 6 * 7")

    assert text == "hello\n42\n"
    assert item.status == "completed"
    assert item.outputs == (Logs("hello\n42\n"),)
    assert item.container_id.startswith("cntr_")


async def test_an_exception_is_a_completed_call(tool: CodeInterpreter) -> None:
    [(text, item)] = await Turn(tool).run("1 / 0")

    assert item.status == "completed"
    assert "ZeroDivisionError" in text


async def test_variables_live_through_a_response_and_into_the_next_turn(tool: CodeInterpreter) -> None:
    first, second = await Turn(tool).run("x = 20", "x += 1; x")
    [(text, item)] = await Turn(tool, note=second[1].container_id).run("x * 2")

    assert first[0] == "(The code printed nothing.)\n"
    assert second[0] == "21\n"
    assert text == "42\n"
    assert item.container_id == second[1].container_id


async def test_another_projects_container_is_not_continued(tool: CodeInterpreter) -> None:
    [(_, item)] = await Turn(tool).run("secret = 'mine'")
    [(text, other)] = await Turn(tool, note=item.container_id, project="project-b").run("secret")

    assert "NameError" in text
    assert other.container_id != item.container_id
    with pytest.raises(InvalidRequest) as refusal:
        await Turn(tool, {**BARE, "container": item.container_id}, project="project-b").run("secret")
    assert refusal.value.param == "tools[0].container"


async def test_the_model_is_told_what_is_installed(tool: CodeInterpreter) -> None:
    described = await Turn(tool).described()
    [(text, _)] = await Turn(tool).run("import nowhere")

    assert "Installed are numpy, pandas, scipy, matplotlib, Pillow, openpyxl, scikit-learn," in described
    assert "numpy, pandas, scipy, matplotlib, Pillow, openpyxl, scikit-learn," in text


async def test_an_expired_container_is_replaced_and_the_model_is_told(tool: CodeInterpreter) -> None:
    [(_, item)] = await Turn(tool).run("x = 1")
    await tool.containers.delete(PROJECT, item.container_id)

    [(text, renewed)] = await Turn(tool, note=item.container_id).run("x")

    assert text.startswith("[The sandbox used before has expired")
    assert "NameError" in text
    assert renewed.container_id != item.container_id


async def test_calls_of_one_turn_share_a_fresh_container_in_their_order(tool: CodeInterpreter) -> None:
    texts = await Turn(tool).run_together("x = [1]; print('a')", "x.append(2); print('b')", "print(x)")

    assert texts == ["a\n", "b\n", "[1, 2]\n"]


async def test_that_a_container_has_expired_is_told_once(tool: CodeInterpreter) -> None:
    [(_, item)] = await Turn(tool).run("x = 1")
    await tool.containers.delete(PROJECT, item.container_id)

    texts = await Turn(tool, note=item.container_id).run_together("y = 2; print('a')", "print(y)")

    assert texts == [f"{EXPIRED}a\n", "2\n"]


async def test_a_container_that_expires_during_a_response_is_made_again_once(tool: CodeInterpreter) -> None:
    [(_, item)] = await Turn(tool).run("x = 1")
    turn = Turn(tool, note=item.container_id)
    original = tool.containers.get

    async def expiring(project_id: str, container_id: str) -> Container:
        found = await original(project_id, container_id)
        await tool.containers.delete(project_id, container_id)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool.containers, "get", expiring)
        texts = await turn.run_together("y = 2; print('a')", "print(y)", "print(y + 1)")

    assert texts == [f"{EXPIRED}a\n", "2\n", "3\n"]


async def test_uploaded_files_do_not_hide_that_a_container_has_expired(tool: CodeInterpreter) -> None:
    [(_, item)] = await Turn(tool).run("x = 1")
    await tool.containers.delete(PROJECT, item.container_id)
    entry = {**BARE, "container": {"type": "auto", "file_ids": ["file-1"]}}

    [(text, _)] = await Turn(tool, entry, note=item.container_id).run("open('numbers.csv').read(1)")

    assert text == f"{EXPIRED}'a'\n"


async def test_the_list_of_tools_says_how_code_is_confined(tool: CodeInterpreter) -> None:
    assert TOOL.details is not None
    found = (await TOOL.details(tool))["sandbox"]

    assert isinstance(found, Confinement)
    assert found.backend in ("bubblewrap", "landlock", "wasi")
    assert ("a user id for each session" in found.summary) is found.own_user
    assert ("disk use is limited by the kernel" in found.summary) is found.disk_bounded
    assert ("its own namespaces" in found.summary) is found.own_namespaces


async def test_the_list_of_tools_says_why_no_code_runs() -> None:
    remote = built(sandbox="http://127.0.0.1:9", sandbox_token="t" * 20)
    assert isinstance(remote, CodeInterpreter)
    assert TOOL.details is not None

    assert await TOOL.details(remote) == {
        "sandbox": {"backend": None, "summary": "The sandbox service does not answer."}
    }
    await remote.aclose()


async def test_a_container_for_which_there_is_no_place_is_a_429_that_names_the_limit(tool: CodeInterpreter) -> None:
    async def full(*_: object) -> SessionInfo:
        raise SandboxBusy("Sandboxes are busy: code runs in all 8 sandboxes there are (SANDBOX_SESSIONS).")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool.sandbox, "open", full)
        with pytest.raises(RateLimited, match="SANDBOX_SESSIONS") as refused:
            await tool.containers.create(PROJECT, NewContainer(name="mine"))
        failures = await Turn(tool).run_together("1")

    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "sandboxes_busy", 5.0)
    assert "SANDBOX_SESSIONS" in str(failures[0])


async def test_all_who_wait_for_a_container_learn_that_it_cannot_be_made(tool: CodeInterpreter) -> None:
    asked = 0

    async def full(*_: object) -> Container:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        raise Unavailable("All sandboxes are busy.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool.containers, "open", full)
        failures = await Turn(tool).run_together("1", "2", "3")

    assert [str(failure) for failure in failures] == ["Code cannot be run now. All sandboxes are busy."] * 3
    assert asked == 1


async def test_plots_are_images_and_files_are_cited(tool: CodeInterpreter) -> None:
    turn = Turn(tool)
    [(text, item)] = await turn.run(
        "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); open('t.csv', 'w').write('1'); None"
    )

    plot, table = sorted(
        (source for source in turn.sources if isinstance(source, ContainerFile)), key=lambda source: source.path
    )
    assert (plot.path, table.path) == ("/mnt/data/plot-1.png", "/mnt/data/t.csv")
    assert item.outputs == (PlotImage(f"/v1/containers/{item.container_id}/files/{plot.file_id}/content"),)
    assert "[plot-1.png](sandbox:/mnt/data/plot-1.png)" in text
    assert f"[{turn.sources.index(table) + 1}] t.csv (1 bytes)" in text


async def test_uploaded_files_are_there(tool: CodeInterpreter) -> None:
    entry = {**BARE, "container": {"type": "auto", "file_ids": ["file-1"]}}
    [(text, item)] = await Turn(tool, entry).run("open('/mnt/data/numbers.csv').read()")
    assert text == "'a\\n1\\n2\\n'\n"

    again = "open('/mnt/data/numbers.csv', 'a').write('3')"
    await Turn(tool, entry, note=item.container_id).run(again)
    [(text, _)] = await Turn(tool, entry, note=item.container_id).run("open('/mnt/data/numbers.csv').read()")
    assert text == "'a\\n1\\n2\\n3'\n"


async def test_a_file_that_is_not_there_is_named_before_the_model_answers(tool: CodeInterpreter) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await Turn(tool, {**BARE, "container": {"type": "auto", "file_ids": ["file-1", "file-2"]}}).begun("")

    assert refusal.value.param == "tools[0].container.file_ids[1]"


async def test_a_container_can_be_named(tool: CodeInterpreter) -> None:
    container = await tool.containers.create(PROJECT, NewContainer(name="mine", memory_limit="4g"))
    [(text, item)] = await Turn(tool, {**BARE, "container": container.id}).run("'here'")
    await tool.containers.delete(PROJECT, container.id)

    assert (text, item.container_id) == ("'here'\n", container.id)
    with pytest.raises(InvalidRequest, match="not found"):
        await Turn(tool, {**BARE, "container": container.id}).begun("")


async def test_a_timeout_is_said_in_the_logs() -> None:
    tool = built(limits={"tool_seconds": 5})
    assert isinstance(tool, CodeInterpreter)
    [(text, item)] = await Turn(tool).run("print('begun')\nwhile True: pass")
    await tool.aclose()

    assert item.status == "completed"
    assert text.startswith("begun\n")
    assert "Stopped after 1 s: the time limit." in text


async def test_much_output_is_cut_in_the_middle(tool: CodeInterpreter) -> None:
    [(text, item)] = await Turn(tool).run("print('first'); print('x' * 10_000_000); print('last')")

    assert text.startswith("first\n")
    assert text.endswith("last\n")
    assert len(text.encode()) <= 48 * 1024
    assert item.outputs is not None
    assert len(msgspec.json.encode(item)) < 80_000


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("", ""),
        ('{"code":"print(1)"}', "print(1)"),
        ('{"input":"print(1)"}', "print(1)"),
        ('"print(1)"', "print(1)"),
        ("print(1)", "print(1)"),
        ("```python\nprint(1)\n```", "print(1)"),
        ('{"code":"```py\\nprint(1)\\n```"}', "print(1)"),
        ('{"code":7}', ""),
        ("[1]", "[1]"),
        ('{"code":"a = 1\nprint(a)"}', "a = 1\nprint(a)"),
        ('{"code":"x', "x"),
    ],
)
async def test_code_is_found_however_it_is_written(tool: CodeInterpreter, arguments: str, code: str) -> None:
    assert (await Turn(tool).begun(arguments)).code == code


@pytest.mark.parametrize(
    ("container", "param"),
    [
        (7, "tools[0].container"),
        ({"type": "manual"}, "tools[0].container.type"),
        ({"type": "auto", "memory_limit": "64g"}, "tools[0].container.memory_limit"),
        (
            {"type": "auto", "network_policy": {"type": "allowlist", "allowed_domains": ["a.b"]}},
            "tools[0].container.network_policy",
        ),
        ({"type": "auto", "skills": [{"type": "skill_reference"}]}, "tools[0].container.skills"),
        ({"type": "auto", "file_ids": "file-1"}, "tools[0].container.file_ids"),
        ({"type": "auto", "gpu": True}, "tools[0].container.gpu"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(tool: CodeInterpreter, container: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        tool.configure(msgspec.Raw(json.dumps({**BARE, "container": container}).encode()), "tools[0]")

    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("more", "param"),
    [({"foo": 1}, "tools[0].foo"), ({"container": {"type": "auto", "foo": 1}}, "tools[0].container.foo")],
)
async def test_a_key_that_there_is_not_is_refused_as_everywhere(
    tool: CodeInterpreter, more: dict[str, object], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        tool.configure(msgspec.Raw(json.dumps({**BARE, **more}).encode()), "tools[0]")

    assert (refusal.value.param, refusal.value.code) == (param, "unknown_parameter")
    assert refusal.value.message == f"Unknown parameter: '{param}'."


async def test_only_the_plain_entry_is_forwarded_to_the_vendor(tool: CodeInterpreter) -> None:
    plain, special = (
        tool.configure(msgspec.Raw(json.dumps(entry).encode()), "tools[0]")
        for entry in (BARE, {**BARE, "container": {"type": "auto", "memory_limit": "1g"}})
    )

    assert plain.native == msgspec.Raw(b'{"type":"code_interpreter"}')
    assert special.native is None
    assert json.loads(bytes(special.echo))["container"] == {"type": "auto", "file_ids": [], "memory_limit": "1g"}


async def test_a_service_that_dies_is_started_again() -> None:
    before = set(descendants(os.getpid()))
    tool = built()
    assert isinstance(tool, CodeInterpreter)
    [(_, item)] = await Turn(tool).run("x = 1")
    for pid in set(descendants(os.getpid())) - before:
        with suppress(ProcessLookupError):  # it ends with the one that started it
            os.kill(pid, signal.SIGKILL)

    text = await _persistently(Turn(tool, note=item.container_id), "1 + 1")

    assert text.endswith("2\n")
    await tool.aclose()
    await until_gone(set(descendants(os.getpid())) - before)


async def _persistently(turn: Turn, code: str) -> str:
    """What the model reads, once a call gets through: one that meets a dying service fails."""
    async with asyncio.timeout(20):
        while True:
            try:
                [(text, _)] = await turn.run(code)
            except ToolFailure:
                continue
            return text


async def test_a_service_that_is_away_is_a_failure_in_a_sentence() -> None:
    tool = built(sandbox="http://127.0.0.1:9", sandbox_token="t" * 20)
    assert isinstance(tool, CodeInterpreter)

    with pytest.raises(ToolFailure, match="Code cannot be run now"):
        await Turn(tool).run("1")
    await tool.aclose()


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"sandbox": "off"}, "GATEWAY_SANDBOX"),
        ({"sandbox": "chroot"}, "GATEWAY_SANDBOX"),
        ({"sandbox": "https://sandbox.internal"}, "GATEWAY_SANDBOX_TOKEN"),
    ],
)
async def test_where_it_cannot_run_the_setting_is_named(settings: dict[str, str], setting: str) -> None:
    tool = built(**settings)

    assert isinstance(tool, Missing)
    assert tool.setting == setting
