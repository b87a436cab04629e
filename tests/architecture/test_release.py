"""`make release` builds what is committed, says what is in it and where it came from, and does so the same way every
time.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.architecture.sources import ROOT

WHEEL = "responses_gateway-0.1.0-py3-none-any.whl"
SDIST = "responses_gateway-0.1.0.tar.gz"
SBOM = "sbom.cdx.json"
PROVENANCE = "provenance.intoto.json"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _release(tmp_path_factory.mktemp("dist"))


def test_the_same_commit_gives_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    again = _release(tmp_path / "again")

    assert sorted(_digests(dist)) == sorted([WHEEL, SDIST, SBOM, PROVENANCE])
    assert _digests(again) == _digests(dist)


def test_the_packages_hold_the_commit_and_nothing_else(dist: Path) -> None:
    committed = set(_git("ls-tree", "-r", "--name-only", "HEAD").splitlines())
    with tarfile.open(dist / SDIST) as files:
        source = {name.split("/", 1)[1] for name in files.getnames()}
    with zipfile.ZipFile(dist / WHEEL) as files:
        installed = set(files.namelist())

    assert source - committed == {"PKG-INFO"}
    assert {"app/cli.py", "app/db/migrations/env.py", "sandbox/__main__.py"} <= installed
    assert not {name for name in installed if not name.startswith(("app/", "sandbox/", "responses_gateway-"))}


def test_the_sbom_lists_every_locked_package_with_its_hashes(dist: Path) -> None:
    text = (dist / SBOM).read_text(encoding="utf-8")
    sbom = json.loads(text)

    assert JsonStrictValidator(SchemaVersion.from_version(sbom["specVersion"])).validate_str(text) is None
    assert sbom["metadata"]["component"]["name"] == "responses-gateway"
    assert {(part["name"], part["version"], _hashes(part)) for part in sbom["components"]} == _locked()


def test_the_provenance_names_files_source_and_locks(dist: Path) -> None:
    statement = json.loads((dist / PROVENANCE).read_text(encoding="utf-8"))
    commit = _git("rev-parse", "HEAD").strip()
    definition = statement["predicate"]["buildDefinition"]

    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {file["name"]: file["digest"]["sha256"] for file in statement["subject"]} == {
        name: digest for name, digest in _digests(dist).items() if name != PROVENANCE
    }
    assert definition["resolvedDependencies"] == [
        {"name": "source", "digest": {"gitCommit": commit}},
        *({"digest": {"sha256": _sha256(_lock(name))}, "name": name} for name in _locks()),
    ]
    assert statement["predicate"]["runDetails"]["builder"]["id"] == "urn:responses-gateway:local-build"


def _release(folder: Path) -> Path:
    script = ROOT / "requirements" / "release.py"
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S607 - as above


def _locks() -> list[str]:
    return [f"requirements/{name}.lock" for name in ("dev", "run", "sandbox")]


def _lock(name: str) -> bytes:
    return _git("show", f"HEAD:{name}").encode()


def _locked() -> set[tuple[str, str, frozenset[str]]]:
    entries = re.split(r"^(?=[a-z0-9])", _lock("requirements/run.lock").decode(), flags=re.MULTILINE)
    pinned = [(re.match(r"([\w.-]+)==([^\s\\]+)", entry), re.findall(r"sha256:(\w{64})", entry)) for entry in entries]
    return {(found[1], found[2], frozenset(hashes)) for found, hashes in pinned if found}


def _hashes(component: Any) -> frozenset[str]:
    return frozenset(entry["content"] for reference in component["externalReferences"] for entry in reference["hashes"])


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: _sha256(file.read_bytes()) for file in folder.iterdir()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
