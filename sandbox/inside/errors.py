"""Exceptions and warnings as the code's author wants to read them: limited to that code, with advice."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TextIO

from sandbox.inside import packages

_OURS = os.path.dirname(__file__)  # noqa: PTH120 - pathlib takes 10 ms to import, of the 60 a sandbox takes to start
_STANDARD = os.path.dirname(os.__file__)  # noqa: PTH120 - as above
_SHOWN_WITHOUT_FILE = ("<cell ", "<string>")
_MANY_FRAMES, _LAST_FRAMES = 5000, 20
_PROCESS_CALLS = ("fork", "exec", "spawn")
_ABOUT_SITE = ". Site initialization is disabled"
_NETWORK_FILES = ("socket.py", "asyncio/base_events.py", "http/client.py")
_UNIMPORTANT = (
    DeprecationWarning,
    PendingDeprecationWarning,
    FutureWarning,
    SyntaxWarning,
    ResourceWarning,
    ImportWarning,
)
_ABOUT_DRAWING = (
    "Glyph ",
    "findfont",
    "FigureCanvasAgg is non-interactive",
    "More than 20 figures",
    "Matplotlib is currently using agg",
)


class TimeLimitReached(KeyboardInterrupt):
    """The code exceeded its time limit."""

    __module__ = "builtins"  # tracebacks then show the bare name


def show(error: BaseException, file: TextIO | None = None) -> None:
    """Print the traceback, and advice if there is any."""
    try:
        _shorten(error)
        shown = traceback.TracebackException.from_exception(error)
        _keep_authors_frames(shown)
        lines = [*map(_without_advice, shown.format()), *(f"[{hint}]\n" for hint in _hints(error))]
    except TimeLimitReached:
        raise
    except BaseException as another:  # noqa: BLE001 - an exception that cannot be shown is the code's fault, too
        lines = [f"{type(error).__name__} (it cannot be shown: {type(another).__name__})\n"]
    (file or sys.stdout).writelines(lines)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A `warnings.showwarning` that omits what no reader of the output can act on."""
    del line
    text = str(message)
    if issubclass(category, _UNIMPORTANT) or text.startswith(_ABOUT_DRAWING):
        return
    where = f"{filename}:{lineno}: " if _is_authors(filename) else ""
    print(f"{where}{category.__name__}: {text}", file=file or sys.stderr)


def quieten_warnings() -> None:
    """Filter warnings from now on."""
    warnings.showwarning = show_warning


def _without_advice(line: str) -> str:
    """Newer Python versions hint that site initialization is disabled, which is intended here."""
    kept, advice, _ = line.partition(_ABOUT_SITE)
    return f"{kept}\n" if advice else line


def _shorten(error: BaseException) -> None:
    """For endless recursion the last frames suffice, and examining a million takes many seconds."""
    frames: deque[TracebackType] = deque(maxlen=_LAST_FRAMES)
    count, link = 0, error.__traceback__
    while link is not None:
        frames.append(link)
        count, link = count + 1, link.tb_next
    if count > _MANY_FRAMES:
        error.__traceback__ = frames[0]


def _keep_authors_frames(shown: traceback.TracebackException) -> None:
    for link in _links(shown):
        link.stack[:] = [frame for frame in link.stack if _is_authors(frame.filename)]
        if not link.stack:
            link.stack = None  # pyright: ignore[reportAttributeAccessIssue] - the way to omit the headline


def _links(shown: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """The exception, its causes, and the members of its groups."""
    waiting: list[traceback.TracebackException | None] = [shown]
    while waiting:
        link = waiting.pop()
        if link is not None:
            yield link
            waiting += [link.__cause__, link.__context__, *(link.exceptions or ())]


def _is_authors(filename: str) -> bool:
    if filename.startswith("/"):
        return not filename.startswith((_OURS, _STANDARD, *(f"{directory}/" for directory in package_directories)))
    return filename.startswith(_SHOWN_WITHOUT_FILE)


package_directories: list[str] = []
"""The packages' directories; set before any code runs."""


def _hints(error: BaseException) -> Iterator[str]:
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        if name and packages.is_missing(name):
            yield f"There is no module {name} here. {packages.sentence()}"
    elif isinstance(error, OSError) and _is_of_network(error):
        yield "There is no network in this sandbox: work with the files in /mnt/data."
    elif isinstance(error, PermissionError) and _is_of_process(error):
        yield "This sandbox starts no processes; multiprocessing and subprocess work with threads and Python code."
    elif _is_of_font(error) and (font := packages.font()) is not None:
        yield f"A font with Chinese is at {font}"


def _is_of_network(error: OSError) -> bool:
    if type(error).__name__ in ("gaierror", "URLError"):
        return True
    return error.errno == errno.EPERM and any(frame.filename.endswith(_NETWORK_FILES) for frame in _frames(error))


def _is_of_process(error: OSError) -> bool:
    frames = _frames(error)
    return (
        error.errno == errno.EPERM and bool(frames) and any(call in (frames[-1].line or "") for call in _PROCESS_CALLS)
    )


def _is_of_font(error: BaseException) -> bool:
    text = str(error)
    return text == "cannot open resource" or text.startswith("Can't open file") or type(error).__name__ == "TTFError"


def _frames(error: BaseException) -> Any:
    return traceback.extract_tb(error.__traceback__)
