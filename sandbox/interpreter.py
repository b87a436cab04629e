"""One confined interpreter as a process: it is sent code, and is stopped between two runs.

Nothing it says is trusted and nothing it does can make this process grow: output is read as it comes and only its
beginning and end are kept, and a reply is a short line or is ignored.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

import sandbox.inside.main  # noqa: F401  # pyright: ignore[reportUnusedImport] - compiled here: sandboxes cannot keep bytecode
from sandbox import printed
from sandbox.backends.base import DATA, Launch

_GRACE_SECONDS = 1.5
"""An interpreter stops itself at the time limit; if it has not stopped after this much longer, it is killed."""
_HUNG_UP_LOOKS, _LOOK_SECONDS = 50, 0.01
_READ_BYTES = 64 * 1024
_REPLY_BYTES = 4096
_SIGNALLED = 128
"""bubblewrap exits with this plus the number of the signal that killed the interpreter."""


class InterpreterFailed(Exception):
    """The interpreter does not start; the message gives the reason, for the log."""


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended."""

    logs: str
    timed_out: bool = False
    died: str | None = None
    """Why the process is gone, in a sentence."""


class Tape:
    """The beginning and the end of the output."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        """Append output."""
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        excess = len(self._tail) - self._half
        if excess > 0:
            del self._tail[:excess]
            self._left_out += excess

    def text(self) -> str:
        """All that is kept, as a terminal would show it, with a line that says what was omitted."""
        if not self._left_out:
            return printed.as_seen(bytes(self._head + self._tail))
        gap = f"\n[… {self._left_out} bytes left out …]\n"
        return (
            printed.as_seen(printed.whole(bytes(self._head)))
            + gap
            + printed.as_seen(bytes(self._tail).lstrip(printed.CONTINUATION))
        )


class Interpreter:
    """Created by `start`."""

    def __init__(
        self, process: subprocess.Popen[bytes], output: int, control: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> None:
        self._process = process
        self._output = output
        self._reader, self._writer = control
        self._data = DATA

    @classmethod
    async def start(cls, launch: Callable[[int], Launch], user: int | None) -> Interpreter:
        """Start and confine one; `launch` takes the file descriptor of its end of the control socket.

        Raises InterpreterFailed.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            plan = launch(theirs.fileno())
            output, printed = os.pipe()
            os.set_blocking(output, False)
            try:
                process = _spawn(plan, theirs.fileno(), printed, user)
            except OSError as error:
                ours.close()
                os.close(output)
                raise InterpreterFailed(f"{plan.command[0]} does not start: {error.strerror}") from error
            finally:
                os.close(printed)
        try:
            control = await asyncio.open_unix_connection(sock=ours, limit=_REPLY_BYTES)
        except BaseException:  # the caller was cancelled
            process.kill()
            process.wait()
            os.close(output)
            ours.close()
            raise
        interpreter = cls(process, output, control)
        interpreter._data = plan.data
        try:
            await interpreter._confine(plan)
        except BaseException:
            interpreter.kill()
            raise
        return interpreter

    @property
    def pid(self) -> int:
        """Of the started process; the interpreter itself may be its child."""
        return self._process.pid

    async def run(self, code: str, seconds: float, log_bytes: int) -> Outcome:
        """Run code. An interpreter that died or had to be killed cannot be used again (`Outcome.died`)."""
        tape = Tape(log_bytes)
        code = code.replace(DATA, self._data)
        self.resume()
        try:
            with self._listening(tape):
                reply = await asyncio.wait_for(self._ask({"code": code, "seconds": seconds}), seconds + _GRACE_SECONDS)
        except TimeoutError:
            self._end(tape)
            return Outcome(self._shown(tape), timed_out=True, died="It did not stop when asked and was killed.")
        except BaseException:
            self.kill()
            raise
        if reply is None:
            await self._let_end()
            code_of_exit = self._end(tape)
            return Outcome(self._shown(tape), died=_why(code_of_exit))
        self.pause()
        self._drain(tape)
        return Outcome(self._shown(tape), timed_out=reply.get("timed_out") is True)

    @property
    def alive(self) -> bool:
        """Whether it can be used."""
        return self._output >= 0 and self._process.poll() is None

    def pause(self) -> None:
        """Stop its processes (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue them."""
        self._signal(signal.SIGCONT)

    def strike(self) -> None:
        """Kill what is running; `run` then reports that it died."""
        self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """Kill it; harmless if it has already ended."""
        if self._output >= 0:
            self._end(Tape(0))

    async def _confine(self, plan: Launch) -> None:
        tape = Tape(_REPLY_BYTES)
        try:
            with self._listening(tape):
                reply = await asyncio.wait_for(self._ask(plan.setup), plan.ready_seconds)
        except TimeoutError as error:
            raise InterpreterFailed("the interpreter does not answer") from error
        if reply is None or reply.get("ready") is not True:
            self._end(tape)
            raise InterpreterFailed(f"the interpreter exited immediately: {tape.text().strip()[-500:]}")
        self._signal(signal.SIGSTOP)

    async def _ask(self, message: Any) -> dict[str, Any] | None:
        """The reply; None if it hung up, or sent an invalid reply."""
        try:
            self._writer.write(msgspec.json.encode(message) + b"\n")
            await self._writer.drain()
            return msgspec.json.decode(await self._reader.readline(), type=dict[str, Any])
        except (OSError, ValueError, msgspec.MsgspecError):
            return None

    def _listening(self, tape: Tape) -> _Listening:
        return _Listening(self._output, tape)

    def _drain(self, tape: Tape) -> None:
        """Read what is left in the pipe; the writer is stopped or dead, so it is not much."""
        try:
            while data := os.read(self._output, _READ_BYTES):
                tape.add(data)
        except BlockingIOError:
            return

    def _shown(self, tape: Tape) -> str:
        return tape.text().replace(self._data, DATA)

    async def _let_end(self) -> None:
        """It hung up. Usually it is about to exit, and its exit code says why; bubblewrap exits a moment later."""
        for _ in range(_HUNG_UP_LOOKS):
            if self._process.poll() is not None:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _end(self, tape: Tape) -> int:
        self._signal(signal.SIGKILL)
        code = self._process.wait()
        self._drain(tape)
        os.close(self._output)
        self._output = -1
        self._writer.close()
        return code

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError):  # another thread has just seen it end
                os.killpg(self._process.pid, number)  # bubblewrap and its children; nothing inside can leave the group


