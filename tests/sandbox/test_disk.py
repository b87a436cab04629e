"""Disk: what code leaves is bounded and counted, and all of it goes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from app.tools.sandbox.client import SandboxRefused, SandboxUnavailable
from sandbox import trees
from sandbox.limits import MEBIBYTE
from sandbox.stage import Stage
from tests.sandbox.conftest import Services
from tests.sandbox.running import ROOT, Box, can_have_rights, end, running_sandbox

FILL = {
    "reserves it": "for i in range(64): os.posix_fallocate(os.open(f'.hidden{i}', os.O_CREAT | os.O_WRONLY), 0, 16 << "
    "20)",
    "reserves it beyond the end": (
        "import ctypes\nfor i in range(64):\n"
        "    f = os.open(f'.k{i}', os.O_CREAT | os.O_WRONLY)\n"
        "    print(ctypes.CDLL(None).fallocate(f, 1, ctypes.c_long(0), ctypes.c_long(1 << 30)))"
    ),
    "writes many files": "for i in range(640): open(f'f{i}', 'wb').write(bytes(1 << 20))",
    "writes in /tmp": "import tempfile\nfor i in range(640): open(f'{tempfile.gettempdir()}/f{i}', 'wb').write(bytes(1 "
    "<< 20))",
    "hides it in a directory nobody may read": (
        "os.mkdir('q', 0o300)\nos.mkdir('q/r', 0o300)\nfor i in range(640): open(f'q/r/{i}', 'wb').write(bytes(1 << "
        "20))"
    ),
    "holds files without a name": (
        "kept = []\nfor i in range(250):\n    kept.append(open('f', 'wb'))\n    os.unlink('f')\n"
        "    for _ in range(4): kept[-1].write(bytes(1 << 20)); kept[-1].flush()"
    ),
    "maps files without a name": (
        "import mmap\nkept = []\nfor i in range(128):\n    with open('f', 'w+b') as f:\n        f.truncate(4 << 20)\n"
        "        kept.append(mmap.mmap(f.fileno(), 4 << 20))\n    os.unlink('f')\n    kept[-1].write(bytes(4 << 20))"
    ),
    "makes files without a name": (
        "kept = []\nfor i in range(200):\n    kept.append(os.open('.', os.O_TMPFILE | os.O_RDWR))\n    "
        "os.write(kept[-1], bytes(4 << 20))"
    ),
    "touches sparse files": (
        "for i in range(40):\n    with open(f's{i}', 'w+b') as f:\n        f.truncate(30 << 20)\n"
        "        for at in range(0, 30 << 20, 4096): os.pwrite(f.fileno(), b'x', at)"
    ),
    "makes many directories": "for i in range(24000): os.mkdir(f'd{i}')",
    "nests without end": "for i in range(2000): os.mkdir('d'); os.chdir('d')\nprint(i)",
}
PLACES = ["bubblewrap", "landlock", "landlock-contained", "landlock-rights"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", FILL)
async def test_a_session_holds_what_it_may_and_goes_without_a_trace(services: Services, place: str, how: str) -> None:
    stage = services(place).stage()
    before = {*stage.iterdir()}
    box = await Box(services(place)).open()

    result = await box.run(f"import os\ntry:\n    exec({FILL[how]!r})\nexcept OSError as error:\n    print(error)")

    assert result.logs  # it was told
    (session,) = {*stage.iterdir()} - before
    assert _held(session) < 33 * MEBIBYTE
    await box.close()
    assert {*stage.iterdir()} == before


async def test_what_was_there_before_an_excess_stays(services: Services) -> None:
    box = await Box(services("landlock-contained")).open()
    await box.sandbox.put(box.owner, box.id, "given.csv", b"1,2")
    await box.run(
        "import os\nos.makedirs('a/b'); open('a/b/early.txt', 'w').write('early'); open('.cache', 'w').write('c')"
    )

    result = await box.run(
        "open('late.txt', 'w').write('late')\nfor i in range(640): open(f'a/b/.{i}', 'wb').write(bytes(1 << 20))"
    )

    assert "It wrote more files than there is room for; what it wrote was removed." in result.logs
    assert result.files == ()
    left = await box.run("sorted(os.path.join(d, n) for d, _, names in __import__('os').walk('.') for n in names)")
    assert "NameError" in left.logs  # the variables are gone
    left = await box.run("import os; sorted(os.path.join(d, n) for d, _, names in os.walk('.') for n in names)")
    assert left.logs == "['./.cache', './a/b/early.txt', './given.csv']\n"
    await box.close()


async def test_links_to_one_file_count_once(services: Services) -> None:
    box = await Box(services("landlock-contained")).open()

    result = await box.run(
        "import os\nopen('f', 'wb').write(bytes(8 << 20))\nfor i in range(20): os.link('f', "
        "f'l{i}')\nlen(os.listdir('.'))"
    )

    assert result.logs == "21\n"
    await box.close()


async def test_an_upload_counts_what_is_hidden(services: Services) -> None:
    box = await Box(services("landlock-contained")).open()
    await box.run("import os, tempfile\nopen(f'{tempfile.gettempdir()}/.t', 'wb').write(bytes(20 << 20))")

    with pytest.raises((SandboxRefused, SandboxUnavailable)):
        await box.sandbox.put(box.owner, box.id, "big.bin", bytes(20 * MEBIBYTE))

    await box.close()


def test_trees_of_any_depth_and_mode_are_removed() -> None:
    root = Path(tempfile.mkdtemp(prefix="sandbox-test-"))
    odd = root / "odd"
    odd.mkdir()
    (odd / "file").write_text("x")
    (odd / "link").symlink_to("/etc")
    odd.chmod(0)
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(1000):
        os.mkdir("d" * 200, dir_fd=here)
        inner = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)

    with pytest.raises(trees.Unbounded):
        trees.taken(root)
    trees.remove(root)

    assert not root.exists()


def test_an_ordinary_user_removes_what_it_may_not_read() -> None:
    done = subprocess.run([sys.executable, "-c", ORDINARY], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout == "True 1052672 True False\n", done.stderr


ORDINARY = """
import os, tempfile
from pathlib import Path
from sandbox import trees

