"""Habits of notebooks: code that was written for one runs here, or says in a sentence why it does not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest
import pytest_asyncio

from tests.sandbox.running import Box, RunningSandbox

# One loop, and one session for whatever leaves nothing behind.
pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_PACKAGES = "[No package can be installed: there is no network. Installed are the standard library, numpy, pandas,"
NO_PROGRAMS = "is not run: this sandbox starts no program but Python, and has no network. Do it in Python."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(any_service: RunningSandbox) -> AsyncGenerator[Box]:
    """Shared: each test uses names of its own."""
    made = await Box(any_service).open()
    yield made
    await made.close()


async def logs_of(box: Box, *cells: str) -> str:
    """What the last of these cells prints."""
    return [(await box.run(cell)).logs for cell in cells][-1]


@pytest.mark.parametrize(
    ("code", "logs"),
    [
        ("%matplotlib inline\nprint('on')", "on\n"),
        ("%load_ext autoreload\n%autoreload 2\n%config InlineBackend.figure_format = 'retina'\n1", "1\n"),
        ("get_ipython().run_line_magic('matplotlib', 'inline')\n1", "1\n"),
        ("if True:\n    %matplotlib inline\n    print('in')", "in\n"),
        ("%nothing x\n1", "[%nothing is not available here; the line was left out.]\n1\n"),
        ("%%javascript\nalert(1)", "[%%javascript is not available here; the cell was not run.]\n"),
        ("%%html\n<b>bold</b>", "<b>bold</b>\n"),
        ("a = 10\nb = (a\n% 3)\nb", "1\n"),
        ("s = '''\n%matplotlib\n!ls\n'''\ns", "'\\n%matplotlib\\n!ls\\n'\n"),
        ("'%d' % 3", "'3'\n"),
        ("!echo on {x}\n1", "on {x}\n1\n"),
        ("x = !echo a b\nx", "['a b']\n"),
        ("where = %pwd\nwhere", "'/mnt/data'\n"),
        ("%env NAME=1\nimport os; os.environ['NAME']", "'1'\n"),
        ("%%capture kept\nprint('hidden')", ""),
        ("missing?", "Object `missing` not found.\n"),
        (">>> z = 3\n>>> z + 1\n4", "4\n"),
        ("In [3]: z = 5\n   ...: z", "5\n"),
        ("    z = 6\n    z", "6\n"),
        ("\ufeffz = 7\r\nz\r\n", "7\n"),
    ],
)
async def test_notation_of_notebooks(box: Box, code: str, logs: str) -> None:
    assert await logs_of(box, code) == logs


@pytest.mark.parametrize(
    "code",
    [
        "!pip install nothere",
        "%pip install nothere",
        "pip install nothere -q",
        "!python -m pip install nothere",
        "%conda install nothere",
        "!pip install -q nothere 2>/dev/null | tail -1",
        "!pip install nothere && python x.py",
        "!pip install \\\n  nothere \\\n  another",
        "%%bash\npip install nothere",
        "import subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', 'install', 'nothere']); None",
        "import os; os.system('pip install nothere'); None",
    ],
)
async def test_installing_is_answered_with_what_is_there(box: Box, code: str) -> None:
    logs = await logs_of(box, f"{code}\nprint('on')" if "%%" not in code else code)

    assert logs.startswith(NO_PACKAGES)
    assert logs.endswith("on\n") or "%%" in code


async def test_what_is_installed_need_not_be(box: Box) -> None:
    assert (await logs_of(box, "!pip install -q numpy>=1.20")).startswith("Requirement already satisfied: numpy==")
    assert "pandas==" in await logs_of(box, "!pip list")


@pytest.mark.parametrize(
    "code",
    ["!git status", "!python x.py | tail", "%%bash\nfor i in 1 2; do echo $i; done", "import os; os.system('git')"],
)
async def test_other_programs_are_refused_in_a_sentence(box: Box, code: str) -> None:
    assert NO_PROGRAMS in await logs_of(box, code)


async def test_files_can_be_looked_at(box: Box) -> None:
    await box.run("%%writefile look.txt\nfirst\nsecond")

    assert await logs_of(box, "!cat look.txt") == "first\nsecond\n"
    assert "look.txt\n" in await logs_of(box, "!ls -la /mnt/data")


async def test_time_is_taken(box: Box) -> None:
    logs = await logs_of(box, "%%time\nsum(range(1000))")

    assert logs.startswith("499500\nCPU time: ")
    assert "per loop (mean of 5 loops)" in await logs_of(box, "%timeit -n 5 sum(range(10))")
    assert "wall time: " in await logs_of(box, "# a comment\n%time timed = 3")
    assert await logs_of(box, "timed") == "3\n"


async def test_lines_keep_their_numbers(box: Box) -> None:
    logs = await logs_of(box, "%matplotlib inline\n!pip install \\\n  numpy\n%%time\n\n1 / 0")

    assert "line 6, in <module>" in logs
    assert "main.py" not in logs
    assert "notebook.py" not in logs


@pytest.mark.parametrize(
    ("code", "logs"),
    [
        ("1;", ""),
        ("1 ;  # not shown", ""),
        ("'a;'", "'a;'\n"),
        ("1 # shown;", "1\n"),
        ("None", ""),
        ("import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})", "   a  b\n0  1  x\n1  2  y\n"),
        ("display(1, 'two')", "1\n'two'\n"),
        (
            "from IPython.display import display, Markdown, clear_output\nclear_output()\ndisplay(Markdown('**x**'))",
            "**x**\n",
        ),
        ("import IPython\nIPython.get_ipython() is get_ipython()", "True\n"),
        ("5\n_ + 1", "6\n"),
    ],
)
async def test_values_are_shown(box: Box, code: str, logs: str) -> None:
    await box.run("5")
    assert await logs_of(box, code) == logs


@pytest.mark.parametrize(
    ("cells", "logs"),
    [
        (["import asyncio\nasync def five():\n    await asyncio.sleep(0)\n    return 5\nawait five()"], "5\n"),
        (["task = asyncio.create_task(five())\nawait task"], "5\n"),
        (["task = asyncio.create_task(five())", "await task"], "5\n"),
        (["await asyncio.gather(five(), five())"], "[5, 5]\n"),
        (["asyncio.run(five())"], "5\n"),
        (["import nest_asyncio; nest_asyncio.apply()\nasyncio.get_event_loop().run_until_complete(five())"], "5\n"),
        (["for _ in range(2):\n    x = await five()\nx"], "5\n"),
        (["async with asyncio.timeout(5):\n    print('in')"], "in\n"),
    ],
)
async def test_await_works_at_the_top(box: Box, cells: Sequence[str], logs: str) -> None:
    assert (
        await logs_of(box, "import asyncio\nasync def five():\n    await asyncio.sleep(0)\n    return 5", *cells)
        == logs
    )


async def test_the_runners_own_future_imports_are_not_the_codes(box: Box) -> None:
    assert await logs_of(box, "def f(x: int): ...\nf.__annotations__") == "{'x': <class 'int'>}\n"
    assert (
        await logs_of(box, "from __future__ import annotations", "def f(x: nothing): ...\nf.__annotations__")
        == "{'x': 'nothing'}\n"
    )


async def test_input_says_that_nobody_types(box: Box) -> None:
    for code in ("input('name? ')", "breakpoint()", "import getpass; getpass.getpass()"):
        assert "EOFError" in await logs_of(box, code) or "no interactive input" in await logs_of(box, code)


@pytest.mark.parametrize(
    ("code", "logs"),
    [("import sys; sys.exit('bye')", "bye\n"), ("exit()", ""), ("quit(2)", ""), ("raise SystemExit", "")],
)
async def test_exit_ends_the_cell_only(box: Box, code: str, logs: str) -> None:
    assert await logs_of(box, "here = 1", f"{code}\nprint('not reached')") == logs
    assert await logs_of(box, "here") == "1\n"


async def test_tracebacks_have_the_authors_frames_only(box: Box) -> None:
    logs = await logs_of(box, "import pandas as pd\npd.DataFrame({'a': [1]})['missing']")

    assert logs.count("File ") == 1
    assert "<cell" in logs
    assert logs.endswith("KeyError: 'missing'\n")


async def test_marks_stand_below_what_failed(box: Box) -> None:
    assert "    1 / 0\n    ~~^~~\n" in await logs_of(box, "1 / 0")
    assert "    2 / 0\n    ~~^~~\n" in await logs_of(box, "%matplotlib inline\r\n2 / 0\r\n")


async def test_a_file_of_the_author_is_in_the_traceback(box: Box) -> None:
    await box.run("%%writefile helper.py\ndef fail():\n    raise ValueError('no')")

    assert 'File "/mnt/data/helper.py", line 2, in fail' in await logs_of(box, "import helper\nhelper.fail()")


async def test_endless_recursion_is_told_shortly(box: Box) -> None:
    logs = await logs_of(box, "import sys\nsys.setrecursionlimit(20_000)\ndef r(n):\n    return r(n + 1)\nr(0)", "1")
    assert logs == "1\n"

    logs = await logs_of(box, "r(0)")
    assert logs.endswith("RecursionError: maximum recursion depth exceeded\n")
    assert len(logs) < 4000


async def test_warnings_that_help_nobody_are_left_out(box: Box) -> None:
    logs = await logs_of(
        box,
        "import warnings\nfor k in (DeprecationWarning, FutureWarning, UserWarning):\n    warnings.warn(f'about "
        "{k.__name__}', k)\n"
        "pattern = '\\d'",
    )

    assert logs.splitlines() == [f"<cell {logs.partition('>')[0].split()[-1]}>:3: UserWarning: about UserWarning"]


async def test_no_network_is_said(box: Box) -> None:
    for code in (
        "import urllib.request\nurllib.request.urlopen('http://example.com')",
        "import socket\nsocket.create_connection(('1.1.1.1', 80))",
    ):
        assert (await logs_of(box, code)).endswith(
            "[There is no network in this sandbox: work with the files in /mnt/data.]\n"
        )


async def test_output_is_as_a_terminal_shows_it(box: Box) -> None:
    assert await logs_of(box, "for i in range(100): print(f'\\r{i} %', end='')\nprint()") == "99 %\n"
    assert await logs_of(box, "print('\\x1b[31mred\\x1b[0m\\x00')") == "red\\x00\n"
    assert await logs_of(box, "import os; os.write(1, '中\\n'.encode('gbk')); None") == "\\xd6\\xd0\n"


async def test_a_cut_does_not_split_characters(box: Box) -> None:
    logs = await logs_of(box, "print('中' * 100_000)")

    assert "bytes left out" in logs
    assert set(logs) <= set("中\n[… 0123456789bytes left out …]")


@pytest.mark.parametrize(
    "code",
    ["import sys; sys.stdout.close()", "import sys, io; sys.stdout = io.StringIO()", "import sys; sys.stderr = None"],
)
async def test_output_comes_back(box: Box, code: str) -> None:
    assert await logs_of(box, code, "print('here')") == "here\n"


async def test_threads_left_running_are_told(box: Box) -> None:
    logs = await logs_of(
        box,
        "import threading\ngate = threading.Event()\nthread = threading.Thread(target=lambda: (gate.wait(), "
        "print('through')))",
        "thread.start()",
    )

    assert logs == "[Threads it started are still running (1): they are paused now, and resume with the next run.]\n"
    assert await logs_of(box, "gate.set(); thread.join()") == "through\n"
    assert "ZeroDivisionError" in await logs_of(
        box, "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()"
    )
