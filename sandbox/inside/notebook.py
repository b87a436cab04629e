"""Runs code in one `__main__` module, as a notebook runs cells."""

from __future__ import annotations
import __future__

import ast
import builtins
import inspect
import io
import linecache
import os
import sys
import threading
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from types import CodeType, ModuleType
from typing import Any

from sandbox.inside import commands, display, errors, figures, hooks, magics, packages, processes, source

_FUTURES = sum({getattr(__future__, name).compiler_flag for name in __future__.all_feature_names})
_NOBODY_TYPES = "There is no interactive input, so input() and debuggers do not work. Put the value into the code."
_WANTS_LOOP = frozenset(("create_task", "ensure_future", "gather", "get_running_loop"))
"""In a notebook a loop is already running, so code calls these without creating one."""
_ENDING_SECONDS = 0.1
"""Grace period for threads that end together with the code."""
_STANDARD_OUTPUT = 1


class Notebook:
    """Also the result of `get_ipython()`."""

    events: Any
    config: Any

    def __init__(self, directory: str) -> None:
        self.user_ns: dict[str, Any] = {}
        self.events = self.config = _Nothing()
        self._directory = directory
        self._count = 0
        self._flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._loop: Any = None
        self._output: Any = sys.stdout
        self._stdin, self._read_line = sys.stdin, builtins.input
        self._begin()
        sys.path.insert(0, directory)

    def run(self, code: str) -> None:
        """Run a cell; any exception is printed. Raises TimeLimitReached."""
        self._count += 1
        self._restore_output()
        threads = set(threading.enumerate())
        name = f"<cell {self._count}>"
        code = source.tidied(code)
        linecache.cache[name] = (len(code), None, [f"{line}\n" for line in code.split("\n")], name)
        try:
            self.execute(code)
        except errors.TimeLimitReached:
            raise
        except SystemExit as end:
            commands.exit_code(end)
        except BaseException as error:  # noqa: BLE001 - any exception of the code is its output
            errors.show(error)
        figures.save(self._directory)
        self._tell_of_threads(threads)

    def execute(self, code: str) -> None:
        """Run code as part of the current cell. Raises what it raises."""
        name = f"<cell {self._count}>"
        code = source.translate(code)
        tree = ast.parse(code, name)
        last: list[ast.stmt] = []
        if (
            tree.body
            and isinstance(expression := tree.body[-1], ast.Expr)
            and not source.ends_silently(code, expression.value)
        ):
            last = [tree.body.pop()]
        parts = [compile(tree, name, "exec", self._flags, dont_inherit=True)]
        self._flags |= parts[0].co_flags & _FUTURES
        if last:  # "single" displays the value
            parts.append(compile(ast.Interactive(last), name, "single", self._flags, dont_inherit=True))
        if any(part.co_flags & inspect.CO_COROUTINE or _WANTS_LOOP.intersection(part.co_names) for part in parts):
            self._run_in_loop(parts)
        else:
            for part in parts:
                exec(part, self.user_ns)  # noqa: S102 - this is what the sandbox is for

    def reset(self) -> None:
        """Delete all names."""
        self.user_ns.clear()
        self.user_ns.update(
            {"__name__": "__main__", "__builtins__": builtins, "display": display.display, "get_ipython": self._get}
        )

    def run_line_magic(self, name: str, line: str = "", *_depth: object) -> Any:
        """`%name line`."""
        return magics.run_line(self, name, line)

    def run_cell_magic(self, name: str, line: str, cell: str, before: int = 0) -> Any:
        """`%%name line`; `before` is the number of lines of the cell above its body."""
        return magics.run_cell(self, name, line, "\n" * before + cell)

    def system(self, line: str) -> None:
        """`!line`."""
        magics.run_command(line)

    def getoutput(self, line: str) -> list[str]:
        """`name = !line`."""
        return magics.captured(line)

    def magic(self, line: str) -> Any:
        """`%line`, as called by old code."""
        name, _, rest = line.lstrip("%").partition(" ")
        return self.run_line_magic(name, rest)

    def _begin(self) -> None:
        module = ModuleType("__main__")
        sys.modules["__main__"] = module
        self.user_ns = module.__dict__
        self.reset()
        builtins.__dict__.update({"input": self._input, "exit": sys.exit, "quit": sys.exit, "help": _help})
        sys.breakpointhook = _no_input
        threading.excepthook = lambda ended: errors.show(ended.exc_value) if ended.exc_value is not None else None
        os.system = processes.system
        errors.quieten_warnings()
        display.install(self)
        hooks.after_import(
            {
                "matplotlib": figures.prepare_matplotlib,
                "matplotlib.pyplot": figures.prepare_pyplot,
                "matplotlib._mathtext": figures.prepare_formulas,
                "asyncio": self._keep_a_loop,
                "mimetypes": _keep_to_built_in_types,
                "pandas": display.prepare_pandas,
                "jieba": _quieten_jieba,
                "subprocess": processes.prepare_subprocess,
                "multiprocessing": processes.prepare_multiprocessing,
                "concurrent.futures.process": processes.prepare_executor,
            }
        )
        sys.meta_path.insert(0, packages.OnlyListed(errors.package_directories))  # pyright: ignore[reportArgumentType] - by its method

    def _input(self, prompt: object = "") -> str:
        if sys.stdin is self._stdin:
            _no_input()
        return self._read_line(prompt)

    def _get(self) -> Notebook:
        return self

    def _run_in_loop(self, parts: Sequence[CodeType]) -> None:
        import asyncio  # noqa: PLC0415 - takes 50 ms, only needed by asynchronous code

        if self._loop is None:
            _run_alone(self._awaited(parts))
            return
        if self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(self._awaited(parts))
        try:
            self._loop.run_until_complete(task)
        finally:
            task.cancel()

    def _keep_a_loop(self, asyncio: Any) -> None:
        """Provide a loop for code that asks for one, also after `asyncio.run`, which leaves none behind."""
        run = asyncio.run
        asyncio.create_subprocess_exec = asyncio.create_subprocess_shell = processes.refuse_asynchronous

        def run_and_restore(main: Any, **options: Any) -> Any:
            try:
                return run(main, **options)
            finally:
                asyncio.set_event_loop(self._loop)

        # a loop that is only half closed complains when it is collected
        hook, sys.unraisablehook = sys.unraisablehook, _nothing
        with suppress(OSError):  # WebAssembly has no sockets
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
            asyncio.run = run_and_restore
        sys.unraisablehook = hook

    async def _awaited(self, parts: Sequence[CodeType]) -> None:
        for part in parts:
            waiting = eval(part, self.user_ns)  # noqa: S307 - this is what the sandbox is for
            if inspect.iscoroutine(waiting):
                await waiting

    def _restore_output(self) -> None:
        """Code may have replaced or closed the streams."""
        if self._output.closed:
            raw = open(_STANDARD_OUTPUT, "wb", buffering=0, closefd=False)  # noqa: SIM115 - it stays open
            self._output = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
        sys.stdout = sys.stderr = self._output

    def _tell_of_threads(self, before: set[threading.Thread]) -> None:
        own = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("Thread-")]
        until = time.monotonic() + _ENDING_SECONDS
        for thread in own:
            thread.join(max(0.0, until - time.monotonic()))
        left = sum(thread.is_alive() for thread in own)
        if left:
            magics.say(
                f"Threads it started are still running ({left}): they are paused now, and resume with the next run."
            )


def _run_alone(waiting: Coroutine[Any, Any, None]) -> None:
    """Run without a loop: a coroutine that awaits only other code can still be run."""
    with suppress(StopIteration):
        while True:
            waiting.send(None)


class _Nothing:
    """Accepts every call and attribute, and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return _nothing


def _nothing(*_arguments: object, **_options: object) -> None:
    """Take any arguments and do nothing."""


def _no_input(*_arguments: object, **_options: object) -> Any:
    raise EOFError(_NOBODY_TYPES)


def _help(value: object = None) -> None:
    import pydoc  # noqa: PLC0415 - rarely used

    print(pydoc.plain(pydoc.render_doc(value, "%s")))  # noqa: T201 - this is the output


def _quieten_jieba(jieba: Any) -> None:
    """It logs how long loading its dictionary took."""
    jieba.setLogLevel("WARNING")


def _keep_to_built_in_types(mimetypes: Any) -> None:
    """The machine's files are visible but cannot be read."""
    mimetypes.knownfiles = []
