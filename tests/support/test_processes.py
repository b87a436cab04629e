"""No server outlives the test run, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE

ROOT = Path(__file__).parents[2]
RUN = """
import signal, subprocess, sys
from pathlib import Path
from tests.support.processes import guard, release
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
ended, left = (subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) for _ in range(2))
guard(left, folder=Path(sys.argv[1]))
guard(ended)
ended.kill()
ended.wait()
release(ended)
print(left.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_was_not_ended_is(tmp_path: Path, how: signal.Signals) -> None:
    folder = tmp_path / "of the server"
    folder.mkdir()
    command = [sys.executable, "-c", RUN, folder]
    run = subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert run.stdout is not None
    left = int(run.stdout.readline())
    run.send_signal(how)
    run.wait(PATIENCE)

    deadline = time.monotonic() + PATIENCE
    while folder.exists() and time.monotonic() < deadline:  # removed after the server has ended
        time.sleep(0.01)
    assert not folder.exists()
    assert (
        not Path(f"/proc/{left}").exists()
        or Path(f"/proc/{left}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    )
    run.communicate()
