"""A notebook's `%` and `!` here: harmless ones are executed or ignored, the others answered with a sentence."""

from __future__ import annotations

import inspect
import io
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, Protocol

from sandbox.inside import commands

_IGNORED = frozenset(
    {
        *(
            "matplotlib",
            "config",
            "load_ext",
            "reload_ext",
            "unload_ext",
            "autoreload",
            "aimport",
            "autosave",
            "gui",
            "precision",
            "xmode",
        ),
        *(
            "colors",
            "autocall",
            "automagic",
            "doctest_mode",
            "logstart",
            "logstop",
            "alias",
            "rehashx",
            "notebook",
            "history",
        ),
    }
)
_SHELLS = ("bash", "sh", "script", "cmd", "system", "sx", "!")
_JUST_RUN = ("prun", "lprun", "memit", "mprun", "debug")
_TIMED_SECONDS = 0.2
"""How long `%timeit` repeats, if no count is given."""


class Shell(Protocol):
    """What magics need from the notebook."""

    user_ns: dict[str, Any]

    def execute(self, code: str) -> None:
        """Run code as a cell. Raises what the code raises."""
        ...

    def reset(self) -> None:
        """Delete all names."""
        ...


def say(sentence: str) -> None:
    """Tell the reader of the output, in brackets like the service's own notes."""
    print(f"[{sentence}]")  # noqa: T201 - this is the output


def run_line(shell: Shell, name: str, line: str) -> Any:
    """`%name line`."""
    if name in _IGNORED:
        return None
    if name in ("time", "timeit", *_JUST_RUN):
        return run_cell(shell, name, "", line)
    if name in ("pip", "conda", "mamba", "uv", "python", "python3"):
        return run_command(f"{name} {line}")
    if name in _SHELLS:
        return run_command(line)
    action = _LINES.get(name)
    return action(shell, line) if action is not None else say(f"%{name} is not available here; the line was left out.")


def run_cell(shell: Shell, name: str, line: str, cell: str) -> Any:
    """`%%name line` with the rest of the cell."""
    if name in _IGNORED or name in _JUST_RUN:
        return shell.execute(cell)
    if name in _SHELLS:
        return _run_script(cell)
    action = _CELLS.get(name)
    return (
        action(shell, line, cell)
        if action is not None
        else say(f"%%{name} is not available here; the cell was not run.")
    )


def run_command(line: str) -> None:
    """`!line`."""
    words = commands.words(line)
    if commands.run(words) is None:
        say(commands.refusal(words))


def captured(line: str) -> list[str]:
    """The lines that `!line` prints."""
    with redirect_stdout(io.StringIO()) as out:
        run_command(line)
    return out.getvalue().splitlines()


def _run_script(cell: str) -> None:
    for line in cell.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            run_command(line)


def _time(shell: Shell, _line: str, cell: str) -> None:
    began, busy = time.perf_counter(), time.process_time()
    try:
        shell.execute(cell)
    finally:
        used = f"CPU time: {_duration(time.process_time() - busy)}, wall time: {_duration(time.perf_counter() - began)}"
        print(used)  # noqa: T201 - what the magic is for


def _timeit(shell: Shell, line: str, cell: str) -> None:
    options, _, statement = _options(line if line else cell)
    code = compile(statement if not line or not cell else cell, "<timeit>", "exec", dont_inherit=True)
    names, count = shell.user_ns, options.get("n", 0)
    began = time.perf_counter()
    done = 0
    while done < count if count else not done or time.perf_counter() - began < _TIMED_SECONDS:
        exec(code, names)  # noqa: S102 - this is what the sandbox is for
        done += 1
    print(f"{_duration((time.perf_counter() - began) / done)} per loop (mean of {done} loops)")  # noqa: T201 - as above


def _options(line: str) -> tuple[dict[str, int], list[str], str]:
    """Parse `-n 10 -r 3 -o` before a statement: numbers, flags, the statement."""
    numbers: dict[str, int] = {}
    flags: list[str] = []
    rest = line.strip()
    while rest.startswith("-") and rest[1:2].isalpha():
        word, _, rest = rest.partition(" ")
        name, digits = word[1], word[2:]
        if name in "nr" and not digits:
            digits, _, rest = rest.lstrip().partition(" ")
        if digits.isdigit():
            numbers[name] = int(digits)
        else:
            flags.append(word)
        rest = rest.lstrip()
    return numbers, flags, rest


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _capture(shell: Shell, line: str, cell: str) -> None:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(out):
        shell.execute(cell)
    name = next((word for word in line.split() if not word.startswith("-")), None)
    if name is not None:
        shell.user_ns[name] = _Captured(out.getvalue())


