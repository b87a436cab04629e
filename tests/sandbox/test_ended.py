"""An interpreter that ends takes its variables along, and nothing else."""

from __future__ import annotations

import pytest

from tests.sandbox.conftest import Services
from tests.sandbox.running import Box

STUBBORN = "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass"


@pytest.mark.parametrize(
    ("ending", "timed_out"), [(STUBBORN, True), ("import os; os._exit(3)", False), ("import os; os.abort()", False)]
)
async def test_files_stay_when_the_interpreter_ends(services: Services, ending: str, *, timed_out: bool) -> None:
    """Where files are only watched, so that an end could pass for an excess."""
    box = await Box(services("landlock-contained")).open()

    result = await box.run(f"open('result.txt', 'w').write('kept')\n{ending}", seconds=0.3)

    assert result.state_lost
    assert result.timed_out is timed_out
    assert [file.path for file in result.files] == ["/mnt/data/result.txt"]
    assert (await box.run("print(open('result.txt').read())")).logs.endswith("kept\n")
    await box.close()
