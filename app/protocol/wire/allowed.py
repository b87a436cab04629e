"""Lists a field's allowed values, from the type that refused another value: for error messages, so never run for valid
requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

_PART = re.compile(r"[^.\[\]]+|\[[^\]]*\]")


def allowed_values(kind: object, path: str) -> Sequence[str]:
    """The values of the field at `path`, such as `reasoning.effort` or `include[0]`.

    Empty if they are not an enumeration.
    """
    types = [*_alternatives(msgspec.inspect.type_info(kind))]
    for part in _PART.findall(path):
        types = [alternative for each in types for below in _below(each, part) for alternative in _alternatives(below)]
    return [str(value) for each in types if isinstance(each, msgspec.inspect.LiteralType) for value in each.values]


def _alternatives(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    yield from kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)


def _below(kind: msgspec.inspect.Type, part: str) -> Iterator[msgspec.inspect.Type]:
    match kind:
        case msgspec.inspect.StructType():
            yield from (field.type for field in kind.fields if field.encode_name == part)
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            yield kind.item_type
        case msgspec.inspect.DictType():
            yield kind.value_type
        case _:
            return