class _Captured:
    """What `%%capture name` stores in `name`."""

    stderr = ""

    def __init__(self, stdout: str) -> None:
        self.stdout = stdout

    def __str__(self) -> str:
        return self.stdout

    def show(self) -> None:
        """Print it."""
        print(self.stdout, end="")  # noqa: T201 - what it is for

    __call__ = show


def _write_file(_shell: Shell, line: str, cell: str) -> None:
    append = line.startswith("-a ")
    path = line.removeprefix("-a ").strip().strip("'\"")
    with open(path, "a" if append else "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes 10 ms to import
        file.write(f"{cell.lstrip(chr(10))}\n")
    print(f"{'Appending to' if append else 'Writing'} {path}")  # noqa: T201 - as a notebook does


def _print_cell(_shell: Shell, _line: str, cell: str) -> None:
    print(cell.strip("\n"))  # noqa: T201 - text is all that can be shown


def _run_python(_shell: Shell, line: str, cell: str) -> None:
    commands.run([sys.executable, "-c", cell, *commands.words(line)])


def _run_file(shell: Shell, line: str) -> None:
    words = [word for word in commands.words(line) if word not in ("-i", "-n")]
    if not words:
        say("%run needs the name of a file.")
        return
    path = words[0] if os.path.exists(words[0]) else f"{words[0]}.py"  # noqa: PTH110 - as above
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as above
        code = file.read()
    kept, sys.argv = sys.argv, words
    try:
        exec(compile(code, path, "exec", dont_inherit=True), shell.user_ns)  # noqa: S102 - this is what the sandbox is for
    finally:
        sys.argv = kept


def _who(shell: Shell, _line: str) -> None:
    names = [name for name, value in shell.user_ns.items() if not name.startswith("_") and not _is_shells(value)]
    print("  ".join(sorted(names)) or "Interactive namespace is empty.")  # noqa: T201 - as a notebook does


def _is_shells(value: object) -> bool:
    return str(getattr(value, "__module__", "")).startswith(f"{__package__}.")


def _change_directory(_shell: Shell, line: str) -> None:
    os.chdir(os.path.expanduser(line.strip("'\"") or "~"))  # noqa: PTH111 - as above
    print(os.getcwd())  # noqa: PTH109, T201 - as above


def _environment(_shell: Shell, line: str) -> dict[str, str] | str | None:
    name, assigned, value = line.replace(" ", "=", 1).partition("=") if line else ("", "", "")
    if not name:
        return dict(os.environ)
    if not assigned:
        return os.environ.get(name)
    os.environ[name] = value.strip()
    return None


def _help(shell: Shell, name: str) -> None:
    try:
        value = eval(name, shell.user_ns)  # noqa: S307 - this is what the sandbox is for
    except (NameError, AttributeError, SyntaxError):
        print(f"Object `{name}` not found.")  # noqa: T201 - as a notebook does
        return
    try:
        signature = str(inspect.signature(value)) if callable(value) else ""
    except (TypeError, ValueError):  # a built-in one without a signature
        signature = "(…)"
    print(f"{name}{signature}: {type(value).__name__}\n{inspect.getdoc(value) or ''}")  # noqa: T201 - as above


def _pylab(shell: Shell, _line: str) -> None:
    shell.execute("import numpy as np\nimport matplotlib.pyplot as plt\nfrom pylab import *")


_LINES: Mapping[str, Callable[[Shell, str], Any]] = {
    "run": _run_file,
    "who": _who,
    "whos": _who,
    "who_ls": _who,
    "pwd": lambda _shell, _line: os.getcwd(),  # noqa: PTH109 - as above
    "cd": _change_directory,
    "ls": lambda _shell, line: run_command(f"ls {line}"),
    "cat": lambda _shell, line: run_command(f"cat {line}"),
    "env": _environment,
    "set_env": _environment,
    "pinfo": _help,
    "pinfo2": _help,
    "pdoc": _help,
    "reset": lambda shell, _line: shell.reset(),
    "pylab": _pylab,
}
_CELLS: Mapping[str, Callable[[Shell, str, str], Any]] = {
    "time": _time,
    "timeit": _timeit,
    "capture": _capture,
    "writefile": _write_file,
    "file": _write_file,
    "python": _run_python,
    "python3": _run_python,
    "markdown": _print_cell,
    "latex": _print_cell,
    "html": _print_cell,
}
