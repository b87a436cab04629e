"""The forms in which models write calls into their text, as data.

The forms that Qwen's templates ask for (Hermes JSON, Qwen3-Coder's tags), and models' variants of them, from issues of
vLLM, SGLang, Ollama and llama.cpp: the opening tag is missing, or is that of the prompt's list of tools; the call is
wrapped as in OpenAI's API; small models answer with only the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec

from app.protocol.recovery.written_calls import ends_in_string
from app.protocol.recovery.written_tags import FUNCTION_MARKS, tags_are_whole

_NAME = "\0"
"""Placeholder for a function's name in the forms below."""


class Family(msgspec.Struct, frozen=True):
    """Calls between marks, anywhere in the text."""

    opens: str
    """The opening mark; its only `<` is its first character."""
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
"""Beginnings of bodies in families whose marks are not part of the body."""
_AFTER_FUNCTION_MARK = (f"{_NAME}>", f'"{_NAME}"', f"'{_NAME}'", f"{_NAME} ")
"""Continuations of bodies whose opening mark is that of a function."""

_CLOSES = ("</tool_call>", "</tool_calls>", "</tools>", "</function_call>", "</function_calls>", "<|im_end|>")
"""Models confuse them, or end their turn instead."""
FAMILIES = (
    *(
        Family(mark, _CLOSES)
        for mark in ("<tool_call>", "<tool_calls>", "<tools>", "<function_call>", "<function_calls>")
    ),
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
"""Beginnings, without white space, of answers that consist only of a call."""
_BARE_IN_FENCES = (*_BARE, *(family.opens for family in FAMILIES))
_WRITTEN_NAME = re.compile(r"[\w.:/-]{0,128}")
"""Names as models write them; longer ones are not names."""
_FENCE = re.compile(r"```(?:json|xml|tool_call)?(?![a-z_])[ \t]*\s*")
_PART_OF_FENCE = re.compile(r"`{1,2}|```(?:j(?:s(?:on?)?)?|x(?:ml?)?|t(?:o(?:ol?)?)?|tool_(?:c(?:a(?:ll?)?)?)?)?")
MOST_LOOKED_AT = 1000
"""Characters within which the beginning of a bare form must be recognisable."""

OPENING = re.compile("|".join(re.escape(family.opens) for family in FAMILIES))
BY_MARK = {family.opens: family for family in FAMILIES}
_OPENS = tuple(family.opens for family in FAMILIES if not family.keeps_marks)
ENDS = {family.opens: Ends.of(*family.closes) for family in FAMILIES}
ENDS_OF_JSON = Ends.of(*_CLOSES, *_OPENS)
"""After JSON, an opening mark outside of strings begins the next call, or is written in place of the closing one."""
STRAY = ("</function>", *_CLOSES)
"""Closing marks that may be missing or doubled after a call."""
LEFT_OVER = (*STRAY, *_OPENS)
"""Marks that are ignored if there is nothing else beside a call."""


class Beginnings:
    """Recognises beginnings of calls.

    `known`: whether a name is a function's; `may_become`: whether an unfinished name may become one.
    """

    def __init__(self, known: Callable[[str], bool], may_become: Callable[[str], bool]) -> None:
        self._known = known
        self._may_become = may_become

    def bare(self, text: str) -> bool | None:
        """Whether the answer that begins with `text` may consist only of a call; None: not known yet."""
        found = self._bare_within(text[:MOST_LOOKED_AT].lstrip())
        return False if found is None and len(text) >= MOST_LOOKED_AT else found

    def body(self, family: Family, text: str) -> bool | None:
        """Whether the text after an opening mark may be a call; None: not known yet."""
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
        unsure = None if None in found else False
        return True if True in found else unsure

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
    """Whether the body ends at the closing mark found after it; otherwise the mark may be part of a value."""
    if body.lstrip().startswith(FUNCTION_MARKS):
        return tags_are_whole(body, mark)
    return not (is_json(body) and ends_in_string(body))


def is_json(body: str) -> bool:
    """Whether the body begins like JSON."""
    return body.lstrip().startswith(("{", "["))
