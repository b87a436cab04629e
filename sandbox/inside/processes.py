"""`subprocess`, `os.system` and `multiprocessing` in a single process:

Python runs inside it, and processes are threads.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sandbox.inside import commands

_PIPE, _STDOUT, _DEVNULL = -1, -2, -3
_TEXT_OPTIONS = ("text", "universal_newlines", "encoding", "errors")
_THREADED = (
    *(
        "Pool",
        "Queue",
        "JoinableQueue",
        "Pipe",
        "Array",
        "Lock",
        "RLock",
        "Semaphore",
        "BoundedSemaphore",
        "Condition",
        "Event",
        "Barrier",
    ),
)
_NOT_RUN = 127 << 8
"""The exit status of `os.system` for a program that does not exist."""


def system(command: str) -> int:
    """`os.system`."""
    line = commands.words(command)
    code = commands.run(line)
    if code is None:
        print(f"[{commands.refusal(line)}]")  # noqa: T201 - as a shell would
        return _NOT_RUN
    return code << 8


async def refuse_asynchronous(*_command: object, **_options: object) -> Any:
    """`asyncio.create_subprocess_exec` and `_shell`, which need the pipes of a real process."""
    raise PermissionError(errno.EPERM, "asyncio starts no program in this sandbox; subprocess.run starts Python")


def prepare_subprocess(subprocess: Any) -> None:
    """`run`, `check_output` and the others are based on this."""
    subprocess.Popen = Popen


def prepare_executor(process: Any) -> None:
    """`concurrent.futures.ProcessPoolExecutor`."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - rarely used

    class ProcessPoolExecutor(ThreadPoolExecutor):
        """With threads."""

        def __init__(
            self,
            max_workers: int | None = None,
            mp_context: object = None,
            initializer: Any = None,
            initargs: Any = (),
            **_options: object,
        ) -> None:
            del mp_context
            super().__init__(max_workers, "", initializer, initargs)

        def map(
            self, fn: Callable[..., Any], *iterables: Any, timeout: float | None = None, chunksize: int = 1
        ) -> Iterator[Any]:
            """Apply `fn` to each group of arguments, in chunks."""
            return super().map(fn, *iterables, timeout=timeout, chunksize=chunksize)

    process.ProcessPoolExecutor = ProcessPoolExecutor


def prepare_multiprocessing(multiprocessing: Any) -> None:
    """What creates processes creates threads instead."""
    from multiprocessing import dummy, queues  # noqa: PLC0415 - rarely used

    def simple_queue() -> Any:
        return queues.SimpleQueue[Any](ctx=multiprocessing)

    def get_context(method: str | None = None) -> Any:
        del method
        return multiprocessing

    def set_start_method(method: str | None, force: bool = False) -> None:  # noqa: FBT001, FBT002 - its name and place
        del method, force

    for name in _THREADED:
        setattr(multiprocessing, name, getattr(dummy, name))
    multiprocessing.Process, multiprocessing.Value = _with_threads(dummy)
    multiprocessing.Manager = lambda: _Manager(
        {**vars(multiprocessing), "dict": dict, "list": list, "Namespace": dummy.Namespace}
    )
    multiprocessing.SimpleQueue, multiprocessing.get_context, multiprocessing.set_start_method = (
        simple_queue,
        get_context,
        set_start_method,
    )


