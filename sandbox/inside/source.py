"""Notebook syntax to Python: `%magic`, `%%magic`, `!command`, `name?`, and what is copied along with code.

Every line keeps its number, so that tracebacks show the author's line numbers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_SPECIAL = re.compile(r"^[ \t]*(?:[%!?]|(?:pip3?|conda)[ \t])|\?[ \t]*$|=[ \t]*[%!]", re.MULTILINE)
_CELL_MAGIC = re.compile(r"%%(\w+|!)[ \t]*(.*)")
_LINE_MAGIC = re.compile(r"(\s*)%(\w+)[ \t]*(.*)")
_COMMAND = re.compile(r"(\s*)!!?\s*(.*)")
_ASSIGNED = re.compile(r"(\s*[\w.,\[\]'\" ]+?\s*=\s*)([!%])\s*(.+)")
_HELP = re.compile(r"(\s*)(?:\?\??\s*([\w.]+)|([\w.]+)\s*\?\??)\s*")
_BARE_PIP = re.compile(r"(\s*)((?:pip3?|conda)\s+(?:install|uninstall|list|show|freeze)\b.*)")
_PROMPT = re.compile(r"(?:>>> ?|In \[\d+\]: ?)")
_CONTINUED_PROMPT = re.compile(r"(?:\.\.\. ?| +\.\.\.: ?)")
_OUTSIDE = re.compile(r"#.*|'''|\"\"\"|['\"]|[()\[\]{}]|\\$")


def translate(code: str) -> str:
    """The code as Python; what was Python is unchanged."""
    code = tidied(code)
    if _SPECIAL.search(code) is None or _is_python(code):
        return code
    return "\n".join(_translated(code.split("\n")))


def ends_silently(code: str, last: ast.expr) -> bool:
    """A semicolon after the last expression: its value is not displayed."""
    lines = code.encode().split(b"\n")
    rest = [lines[(last.end_lineno or 1) - 1][last.end_col_offset or 0 :], *lines[last.end_lineno or 1 :]]
    return any(line.split(b"#")[0].strip().startswith(b";") for line in rest)


def tidied(code: str) -> str:
    """Without what is copied along with code: prompts, indentation, other line ends."""
    code = code.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    first = next((line for line in code.split("\n") if line.strip()), "")
    if _PROMPT.match(first):
        return "\n".join(_without_prompt(line) for line in code.split("\n"))
    if first[:1] in " \t" and not _is_python(code):
        import textwrap  # noqa: PLC0415 - rarely used

        return textwrap.dedent(code)
    return code


def _without_prompt(line: str) -> str:
    """A line without a prompt among lines with prompts is output."""
    prompt = _PROMPT.match(line) or _CONTINUED_PROMPT.match(line)
    return line[prompt.end() :] if prompt is not None else ""


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _translated(lines: list[str]) -> Iterator[str]:
    scanner = _Scanner()
    at = 0
    while at < len(lines):
        line = lines[at]
        begins = scanner.between_statements
        if begins and (cell := _CELL_MAGIC.match(line)) is not None:
            yield _call("run_cell_magic", cell[1], cell[2].strip(), "\n".join(lines[at + 1 :]), at + 1)
            return
        whole, count = _joined(lines, at)
        translated = _translated_line(whole) if begins else None
        if translated is None:
            scanner.feed(line)
            yield line
            at += 1
        else:
            yield translated
            yield from [""] * (count - 1)
            at += count


def _joined(lines: list[str], at: int) -> tuple[str, int]:
    """A line joined with its backslash continuations, and their number."""
    count = 1
    whole = lines[at]
    while whole.endswith("\\") and at + count < len(lines):
        whole = whole[:-1] + lines[at + count].lstrip()
        count += 1
    return whole, count


def _translated_line(line: str) -> str | None:
    """The translated line; None: it is Python."""
    if (found := _LINE_MAGIC.fullmatch(line)) is not None:
        return found[1] + _call("run_line_magic", found[2], found[3].strip())
    if (found := _COMMAND.fullmatch(line)) is not None:
        return found[1] + _call("system", found[2].strip())
    if (found := _ASSIGNED.fullmatch(line)) is not None:
        name, _, rest = found[3].partition(" ")
        return found[1] + (
            _call("getoutput", found[3]) if found[2] == "!" else _call("run_line_magic", name, rest.strip())
        )
    if (found := _HELP.fullmatch(line)) is not None:
        return found[1] + _call("run_line_magic", "pinfo", found[2] or found[3])
    if (found := _BARE_PIP.fullmatch(line)) is not None:
        return found[1] + _call("system", found[2])
    return None


def _call(method: str, *arguments: object) -> str:
    return f"get_ipython().{method}({', '.join(map(repr, arguments))})"


class _Scanner:
    """Tracks after each line whether a bracket, a multi-line string or a backslash continuation is still open."""

    def __init__(self) -> None:
        self._depth = 0
        self._quotes = ""
        self._continued = False

    @property
    def between_statements(self) -> bool:
        return not (self._depth or self._quotes or self._continued)

    def feed(self, line: str) -> None:
        """The next line."""
        at = 0
        self._continued = False
        while at < len(line):
            if self._quotes:
                at = self._after_string(line, at)
                continue
            mark = _OUTSIDE.search(line, at)
            if mark is None or mark[0].startswith("#"):
                break
            at = mark.end()
            self._take(mark[0])
        if len(self._quotes) == 1:  # an unterminated string ends with its line
            self._quotes = ""

    def _take(self, mark: str) -> None:
        if mark == "\\":
            self._continued = True
        elif mark in "([{":
            self._depth += 1
        elif mark in ")]}":
            self._depth = max(0, self._depth - 1)
        else:
            self._quotes = mark

    def _after_string(self, line: str, at: int) -> int:
        end = re.compile(rf"(?:[^\\]|\\.)*?{self._quotes}").match(line, at)
        if end is None:
            return len(line)
        self._quotes = ""
        return end.end()
