"""Values as a notebook displays them, limited to text and files.

And a stand-in for the parts of `IPython` that code uses for that.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from sandbox.inside import figures

_PNG = b"\x89PNG\r\n\x1a\n"


class Rich:
    """`HTML`, `Markdown`, `Image` and the like: displayed as their text or saved as a file."""

    def __init__(
        self, data: Any = None, url: str | None = None, filename: str | None = None, **_options: object
    ) -> None:
        self.data, self.url, self.filename = data, url, filename

    def __repr__(self) -> str:
        """Its printed form."""
        if isinstance(self.data, bytes):
            return f"<{type(self).__name__} of {len(self.data)} bytes>"
        return str(self.data if self.data is not None else self.filename or self.url)

    def _repr_png_(self) -> bytes | None:
        return self.data if isinstance(self.data, bytes) and self.data.startswith(_PNG) else None


_KINDS = (
    "HTML", "Markdown", "Image", "SVG", "JSON", "Latex", "Math", "Code", "Pretty", "Audio", "Video", "IFrame",
    "FileLink", "FileLinks", "Javascript", "YouTubeVideo", "GeoJSON", "DisplayObject", "TextDisplayObject",
)  # fmt: skip
_NOTHING = ("clear_output", "set_matplotlib_formats", "set_matplotlib_close", "publish_display_data", "update_display")


def show_last(value: object) -> None:
    """`sys.displayhook` for the value of a last expression."""
    if value is None:
        return
    _show(value)
    builtins.__dict__["_"] = value


def display(*values: object, **_options: object) -> None:
    """Display values, one after the other."""
    for value in values:
        _show(value)
        figures.save_one(value, os.getcwd())  # noqa: PTH109 - pathlib takes 10 ms to import


def prepare_pandas(pandas: Any) -> None:
    """The output is read by a model: tables may be wide."""
    pandas.set_option("display.width", 200, "display.max_columns", 50)


def _show(value: object) -> None:
    kind = type(value)
    if kind.__name__ == "Styler" and kind.__module__.startswith("pandas."):
        value = getattr(value, "data", value)
    print(repr(value))  # noqa: T201 - this is the output
    picture = getattr(kind, "_repr_png_", None)
    if picture is not None and (isinstance(value, Rich) or kind.__module__.startswith("PIL.")):
        _save(picture(value))


def _save(png: object) -> None:
    if isinstance(png, bytes):
        with open(figures.unused(os.getcwd(), "image"), "xb") as file:  # noqa: PTH109, PTH123 - as above
            file.write(png)


class Finder:
    """The last finder: finds `IPython` if it is not installed."""

    def __init__(self, shell: object) -> None:
        self._shell = shell

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a stand-in for a module of IPython; None for every other module."""
        if fullname not in _MODULES:
            return None
        return ModuleSpec(fullname, _StandIn(self._shell), is_package=True)  # pyright: ignore[reportArgumentType] - a loader by its methods


_MODULES = (
    "IPython",
    "IPython.display",
    "IPython.core",
    "IPython.core.display",
    "IPython.core.interactiveshell",
    "IPython.core.getipython",
    "nest_asyncio",
)


class _StandIn:
    def __init__(self, shell: object) -> None:
        self._shell = shell

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self._names())

    def _names(self) -> Mapping[str, object]:
        nothing = dict.fromkeys(_NOTHING, _nothing)
        kinds = {name: type(name, (Rich,), {}) for name in _KINDS}
        shell = {
            "get_ipython": lambda: self._shell,
            "InteractiveShell": type(self._shell),
            "version_info": (9, 0, 0),
            "__version__": "9.0.0",
        }
        return {**nothing, **kinds, **shell, "display": display, "apply": _nothing}


def _nothing(*_arguments: object, **_options: object) -> None:
    """For functions that only affect how a browser displays something."""


def install(shell: object) -> None:
    """Call before any code runs."""
    sys.displayhook = show_last
    sys.meta_path.append(Finder(shell))  # pyright: ignore[reportArgumentType] - a finder by its method
