"""Plots become files:

`plt.show()`, and figures still open when the code ends, are saved as PNG. Chinese text has a font.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from sandbox.inside import packages

_PYPLOT = "matplotlib.pyplot"
_CHINESE = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
)
"""Fonts of the machine, used if the package with our font is not installed."""
_QUIET = ("matplotlib.font_manager", "matplotlib.category", "matplotlib.axes", "fontTools")
_FIRST_CHINESE = "\u2e80"
_FILES = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


def prepare_matplotlib(matplotlib: Any) -> None:
    """There are no windows, whatever backend is requested, and nobody who would read messages about fonts."""
    import logging  # noqa: PLC0415 - matplotlib imports it anyway

    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    use = matplotlib.use

    def use_if_it_writes_files(backend: str, **options: Any) -> None:
        if str(backend).lower() in _FILES:
            use(backend, **options)

    matplotlib.use = use_if_it_writes_files


def prepare_pyplot(pyplot: Any) -> None:
    """`plt.show()` saves figures, and so does `figure.show()`."""

    def show(*_arguments: object, **_options: object) -> None:  # a function: pyplot gives it a signature
        save(os.getcwd())  # noqa: PTH109 - pathlib takes 10 ms to import

    def show_one(figure: Any, *_arguments: object, **_options: object) -> None:
        save_one(figure, os.getcwd())  # noqa: PTH109 - as above

    switch = pyplot.switch_backend

    def switch_if_it_writes_files(newbackend: str) -> None:
        if str(newbackend).lower() in _FILES:
            switch(newbackend)

    pyplot.show, pyplot.switch_backend = show, switch_if_it_writes_files
    pyplot.Figure.show = show_one
    _offer_chinese()


def prepare_formulas(mathtext: Any) -> None:
    """Chinese in text with a formula is rendered by another engine, which has no fallback fonts."""
    path = packages.font()
    if path is None:
        return
    find = mathtext.UnicodeFonts._get_glyph  # noqa: SLF001 - there is no other way

    def with_chinese(fonts: Any, name: str, kind: str, symbol: str) -> tuple[Any, int, bool]:
        if len(symbol) == 1 and symbol >= _FIRST_CHINESE:
            font = mathtext.get_font(path)
            if font.get_char_index(ord(symbol)):
                return font, ord(symbol), False
        return find(fonts, name, kind, symbol)

    mathtext.UnicodeFonts._get_glyph = with_chinese  # noqa: SLF001 - as above


def save(directory: str) -> None:
    """Save the open figures, and close them."""
    pyplot: Any = sys.modules.get(_PYPLOT)
    for number in pyplot.get_fignums() if hasattr(pyplot, "get_fignums") else ():
        save_one(pyplot.figure(number), directory)


def save_one(figure: Any, directory: str) -> None:
    """Save it, and close it; anything but a figure is ignored."""
    pyplot: Any = sys.modules.get(_PYPLOT)
    if pyplot is None or not isinstance(figure, pyplot.Figure):
        return
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", "Glyph ")
            figure.savefig(unused(directory, "plot"), bbox_inches="tight")
    except Exception as error:  # noqa: BLE001 - for example an invalid formula: an error of the code, found only when drawing
        print(f"[A figure could not be drawn: {type(error).__name__}: {str(error).strip()}]")  # noqa: T201 - for the reader of the output
    else:
        if any(str(warning.message).startswith("Glyph ") for warning in caught):
            print("[No font here has some of the characters of the figure; they are drawn as boxes.]")  # noqa: T201 - as above
    finally:
        pyplot.close(figure)


def unused(directory: str, kind: str) -> str:
    """An unused path: `plot-1.png`."""
    number = 1
    while os.path.lexists(f"{directory}/{kind}-{number}.png"):
        number += 1
    return f"{directory}/{kind}-{number}.png"


def _offer_chinese() -> None:
    """Add a font with Chinese after all requested fonts, however the code sets fonts.

    It also replaces missing font files.
    """
    from matplotlib.font_manager import fontManager  # noqa: PLC0415  # pyright: ignore - it is being imported anyway, and is untyped

    manager: Any = fontManager
    path = packages.font()
    if path is not None and os.path.exists(path):  # noqa: PTH110 - as above
        manager.addfont(path)
    else:
        path = next((font.fname for name in _CHINESE for font in manager.ttflist if font.name == name), None)
    if path is None:
        return
    find_all, find_one = manager._find_fonts_by_props, manager.findfont  # noqa: SLF001 - there is no other way to add to every list

    def with_chinese(prop: Any, *arguments: Any, **options: Any) -> list[Any]:
        found = find_all(prop, *arguments, **options)
        return found if path in found else [*found, path]

    def existing(prop: Any, *arguments: Any, **options: Any) -> Any:
        file = prop.get_file() if hasattr(prop, "get_file") else None
        return path if file is not None and not os.path.exists(file) else find_one(prop, *arguments, **options)  # noqa: PTH110 - as above

    manager._find_fonts_by_props, manager.findfont = with_chinese, existing  # noqa: SLF001 - as above