def _with_threads(dummy: Any) -> tuple[type, type]:
    """`Process` and `Value`, with what a thread and a plain variable lack."""
    from threading import RLock  # noqa: PLC0415 - multiprocessing imports it anyway

    class Process(dummy.Process):
        """A thread, which can only end by itself."""

        pid = os.getpid()

        def terminate(self) -> None:
            """Do nothing: a thread cannot be stopped from outside."""

        kill = close = terminate

    class Value(dummy.Value):
        """With a lock."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)  # pyright: ignore[reportUnknownMemberType] - the class is found at run time
            self._lock = RLock()

        def get_lock(self) -> Any:
            """For `with`."""
            return self._lock

    return Process, Value


class _Manager:
    """Creates objects that threads share anyway."""

    def __init__(self, kinds: Mapping[str, Any]) -> None:
        self._kinds = kinds

    def __getattr__(self, name: str) -> Any:
        return self._kinds[name]

    def __enter__(self) -> _Manager:
        return self

    def __exit__(self, *_error: object) -> None:
        """Nothing to close."""

    shutdown = __exit__


class Popen:
    """`subprocess.Popen` for Python: it has ended as soon as its input is complete."""

    def __init__(self, args: Any, *_positional: Any, **options: Any) -> None:
        self.args = args
        self.pid = os.getpid()
        self.returncode: int | None = None
        self._options = options
        self._command = commands.words(args) if isinstance(args, str) else [os.fsdecode(word) for word in args]
        if commands.is_known(self._command):
            self.stdin: Any = _Input(self._run, text=self._is_text) if options.get("stdin") == _PIPE else None
            self.stdout: Any = None
            self.stderr: Any = None
            if self.stdin is None:
                self._run(_all_of(options.get("stdin")))
        else:
            raise PermissionError(errno.EPERM, commands.refusal(self._command))

    def __class_getitem__(cls, _item: object) -> type[Popen]:
        """`Popen[bytes]`."""
        return cls

    def __enter__(self) -> Popen:
        """Return the process itself, for use in a `with` statement."""
        return self

    def __exit__(self, *_error: object) -> None:
        """It has already ended."""
        self.wait()

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Its output."""
        del timeout
        if self.stdin is not None and input:
            self.stdin.write(input)
        self.wait()
        return tuple(stream.read() if stream is not None else None for stream in (self.stdout, self.stderr))  # pyright: ignore[reportReturnType]

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code."""
        del timeout
        if self.returncode is None:
            self.stdin.close()
        return self.returncode or 0

    def poll(self) -> int | None:
        """Its exit code; None: it is waiting for its input."""
        return self.returncode

    def kill(self, *_signal: object) -> None:
        """There is nothing left to kill."""

    terminate = send_signal = kill

    @property
    def _is_text(self) -> bool:
        return any(self._options.get(name) for name in _TEXT_OPTIONS)

    def _run(self, given: bytes) -> None:
        out, err = (_Output(self._options.get(name)) for name in ("stdout", "stderr"))
        if self._options.get("stderr") == _STDOUT:
            err = out
        kept = sys.stdin, sys.stdout, sys.stderr
        with _place(self._options.get("cwd"), self._options.get("env")):
            sys.stdin, sys.stdout, sys.stderr = (
                io.TextIOWrapper(io.BytesIO(given)),
                out.stream(kept[1]),
                err.stream(kept[2]),
            )
            try:
                self.returncode = commands.run(self._command, given) or 0
            finally:
                sys.stdin, sys.stdout, sys.stderr = kept
                self.stdout = out.result(text=self._is_text)
                self.stderr = err.result(text=self._is_text) if err is not out else None


def _all_of(source: Any) -> bytes:
    if source is None or isinstance(source, int):
        return b""
    data = source.read()
    return data.encode() if isinstance(data, str) else data


@contextmanager
def _place(directory: Any, environment: Mapping[str, str] | None) -> Generator[None]:
    before, variables = os.getcwd(), dict(os.environ)  # noqa: PTH109 - as above
    try:
        if directory is not None:
            os.chdir(directory)
        if environment is not None:
            os.environ.clear()
            os.environ.update(environment)
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(variables)


class _Input(io.BytesIO):
    """Input for the program, which runs once this is closed."""

    def __init__(self, run: Any, *, text: bool) -> None:
        super().__init__()
        self._run, self._text = run, text

    def write(self, data: Any) -> int:
        super().write(data.encode() if isinstance(data, str) else data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            given = self.getvalue()
            super().close()
            self._run(given)


class _Output:
    """The destination of one of the two streams."""

    def __init__(self, wanted: Any) -> None:
        self._wanted = wanted
        self._kept = io.BytesIO()
        self._stream: Any = None

    def stream(self, inherited: Any) -> Any:
        if self._stream is None:
            self._stream = (
                inherited
                if self._wanted is None
                else io.TextIOWrapper(self._kept, encoding="utf-8", write_through=True)
            )
        return self._stream

    def result(self, *, text: bool) -> Any:
        if self._wanted is None or self._wanted == _STDOUT:
            return None
        self._stream.flush()
        data = self._kept.getvalue()
        if self._wanted == _PIPE:
            return io.StringIO(data.decode(errors="replace")) if text else io.BytesIO(data)
        if self._wanted != _DEVNULL:
            os.write(self._wanted if isinstance(self._wanted, int) else self._wanted.fileno(), data)
        return None
