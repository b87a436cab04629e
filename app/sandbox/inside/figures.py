"""Plots become files: `plt.show()`, and figures still open when the code ends, are saved as PNG."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_PYPLOT = "matplotlib.pyplot"
_CHINESE = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback")
_CHINESE_ELSEWHERE = ("SimHei", "Microsoft YaHei", "SimSun", "PingFang SC", "Heiti SC", "STHeiti", "Arial Unicode MS")
"""What code written for other systems asks for."""


class _Finder(importlib.abc.MetaPathFinder):
    """Sees pyplot being imported, and prepares it right after."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _PYPLOT:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._directory)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any, directory: str) -> None:
        self._loader = loader
        self._directory = directory

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        pyplot: Any = module
        directory = self._directory

        def show(*_arguments: object, **_options: object) -> None:  # a function: pyplot gives it a signature
            save(directory)

        pyplot.show = show
        _offer_chinese(pyplot.rcParams)


def watch(directory: str) -> None:
    """From now on figures are saved in `directory`."""
    sys.meta_path.insert(0, _Finder(directory))


def save(directory: str) -> None:
    """Save the open figures, and close them."""
    pyplot: Any = sys.modules.get(_PYPLOT)
    if pyplot is None:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")  # no font has it: one line for every character
        for number in pyplot.get_fignums():
            pyplot.figure(number).savefig(_unused(directory), bbox_inches="tight")
            pyplot.close(number)


def _unused(directory: str) -> str:
    number = 1
    while os.path.lexists(f"{directory}/plot-{number}.png"):
        number += 1
    return f"{directory}/plot-{number}.png"


def _offer_chinese(parameters: Any) -> None:
    """A Chinese font, if there is one, draws what the usual fonts lack, and stands in for those of other systems."""
    from dataclasses import replace  # noqa: PLC0415 - only a sandbox that draws pays for it

    from matplotlib.font_manager import fontManager  # noqa: PLC0415  # pyright: ignore - it is being imported anyway, and is untyped

    fonts: list[Any] = fontManager.ttflist  # pyright: ignore
    found = next((font for name in _CHINESE for font in fonts if font.name == name), None)
    if found is None:
        return
    # Families are asked one after the other; of the list of sans-serifs only the first that there is.
    parameters["font.family"] = [*parameters["font.family"], found.name]
    known = {font.name for font in fonts}
    fonts.extend(replace(found, name=name) for name in _CHINESE_ELSEWHERE if name not in known)
