"""Generates the page `docs/configuration.md` from the settings: `python -m app.configuration_reference`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings

_INTRODUCTION = """\
# Configuration

<!-- Made from app/settings.py by `make docs`; change it there. -->

Settings come from environment variables or from a TOML file; the environment takes precedence. The file is
`gateway.toml` in the working directory, or the one that `GATEWAY_CONFIG` names. An unknown name is an error.

In environment variables, lists are comma-separated (`GATEWAY_FETCH_ALLOW=wiki.corp, 10.1.0.0/16`) or JSON
(`["wiki.corp"]`), tables of strings are pairs (`GATEWAY_ALIASES=fast=qwen3.5-flash, good=qwen3.7-plus`) or JSON, and
all other tables are JSON.

A secret can be read from a file, as orchestrators mount them: `GATEWAY_ADMIN_KEY_FILE=/run/secrets/admin_key` instead
of `GATEWAY_ADMIN_KEY`. This works for every variable of type *secret*, for `GATEWAY_DATABASE_URL` and for
`DASHSCOPE_API_KEY`. The file holds one line; the line break at its end is removed. Setting both is an error.
"""

_TYPE_NAMES: Mapping[object, str] = {
    bool: "true or false",
    float: "number",
    int: "integer",
    Path: "path",
    SecretStr: "secret",
    str: "text",
}


def reference() -> str:
    """The whole page in Markdown: a table of the settings, then one for each section."""
    blocks = [_INTRODUCTION, _table(Settings, "GATEWAY_")]
    for heading, section, variables in _sections(Settings, "", "GATEWAY_"):
        blocks += [f"\n## `{heading}`\n", _table(section, variables)]
    return "\n".join(blocks) + "\n"


def _sections(
    model: type[BaseModel], parent: str, variables: str | None
) -> Iterator[tuple[str, type[BaseModel], str | None]]:
    """The sections below `model`, depth first:

    TOML heading, model, and the prefix of their variables (None: they have none).
    """
    for name, field in model.model_fields.items():
        section = _section_in(field.annotation)
        if section is None:
            continue
        container: object = get_origin(field.annotation)
        headings: dict[object, str] = {
            None: f"[{parent}{name}]",
            tuple: f"[[{parent}{name}]]",
            dict: f"[{parent}{name}.NAME]",
        }
        heading = headings[container]
        inner = f"{variables}{name.upper()}__" if variables and container is None else None
        yield heading, section, inner
        yield from _sections(section, f"{parent}{name}.", inner)


def _section_in(annotation: object) -> type[BaseModel] | None:
    """The model in a field: directly, in a list, or by name in a table."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _table(model: type[BaseModel], variables: str | None) -> str:
    columns = (*(["Environment"] if variables else []), "Key", "Type", "Default", "Description")
    rows = [_row(name, field, variables) for name, field in model.model_fields.items()]
    return "\n".join(_line(cells) for cells in (columns, ["---"] * len(columns), *rows))


def _row(name: str, field: FieldInfo, variables: str | None) -> Sequence[str]:
    variable = field.validation_alias or f"{variables}{name.upper()}"
    cells = (f"`{name}`", _type(field.annotation), _default(field), field.description or "")
    return (f"`{variable}`", *cells) if variables else cells


def _line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _type(annotation: Any) -> str:
    if _section_in(annotation):
        return "section"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in arguments if part is not NoneType)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    return _TYPE_NAMES[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "" if value is None or isinstance(value, BaseModel) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