class _Listening:
    """While entered, output is read as it comes."""

    def __init__(self, output: int, tape: Tape) -> None:
        self._output = output
        self._tape = tape

    def __enter__(self) -> None:
        asyncio.get_running_loop().add_reader(self._output, self._on_readable)

    def __exit__(self, *error: object) -> None:
        asyncio.get_running_loop().remove_reader(self._output)

    def _on_readable(self) -> None:
        data = os.read(self._output, _READ_BYTES)
        if data:
            self._tape.add(data)
        else:  # the code has closed its output: that would be readable forever
            asyncio.get_running_loop().remove_reader(self._output)


def _why(code: int) -> str:
    number = -code if code < 0 else code - _SIGNALLED
    match number:
        case signal.SIGXCPU:
            return "It used up its CPU time."
        case signal.SIGKILL:
            return "It was killed, perhaps because memory ran out."
        case signal.SIGSEGV | signal.SIGABRT | signal.SIGBUS | signal.SIGFPE | signal.SIGILL:
            return f"It crashed ({signal.Signals(number).name})."
        case _:
            return f"It ended by itself (exit code {code})."


def _spawn(plan: Launch, control: int, printed: int, user: int | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the command is a back end's
        plan.command,
        stdin=subprocess.DEVNULL,
        stdout=printed,
        stderr=printed,
        pass_fds=(control,),
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        start_new_session=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
