"""The ways in which models write calls into their text, as data.

What Qwen's templates ask for (Hermes JSON, Qwen3-Coder's tags), and what models make of it, by reports to vLLM, SGLang, Ollama and
llama.cpp: the tag that opens is forgotten, or is that of the prompt's list of tools; the call is wrapped as in OpenAI's API; small
models answer with nothing but the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec

from app.protocol.recovery.written_calls import ends_in_string
from app.protocol.recovery.written_tags import FUNCTION_MARKS, tags_are_whole

_NAME = "\0"
"""Stands for a function's name in the forms below."""


class Family(msgspec.Struct, frozen=True):
    """Calls between marks, anywhere in the text."""

    opens: str
    """Its only `<` is its first character."""
    closes: tuple[str, ...]
    keeps_marks: bool = False
    """The marks are part of the body."""


class Ends(msgspec.Struct, frozen=True):
    """The marks that may end a body."""

    marks: tuple[str, ...]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, *marks: str) -> Ends:
        """The marks, and what is derived from them."""
        return cls(marks, re.compile("|".join(map(re.escape, marks))))


_BODIES = ("{", "[", *FUNCTION_MARKS, "```", f"{_NAME}(", f"{_NAME}\n", f"{_NAME}{{")
"""How the body of a family begins whose marks are no part of it."""
_AFTER_FUNCTION_MARK = (f"{_NAME}>", f'"{_NAME}"', f"'{_NAME}'", f"{_NAME} ")
"""How one goes on whose opening mark is that of a function."""

_CLOSES = ("</tool_call>", "</tool_calls>", "</tools>", "</function_call>", "</function_calls>", "<|im_end|>")
"""Models mistake one for another, or end their turn instead."""
FAMILIES = (
    *(Family(mark, _CLOSES) for mark in ("<tool_call>", "<tool_calls>", "<tools>", "<function_call>", "<function_calls>")),
    *(Family(mark, ("</function>", *_CLOSES), keeps_marks=True) for mark in FUNCTION_MARKS),
)

_BARE_FORMS = (
    '{"name":"\0","arguments":',
    '{"name":"\0","parameters":',
    '{"arguments":{',
    '{"parameters":{',
    '{"type":"function","function":{"name":"\0"',
    '{"type":"function","name":"\0"',
    '{"function":{"name":"\0"',
    '{"tool_calls":[',
)
_BARE = (*_BARE_FORMS, *(f"[{form}" for form in (*_BARE_FORMS, f"{_NAME}(")))
"""How an answer begins, without white space, that is nothing but a call."""
_BARE_IN_FENCES = (*_BARE, *(family.opens for family in FAMILIES))
_WRITTEN_NAME = re.compile(r"[\w.:/-]{0,128}")
"""As models write it; longer ones are none."""
_FENCE = re.compile(r"```(?:json|xml|tool_call)?(?![a-z_])[ \t]*\s*")
_PART_OF_FENCE = re.compile(r"`{1,2}|```(?:j(?:s(?:on?)?)?|x(?:ml?)?|t(?:o(?:ol?)?)?|tool_(?:c(?:a(?:ll?)?)?)?)?")
MOST_LOOKED_AT = 1000
"""Characters, within which the beginning of a bare form has to show."""

OPENING = re.compile("|".join(re.escape(family.opens) for family in FAMILIES))
BY_MARK = {family.opens: family for family in FAMILIES}
_OPENS = tuple(family.opens for family in FAMILIES if not family.keeps_marks)
ENDS = {family.opens: Ends.of(*family.closes) for family in FAMILIES}
ENDS_OF_JSON = Ends.of(*_CLOSES, *_OPENS)
"""Behind JSON an opening mark that is not in a string begins the next call, or stands for the closing one."""
STRAY = ("</function>", *_CLOSES)
"""Marks that are forgotten, or doubled, behind a call."""
LEFT_OVER = (*STRAY, *_OPENS)
"""Marks that mean nothing when they are all there is beside a call."""


class Beginnings:
    """How calls begin. `known`: whether a name is a function's; `may_become`: whether one may be that is still being written."""

    def __init__(self, known: Callable[[str], bool], may_become: Callable[[str], bool]) -> None:
        self._known = known
        self._may_become = may_become

    def bare(self, text: str) -> bool | None:
        """Whether the answer that begins with `text` may be nothing but a call; None: that cannot be known yet."""
        found = self._bare_within(text[:MOST_LOOKED_AT].lstrip())
        return False if found is None and len(text) >= MOST_LOOKED_AT else found

    def body(self, family: Family, text: str) -> bool | None:
        """Whether the text behind an opening mark may be a call; None: that cannot be known yet."""
        near = text[:MOST_LOOKED_AT]
        found = self._any(near, _AFTER_FUNCTION_MARK) if family.keeps_marks else self._any(near.lstrip(), _BODIES)
        return False if found is None and len(text) >= MOST_LOOKED_AT else found

    def _bare_within(self, text: str) -> bool | None:
        if not text.startswith("`"):
            return self._any("".join(text.split()), _BARE)
        if _PART_OF_FENCE.fullmatch(text):
            return None
        fence = _FENCE.match(text)
        return self._any("".join(text[fence.end() :].split()), _BARE_IN_FENCES) if fence else False

    def _any(self, text: str, forms: Iterable[str]) -> bool | None:
        found = [self._begins(text, form) for form in forms]
        return True if True in found else None if None in found else False

    def _begins(self, text: str, form: str) -> bool | None:
        before, named, after = form.partition(_NAME)
        if not text.startswith(before):
            return None if before.startswith(text) else False
        if not named:
            return True
        end = _WRITTEN_NAME.match(text, len(before)).end()  # pyright: ignore[reportOptionalMemberAccess] - an empty name matches
        name, rest = text[len(before) : end], text[end:]
        if not rest:
            return None if self._may_become(name) else False
        if rest.startswith(after):
            return self._known(name)
        return None if after.startswith(rest) and self._known(name) else False


def is_whole(body: str, mark: str) -> bool:
    """Whether the body ends at the closing mark that was found behind it; else the mark may be part of a value."""
    if body.lstrip().startswith(FUNCTION_MARKS):
        return tags_are_whole(body, mark)
    return not (is_json(body) and ends_in_string(body))


def is_json(body: str) -> bool:
    """Whether the body begins as JSON does."""
    return body.lstrip().startswith(("{", "["))
