"""Sources of settings: plain lists as well as JSON in the environment, secrets in files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

PREFIX = "GATEWAY_"
_WITH_PASSWORD = frozenset({"database_url"})
"""Text rather than a secret, but may contain a password."""
_SECRET_BYTES = 64 * 1024


class Environment(EnvSettingsSource):
    """`GATEWAY_…`.

    What is not JSON stays text, which `read_text` parses, or reports together with all other mistakes.
    """

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """The decoded JSON, or the text itself."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def secrets_from_files(settings: type[BaseSettings]) -> dict[str, Any]:
    """The contents of the files that `GATEWAY_…_FILE` names, by setting. Raises ValueError."""
    named = {key: os.environ.get(f"{variable}_FILE") for variable, key in secret_variables(settings).items()}
    return {key: read_secret(Path(path)) for key, path in named.items() if path}


def secret_variables(settings: type[BaseSettings]) -> Mapping[str, str]:
    """Variables that contain secrets, each with the key of its setting."""
    secrets = {
        name: field
        for name, field in settings.model_fields.items()
        if _is_secret(field.annotation) or name in _WITH_PASSWORD
    }
    aliases = {
        name: field.validation_alias for name, field in secrets.items() if isinstance(field.validation_alias, str)
    }
    return {aliases.get(name, PREFIX + name.upper()): aliases.get(name, name) for name in secrets}


def mistaken_files(settings: type[BaseSettings]) -> list[str]:
    """Mistakes in `…_FILE` variables, one sentence each."""
    mistakes: list[str] = []
    for variable in secret_variables(settings):
        path = os.environ.get(f"{variable}_FILE")
        if not path:
            continue
        if os.environ.get(variable):
            mistakes.append(f"{variable}_FILE: {variable} is also set; set only one of them")
        try:
            read_secret(Path(path))
        except ValueError as error:
            mistakes.append(f"{variable}_FILE: {error}")
    return mistakes


def read_secret(path: Path) -> str:
    """The file's only line, without its line break. Raises ValueError."""
    try:
        with path.open("rb") as file:
            content = file.read(_SECRET_BYTES + 1)
        secret = content.decode().rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text") from error
    if not secret or len(content) > _SECRET_BYTES or not secret.isprintable():
        raise ValueError(f"{path} must contain exactly one line, the secret")
    return secret


def read_text(annotation: Any, given: object) -> object:
    """Parses a list or table from text; returns anything else unchanged.

    Raises ValueError, with the allowed form, for other text.
    """
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is tuple and _is_text(members[0]):
        return _words(given)
    if origin is dict and _is_text(members[1]):
        return _pairs(given)
    if isinstance(given, str) and (origin in (tuple, dict) or _is_section(annotation)):
        kind = "list of objects" if origin is tuple else "object"
        raise ValueError(f"cannot be read: expected a JSON {kind}, or a section of the configuration file")
    return given


def _words(given: object) -> object:
    if isinstance(given, str):
        return [word.strip() for word in given.split(",") if word.strip()]
    if given is None or isinstance(given, list | tuple):
        return cast("object", given)
    raise ValueError('expected comma-separated values (`one, two`) or a JSON list (`["one", "two"]`)')


def _pairs(given: object) -> object:
    if not isinstance(given, str):
        return given
    pairs = [pair.partition("=") for pair in given.split(",") if pair.strip()]
    if not all(equals and name.strip() and value.strip() for name, equals, value in pairs):
        raise ValueError(
            'expected comma-separated pairs (`name=value, other=value`) or a JSON object (`{"name": "value"}`)'
        )
    return {name.strip(): value.strip() for name, _, value in pairs}


def _is_text(annotation: Any) -> bool:
    return annotation is str or get_origin(annotation) is Literal


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or SecretStr in get_args(annotation)
