"""The packages that code can import: the product's own list, the same on every machine.

Anything else in the directory where they are installed, such as the gateway's own libraries, is hidden from the code.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType

SMALL = {
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "matplotlib": "matplotlib",
    "Pillow": "PIL",
    "openpyxl": "openpyxl",
}
"""By name, the module to import: those that every installation of the gateway has."""

PACKAGES = {
    **SMALL,
    "scikit-learn": "sklearn",
    "seaborn": "seaborn",
    "sympy": "sympy",
    "statsmodels": "statsmodels",
    "xlsxwriter": "xlsxwriter",
    "xlrd": "xlrd",
    "python-docx": "docx",
    "python-pptx": "pptx",
    "pypdf": "pypdf",
    "reportlab": "reportlab",
    "beautifulsoup4": "bs4",
    "lxml": "lxml",
    "tabulate": "tabulate",
    "jieba": "jieba",
    "networkx": "networkx",
}
"""The whole list; the dependency group `sandbox` in pyproject.toml is the same."""

FONT_PACKAGE, FONT_FILE = "paperang_p2_fonts_cjk", "fonts/wqy-microhei.ttc"
"""WenQuanYi Micro Hei, byte-identical to Debian's fonts-wqy-microhei."""

_NEEDED = frozenset(
    {
        *(
            "charset_normalizer",
            "cloudpickle",
            "contourpy",
            "cycler",
            "dateutil",
            "et_xmlfile",
            "fontTools",
            "formulaic",
            "interface_meta",
        ),
        *(
            "jinja2",
            "joblib",
            "kiwisolver",
            "markupsafe",
            "mpl_toolkits",
            "mpmath",
            "narwhals",
            "packaging",
            "patsy",
            "pylab",
            "pyparsing",
        ),
        *("soupsieve", "threadpoolctl", "typing_extensions", "tzdata", "wrapt"),
    }
)
"""Their dependencies."""

MODULES = frozenset(PACKAGES.values()) | _NEEDED | {FONT_PACKAGE}


class OnlyListed:
    """The first finder: in the directories of packages only listed ones are found."""

    def __init__(self, directories: Collection[str]) -> None:
        self._directories = frozenset(directories)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None leaves it to the next finders. Raises ModuleNotFoundError."""
        if path is None and self._hides(fullname):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None

    def _hides(self, name: str) -> bool:
        if name in MODULES or name in sys.stdlib_module_names:
            return False
        found = PathFinder.find_spec(name)
        places = [found.origin or "", *(found.submodule_search_locations or ())] if found is not None else []
        return any(place.startswith(f"{directory}/") for place in places for directory in self._directories)


def is_missing(name: str) -> bool:
    """Whether no such module can be imported, whatever it contains."""
    try:
        return find_spec(name) is None
    except (ImportError, ValueError):
        return True


def installed() -> list[str]:
    """The listed packages that are installed, in the list's order."""
    return [name for name, module in PACKAGES.items() if find_spec(module) is not None]


def sentence() -> str:
    """For the model."""
    return (
        f"No package can be installed: there is no network. Installed are the standard library, "
        f"{', '.join(installed())}."
    )


def font() -> str | None:
    """The path of the Chinese font."""
    spec = PathFinder.find_spec(FONT_PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    return f"{places[0]}/{FONT_FILE}" if places else None