root = Path(tempfile.mkdtemp(prefix="sandbox-test-"))
root.chmod(0o777)
if os.geteuid() == 0:
    os.chown(root, 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
os.mkdir(root / "q")
os.mkdir(root / "q/r")
(root / "q/r/file").write_bytes(bytes(1 << 20))
(root / "q/r").chmod(0o300)
(root / "q").chmod(0)
try:
    os.listdir(root / "q")
except PermissionError:
    print(True, end=" ")
os.umask(0o777)
print(trees.taken(root) - sum(p.stat().st_blocks * 512 for p in root.rglob("*") if p.is_dir()) + 4096, end=" ")
print("q/r/file" in trees.inventory(root), end=" ")
(root / "q").chmod(0)
trees.clear(root)
print(any(root.iterdir()))
os.rmdir(root) if os.access(root.parent, os.W_OK) else None
"""


TWO_STAGES = """
from sandbox.stage import Stage
first = Stage()
second = Stage()
print(first.root.exists(), second.root.exists())
first.close()
second.close()
"""


def _two_more_stages(directory: Path) -> str:
    environment = {**os.environ, "TMPDIR": str(directory)}
    return subprocess.run(
        [sys.executable, "-c", TWO_STAGES], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


async def test_a_killed_service_leaves_nothing_to_the_next() -> None:
    with running_sandbox("landlock", how="contained") as killed:
        box = await Box(killed).open()
        await box.run("open('left.bin', 'wb').write(bytes(1 << 20))")
        stage = killed.stage()
        place = killed.socket.parent / stage.name
        killed.process.kill()
        killed.process.wait()
        assert [*place.rglob("left.bin")]

        assert _two_more_stages(place.parent) == "True True\n"  # one that is in use is not taken for abandoned
        assert not [*place.parent.glob("sandbox-stage-*")]


@pytest.fixture
def places() -> Generator[Path]:
    """Two file systems of 32 MiB, as compose mounts them for the service."""
    directory = Path(tempfile.mkdtemp(prefix="sandbox-test-"))
    directory.chmod(0o711)
    mounted: list[Path] = []
    try:
        for number in range(2):
            place = directory / str(number)
            place.mkdir()
            done = subprocess.run(
                ["/bin/mount", "-t", "tmpfs", "-o", "size=32m,nr_inodes=5000,nosuid,nodev", "none", place],
                capture_output=True,
                check=False,
            )
            if done.returncode:
                pytest.skip("file systems cannot be mounted here")
            mounted.append(place)
        yield directory
    finally:
        for place in mounted:
            subprocess.run(["/bin/umount", "-l", place], check=True)
        trees.remove(directory)


async def test_mounted_places_bound_the_disk_and_are_used_again(places: Path) -> None:
    if (reason := can_have_rights()) is not None:
        pytest.skip(reason)
    (places / "0/of-an-earlier-service").write_text("x")
    with running_sandbox("landlock", how="rights", more={"volumes": str(places)}) as service:
        first, second = await Box(service, "a").open(), await Box(service, "b").open()
        result = await first.run("kept = [open(f'f{i}', 'wb').write(bytes(1 << 20)) for i in range(64)]")

        assert "No space left on device" in result.logs
        assert not result.state_lost
        assert (await second.run("open('f', 'wb').write(bytes(30 << 20))")).logs == f"{30 << 20}\n"
        await first.close()
        # two places: somebody has made room
        third, fourth = await Box(service, "c").open(), await Box(service, "d").open()
        assert (await third.run("import os; os.listdir('.')")).logs == "[]\n"
        assert (await fourth.run("open('f', 'wb').write(bytes(30 << 20))")).logs == f"{30 << 20}\n"
        end(service.process)
    assert not _left(places)


def test_a_place_where_no_volume_could_be_made_is_used_again(places: Path) -> None:
    stage = Stage(places)
    try:
        for place in places.iterdir():
            with pytest.raises(OSError, match="No space left"):
                _fill(place)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                stage.make_volume(32 << 20, own_user=True)
        for place in places.iterdir():
            for number in range(100):
                (place / str(number)).unlink()
        for volume in [stage.make_volume(32 << 20, own_user=True) for _ in range(2)]:
            stage.drop_volume(volume)
    finally:
        stage.close()


def _fill(place: Path) -> None:
    for number in range(10_000):  # more files than it may have
        (place / str(number)).touch()


def _held(session: Path) -> int:
    """Bytes of the disk."""
    counted = subprocess.run(
        ["/usr/bin/du", "-s", "--block-size=1", session], capture_output=True, text=True, check=False
    )
    return int(counted.stdout.split()[0])


def _left(places: Path) -> list[Path]:
    return [*places.glob("*/*")]
