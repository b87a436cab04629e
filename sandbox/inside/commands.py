"""Commands:

Python runs inside this process, since a sandbox has no other; pip is emulated; other programs are not run.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import ModuleType

from sandbox.inside import errors, packages
from sandbox.inside.looking import PROGRAMS

_PYTHON = re.compile(r"(?:.*/)?python(?:3(?:\.\d+)?)?")
_PIP = re.compile(r"(?:.*/)?(?:pip(?:3(?:\.\d+)?)?|conda|mamba|uv)")
_SHELL = re.compile(r"(?:\|\|?|&&?|;|[0-9&]?>|<)|.*[;|]$")
"""A word that only a shell understands."""
_MERGED = ("2>&1",)
"""Redirections that change nothing here."""
_SWITCHES_WITH_VALUE = ("-W", "-X")


def words(command: str) -> list[str]:
    """The words of a command line."""
    try:
        return shlex.split(command)
    except ValueError:  # an unbalanced quotation mark
        return command.split()


def refusal(command: Sequence[str]) -> str:
    """Why a program is not run."""
    return (
        f"{command[0] if command else 'It'} is not run: this sandbox starts no program but Python, and has no network. "
        f"Do it in Python."
    )


def is_known(command: Sequence[str]) -> bool:
    """Whether `run` can do it: a single program, or pip with any redirection of its output."""
    if not command or _PIP.fullmatch(command[0]):
        return bool(command)
    if any(_SHELL.search(word) for word in command[1:] if " " not in word):
        return False
    return command[0] == sys.executable or command[0] in PROGRAMS or bool(_PYTHON.fullmatch(command[0]))


def run(command: Sequence[str], given: bytes = b"") -> int | None:
    """Run Python or emulate pip, on `sys.stdout` and `sys.stderr`. The exit code; None: it is another program."""
    command = [word for word in command if word not in _MERGED]
    if not is_known(command):
        return None
    if command[0] in PROGRAMS:
        return PROGRAMS[command[0]](command[1:])
    return _pip(list(command[1:])) if _PIP.fullmatch(command[0]) else _python(list(command[1:]), given)


def _pip(arguments: list[str]) -> int:
    shell = next((at for at, word in enumerate(arguments) if _SHELL.match(word)), len(arguments))
    arguments = arguments[1 if arguments[:1] == ["pip"] else 0 : shell]  # uv pip install
    verb = next((word for word in arguments if not word.startswith("-")), "")
    if verb in ("list", "freeze"):
        print("\n".join(f"{name}=={_version(name)}" for name in packages.installed()))  # noqa: T201 - pip's output
        return 0
    names = [re.split(r"[\[=<>!~; ]", word)[0] for word in arguments if not word.startswith("-") and word != verb]
    here = {name.lower().replace("_", "-"): name for name in packages.installed()}
    there = [here[name.lower().replace("_", "-")] for name in names if name.lower().replace("_", "-") in here]
    for name in there:
        print(f"Requirement already satisfied: {name}=={_version(name)}")  # noqa: T201 - as above
    if names and len(there) == len(names):
        return 0
    print(f"[{packages.sentence()}]", file=sys.stderr)  # noqa: T201 - as above
    return 1


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - rarely used

    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _python(arguments: list[str], given: bytes) -> int:
    while arguments and re.match(r"-[^cmhV-]", arguments[0]):
        del arguments[: 2 if arguments[0] in _SWITCHES_WITH_VALUE else 1]
    match arguments:
        case ["-c", code, *rest]:
            return _execute(code, "<string>", ["-c", *rest], os.getcwd())  # noqa: PTH109 - pathlib takes 10 ms to import
        case ["-m", ("pip" | "pip3"), *rest]:
            return _pip(rest)
        case ["-m", name, *rest]:
            return _run_module(name, rest)
        case [("-V" | "--version"), *_]:
            print(f"Python {sys.version.split()[0]}")  # noqa: T201 - as above
            return 0
        case [path, *rest] if path != "-":
            return _run_file(path, rest)
        case _:
            return _execute(given.decode(errors="replace"), "<string>", ["-"], os.getcwd())  # noqa: PTH109 - as above


def _run_file(path: str, rest: Sequence[str]) -> int:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as above
            code = file.read()
    except (OSError, ValueError) as error:
        print(f"python: can't open file {path!r}: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 2
    return _execute(code, path, [path, *rest], os.path.dirname(os.path.abspath(path)))  # noqa: PTH100, PTH120 - as above


def _run_module(name: str, rest: Sequence[str]) -> int:
    code = f"import runpy as _r; _r.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return _execute(code, "<string>", [name, *rest], os.getcwd())  # noqa: PTH109 - as above


def _execute(code: str, name: str, arguments: list[str], directory: str) -> int:
    with _as_another_program(arguments, directory) as module:
        if name != "<string>":
            module.__file__ = name
        try:
            exec(compile(code, name, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - this is what the sandbox is for
        except errors.TimeLimitReached:
            raise
        except SystemExit as end:
            return exit_code(end)
        except BaseException as error:  # noqa: BLE001 - any exception of the code ends that program
            errors.show(error, sys.stderr)
            return 1
        return 0


def exit_code(end: SystemExit) -> int:
    """The exit code of `sys.exit(…)`; a message is printed."""
    if end.code is None or isinstance(end.code, int):
        return int(end.code or 0)
    print(end.code, file=sys.stderr)  # noqa: T201 - as Python does
    return 1


@contextmanager
def _as_another_program(arguments: list[str], directory: str) -> Generator[ModuleType]:
    """With its own `__main__`, and none of the author's modules imported."""
    own = {name: module for name, module in sys.modules.items() if _is_in(directory, module)}
    kept = sys.modules["__main__"], sys.argv, list(sys.path), sys.displayhook
    module = ModuleType("__main__")
    for name in own:
        del sys.modules[name]
    sys.modules["__main__"], sys.argv = module, arguments
    sys.path.insert(0, directory)
    try:
        yield module
    finally:
        for name in [name for name, made in sys.modules.items() if _is_in(directory, made)]:
            del sys.modules[name]
        sys.modules.update(own)
        sys.modules["__main__"], sys.argv, sys.path[:], sys.displayhook = kept


def _is_in(directory: str, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and file.startswith(f"{directory}/") and module.__name__ != "__main__"
