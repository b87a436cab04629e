"""Processes, where there is one:

Python that is started from Python runs inside it, and parallel code runs on threads.
"""

from __future__ import annotations

import pytest

from tests.sandbox.running import Box, RunningSandbox

PREPARED = "import subprocess, sys, os\ndef square(x): return x * x\n"


@pytest.mark.parametrize(
    ("code", "logs"),
    [
        ("subprocess.run([sys.executable, '-c', 'print(1 + 1)'], capture_output=True, text=True).stdout", "'2\\n'\n"),
        ("subprocess.check_output('python3 -c \"print(3)\"', shell=True)", "b'3\\n'\n"),
        ("subprocess.run([sys.executable, '-c', 'import sys; sys.exit(4)']).returncode", "4\n"),
        (
            "subprocess.run([sys.executable, '-c', '1/0'], stderr=subprocess.PIPE, text=True).stderr.splitlines()[-1]",
            "'ZeroDivisionError: division by zero'\n",
        ),
        ("subprocess.run([sys.executable, '-'], input=b'print(5)').returncode", "5\n0\n"),
        ("subprocess.run(['python', '-c', 'import sys; print(sys.argv[1:])', 'a', 'b'])\nNone", "['a', 'b']\n"),
        (
            "pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\n"
            "with subprocess.Popen([sys.executable, '-c', 'print(input())'], **pipes) as p: "
            "print(p.communicate('x')[0])",
            "x\n\n",
        ),
        ("os.system('python -c \"print(6)\"')", "6\n0\n"),
        ("os.popen('python -c \"print(7)\"').read()", "'7\\n'\n"),
        ("open('s.py', 'w').write('import sys; print(__name__, sys.argv[1])')\n!python s.py arg", "__main__ arg\n"),
        ("!python --version", None),
        ("subprocess.run(['ls', '-l', '/mnt/data/none*'], stderr=subprocess.DEVNULL).returncode", "1\n"),
        ("os.system('mkdir -p /mnt/data/made/here')\nsubprocess.getoutput('ls made')", "'here'\n"),
        ("open('five.txt', 'w').write('1\\n2\\n3\\n4\\n5\\n')\n!head -n 2 five.txt 2>&1", "1\n2\n"),
        ("__name__ + str(square(2))", "'__main__4'\n"),
        ("from multiprocessing import Pool\nwith Pool(4) as pool: print(pool.map(square, range(4)))", "[0, 1, 4, 9]\n"),
        (
            (
                "from concurrent.futures import ProcessPoolExecutor as P\nwith P() as pool: "
                "print(list(pool.map(square, range(4))))"
            ),
            "[0, 1, 4, 9]\n",
        ),
        (
            (
                "import multiprocessing as m\nq = m.Queue()\np = m.Process(target=q.put, args=(8,))\np.start(); "
                "p.join(); q.get(), p.exitcode"
            ),
            "(8, 0)\n",
        ),
        ("import multiprocessing as mp\nv = mp.Value('i', 1)\nwith v.get_lock(): v.value += 1\nv.value", "2\n"),
        (
            (
                "from multiprocessing.pool import ThreadPool\nwith ThreadPool(2) as pool: print(pool.map(square, "
                "range(3)))"
            ),
            "[0, 1, 4]\n",
        ),
        (
            "from joblib import Parallel, delayed\nParallel(n_jobs=4)(delayed(square)(i) for i in range(4))",
            "[0, 1, 4, 9]\n",
        ),
    ],
)
async def test_python_from_python(any_service: RunningSandbox, code: str, logs: str | None) -> None:
    box = await Box(any_service).open()
    await box.run(PREPARED)

    result = await box.run(code)

    assert result.logs == logs if logs is not None else result.logs.startswith("Python 3.")
    await box.close()


async def test_another_program_is_a_permission_error_in_a_sentence(any_service: RunningSandbox) -> None:
    box = await Box(any_service).open()

    logs = (await box.run("import subprocess\nsubprocess.run(['git', 'status'])")).logs

    assert (
        "PermissionError: [Errno 1] asyncio starts no program"
        in (await box.run("import asyncio, sys\nawait asyncio.create_subprocess_exec(sys.executable, '-V')")).logs
    )
    assert (
        "PermissionError: [Errno 1] git is not run: this sandbox starts no program but Python, and has no network."
        in logs
    )
    await box.close()


async def test_a_fork_is_refused_by_the_kernel_and_a_sentence_follows(any_service: RunningSandbox) -> None:
    box = await Box(any_service).open()

    logs = (await box.run("import os\nos.fork()")).logs

    assert "PermissionError: [Errno 1] Operation not permitted\n[This sandbox starts no processes;" in logs
    await box.close()


async def test_a_program_does_not_meet_the_names_and_modules_of_the_cells(any_service: RunningSandbox) -> None:
    box = await Box(any_service).open()
    await box.run("value = 1\nopen('mod.py', 'w').write('state = []')\nimport mod; mod.state.append(1)")

    result = await box.run(
        f"{PREPARED}subprocess.run([sys.executable, '-c', 'import mod; print(mod.state, "
        f'globals().get("value"))\'])\nmod.state'
    )

    assert result.logs == "[] None\n[1]\n"
    await box.close()
