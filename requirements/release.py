"""Build a release of the current commit: wheel, sdist, SBOM and provenance (`python requirements/release.py dist`).

The commit is built, not the work tree: the provenance is true, and the same commit yields the same bytes. No network is
used; the build's requirements are in `requirements/dev.lock`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

LOCKS = ("requirements/dev.lock", "requirements/run.lock", "requirements/sandbox.lock")
SBOM = "sbom.cdx.json"
PROVENANCE = "provenance.intoto.json"
# Types of in-toto and SLSA are URIs; these need not resolve.
BUILD_TYPE = "urn:responses-gateway:make-release:v1"
BUILDER = os.environ.get("RELEASE_BUILDER", "urn:responses-gateway:local-build")


def main(destination: str) -> int:
    """Write the four files into the folder `destination` and print their names.

    Raises CalledProcessError if a step fails.
    """
    root = Path(__file__).parents[1]
    commit = _run(["git", "rev-parse", "HEAD"], root).decode().strip()
    time = _run(["git", "show", "--no-patch", "--format=%ct", commit], root).decode().strip()
    if _run(["git", "status", "--porcelain"], root):
        print(f"Uncommitted changes are not part of this release: it is built from commit {commit[:12]}.")
    folder = Path(destination)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source, built = Path(scratch, "source"), Path(scratch, "built")
        _export(root, commit, source)
        _build(source, built, time)
        provenance = json.dumps(_provenance(source, built, commit), indent=2) + "\n"
        (built / PROVENANCE).write_text(provenance, encoding="utf-8")
        for file in sorted(built.iterdir()):
            (folder / file.name).write_bytes(file.read_bytes())
            print(folder / file.name)
    return 0


def _export(root: Path, commit: str, source: Path) -> None:
    archive = _run(["git", "archive", "--format=tar", commit], root)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(source, filter="data")


def _build(source: Path, built: Path, time: str) -> None:
    built.mkdir()
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(built)], source, SOURCE_DATE_EPOCH=time)
    sbom = [
        "--pyproject",
        "pyproject.toml",
        "--output-reproducible",
        "--of",
        "JSON",
        "--output-file",
        str(built / SBOM),
    ]
    _run([sys.executable, "-m", "cyclonedx_py", "requirements", "requirements/run.lock", *sbom], source)


def _provenance(source: Path, built: Path, commit: str) -> dict[str, object]:
    """An in-toto statement with an SLSA v1 predicate. It is not signed: that is up to the publisher of the release."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [_described(built, file.name) for file in sorted(built.iterdir())],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"commit": commit},
                "resolvedDependencies": [
                    {"name": "source", "digest": {"gitCommit": commit}},
                    *(_described(source, name) for name in LOCKS),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {name: version(name) for name in ("hatchling", "cyclonedx-bom")}},
            },
        },
    }


def _described(folder: Path, name: str) -> dict[str, object]:
    return {"name": name, "digest": {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}}


def _run(command: list[str], folder: Path, **environment: str) -> bytes:
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stderr.decode(errors="replace"))
    done.check_returncode()
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
