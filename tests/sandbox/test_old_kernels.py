"""What holds where Landlock is old and service and code have one user: what the kernel does not guard, the filter of
calls refuses.

Version 1 is that of Linux 5.13, 2 of 5.19 (Debian 12 has 6.1), 4 of 6.7 (Ubuntu 24.04 has 6.8).
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.sandbox.attacks import CALLS, World, escaped
from tests.sandbox.running import Box, DoesNotHold, RunningSandbox, running_sandbox

SIGNAL = """
import fcntl, socket
a, b = socket.socketpair()
try:
    fcntl.fcntl(a, fcntl.F_SETOWN, SERVICE)
    fcntl.fcntl(a, 10, 9)
    fcntl.fcntl(a, fcntl.F_SETFL, fcntl.fcntl(a, fcntl.F_GETFL) | 0o20000)
finally:
    b.send(b'x')
"""


@pytest.fixture(scope="module", params=[1, 2, 4])
def old_service(request: pytest.FixtureRequest) -> Generator[RunningSandbox]:
    """In a container, so that nothing else than Landlock and the filter stands between the code and the service."""
    try:
        with running_sandbox("landlock", how="contained", newest=request.param) as running:
            yield running
    except DoesNotHold as error:
        pytest.skip(str(error))


async def test_every_attack_is_contained(old_service: RunningSandbox) -> None:
    world = World()
    box = await Box(old_service).open()
    await box.run(world.facts(old_service) + CALLS)

    assert await escaped(box) == {}
    assert world.canary.read_text() == "untouched"
    await box.close()
    world.close()


async def test_the_service_lives_when_a_file_is_to_signal_it(old_service: RunningSandbox) -> None:
    box = await Box(old_service).open()

    result = await box.run(f"SERVICE = {old_service.process.pid}\n{SIGNAL}")

    assert "PermissionError" in result.logs
    assert (await box.run("1")).logs == "1\n"
    await box.close()


async def test_files_that_may_be_read_are_not_emptied(old_service: RunningSandbox) -> None:
    box = await Box(old_service).open()

    result = await box.run("import os, json\nos.open(json.__file__, os.O_RDONLY | os.O_TRUNC)")

    assert "PermissionError" in result.logs
    await box.close()


async def test_code_works_as_ever(old_service: RunningSandbox) -> None:
    box = await Box(old_service).open()
    code = """
import matplotlib.pyplot as plt, numpy as np, os, pandas as pd, shutil, sqlite3, tempfile
plt.plot([1, 2]); plt.show()
pd.DataFrame({'a': np.arange(3)}).to_csv('a.csv')
with open('b.txt', 'w+') as file: file.write('x'); file.truncate(0)
with tempfile.TemporaryDirectory() as d: shutil.copy('a.csv', d); shutil.move(f'{d}/a.csv', 'c.csv')
db = sqlite3.connect('d.db'); db.execute('create table t (x)'); db.commit(); db.close()
sorted(os.listdir('.'))
"""
    result = await box.run(code)

    assert result.logs == "['a.csv', 'b.txt', 'c.csv', 'd.db', 'plot-1.png']\n"
    await box.close()
