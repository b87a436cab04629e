"""The few shell programs that code uses to look around, in Python: ls, cat, head, pwd, echo, mkdir."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

_HEAD_LINES = 10


def _list(words: Sequence[str]) -> int:
    failed = 0
    for path in _paths(words) or ["."]:
        if not os.path.lexists(path):
            failed = _complain("ls", path)
            continue
        names = sorted(os.listdir(path)) if os.path.isdir(path) else [path]  # noqa: PTH112, PTH208 - pathlib takes 10 ms to import
        print("".join(f"{name}\n" for name in names if not name.startswith(".") or name == path), end="")  # noqa: T201 - what it is for
    return failed


def _print(words: Sequence[str]) -> int:
    return _print_lines("cat", _paths(words), None)


def _print_first(words: Sequence[str]) -> int:
    """`head -5 x`, `head -n 5 x`."""
    numbers = [word.lstrip("-n") for word in words if word.lstrip("-n").isdigit()]
    paths = [path for path in _paths(words) if not path.isdigit()]
    return _print_lines("head", paths, int(numbers[0]) if numbers else _HEAD_LINES)


def _print_lines(name: str, paths: Sequence[str], most: int | None) -> int:
    failed = 0
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123 - as above
                sys.stdout.writelines(line for number, line in enumerate(file) if most is None or number < most)
        except OSError:
            failed = _complain(name, path)
    return failed


def _make_directories(words: Sequence[str]) -> int:
    for path in _paths(words):
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - as above
    return 0


def _tell_directory(_words: Sequence[str]) -> int:
    print(os.getcwd())  # noqa: PTH109, T201 - as above
    return 0


def _echo(words: Sequence[str]) -> int:
    print(*words)  # noqa: T201 - as above
    return 0


def _paths(words: Sequence[str]) -> list[str]:
    """Without options, and with patterns expanded."""
    import glob  # noqa: PLC0415 - rarely used

    return [path for word in words if not word.startswith("-") for path in sorted(glob.glob(word)) or [word]]  # noqa: PTH207 - as above


def _complain(name: str, path: str) -> int:
    print(f"{name}: {path}: No such file or directory", file=sys.stderr)  # noqa: T201 - as above
    return 1


PROGRAMS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "ls": _list,
    "cat": _print,
    "head": _print_first,
    "pwd": _tell_directory,
    "echo": _echo,
    "mkdir": _make_directories,
}
"""By name: takes the arguments, prints, and returns the exit code."""
