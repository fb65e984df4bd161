"""Temporary files: nothing is left of a writer that was killed, and living writers are left alone."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from edgeq.conversion.conversion import convert
from edgeq.system.output import OutputFile, remove_abandoned, temporary_folder, write_file

WRITER = """
import os, sys
from edgeq.system.output import OutputFile
if sys.argv[2] == "named":
    del os.O_TMPFILE
with OutputFile(sys.argv[1], 1 << 20) as file:
    file.put(bytes([int(sys.argv[3])]) * (1 << 19), 0)
    print("half", flush=True)
    sys.stdin.readline()
    file.put(bytes([int(sys.argv[3])]) * (1 << 19), 1 << 19)
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and locks of POSIX")


def nameless(folder: Path) -> bool:
    try:
        os.close(os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o666))
    except (OSError, AttributeError):
        return False
    return os.path.isdir("/proc/self/fd")


@pytest.fixture(params=["nameless", "named"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not nameless(tmp_path):
        pytest.skip("this file system has no files without names")
    return request.param


def writer(target: Path, kind: str, value: int = 1) -> subprocess.Popen[str]:
    """A process that has written a half, and goes on when it is told to."""
    command = [sys.executable, "-c", WRITER, str(target), kind, str(value)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_writer_that_is_killed(tmp_path: Path, kind: str):
    target = tmp_path / "m[1].eqf"
    target.write_bytes(b"old")
    process = writer(target, kind)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = [name for name in names(tmp_path) if name != target.name]
    assert len(left) == (kind == "named") and target.read_bytes() == b"old"
    other = tmp_path / ".m[1].eqf.notours.tmp"
    other.touch()
    write_file(target, b"new")
    assert names(tmp_path) == [other.name, target.name] and target.read_bytes() == b"new"


def test_several_write_one_file(tmp_path: Path, kind: str):
    target = tmp_path / "m.eqf"
    processes = [writer(target, kind, value) for value in (1, 2, 3)]
    remove_abandoned(tmp_path)
    assert len(names(tmp_path)) == (3 if kind == "named" else 0)
    for value, process in enumerate(processes, 1):
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
        assert target.read_bytes() == bytes([value]) * (1 << 20)
    assert names(tmp_path) == ["m.eqf"]


def test_a_folder_of_our_own_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also of files that nobody writes again; a folder that is not there has none."""
    for name in (".a.eqf.01234567.tmp", ".b.eqf.89abcdef.tmp"):
        (tmp_path / name).touch()
    (tmp_path / "kept.eqf").touch()
    remove_abandoned(tmp_path)
    assert names(tmp_path) == ["kept.eqf"]
    remove_abandoned(tmp_path / "none")


FOLDER = """
import sys
from pathlib import Path
from edgeq.system.output import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "model").touch()
    print(folder, flush=True)
    sys.stdin.readline()
"""


def test_a_folder_whose_maker_is_killed(tmp_path: Path):
    """It is left alone while its maker lives, and goes with the next that writes the file, or sweeps."""
    target = tmp_path / "m.eqf"
    for clean in (lambda: write_file(target, b"new"), lambda: remove_abandoned(tmp_path)):
        command = [sys.executable, "-c", FOLDER, str(target)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            folder = Path(process.stdout.readline().strip())
            clean()
            assert folder.parent == tmp_path and (folder / "deep" / "model").exists()
            process.kill()
        assert (folder / "deep" / "model").exists()
        clean()
        assert names(tmp_path) == ["m.eqf"]


def test_a_folder_goes_with_what_is_left_in_it(tmp_path: Path):
    with temporary_folder(tmp_path / "m.eqf") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "model").touch()
        (folder / "other").touch()
        remove_abandoned(tmp_path)
        assert names(folder) == ["deep", "lock", "other"]
    assert names(tmp_path) == []


def test_taken_for_an_abandoned_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process may find the file in the moment before it is locked."""
    import edgeq.system.output as output

    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    lock, swept = output._lock, []

    def sweep_first(fd: int) -> None:
        if not swept:
            remove_abandoned(tmp_path)
            swept.append(names(tmp_path))
        lock(fd)

    monkeypatch.setattr(output, "_lock", sweep_first)
    write_file(tmp_path / "m.eqf", b"whole")
    assert swept == [[]] and names(tmp_path) == ["m.eqf"] and (tmp_path / "m.eqf").read_bytes() == b"whole"


def test_where_links_are_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file is copied then, and the copy is no abandoned one while it grows."""

    def link(*names: object, **how: object) -> None:
        raise PermissionError(13, "Permission denied")

    copy, swept = shutil.copyfileobj, []

    def sweep_first(source: BinaryIO, target: BinaryIO) -> None:
        before = names(tmp_path)
        remove_abandoned(tmp_path)
        swept.append(names(tmp_path) == before)
        copy(source, target)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(shutil, "copyfileobj", sweep_first)
    write_file(tmp_path / "m.eqf", b"whole")
    assert names(tmp_path) == ["m.eqf"] and (tmp_path / "m.eqf").read_bytes() == b"whole"
    assert swept == ([True] if nameless(tmp_path) else [])


def test_the_file_is_written_once(tmp_path: Path, kind: str):
    """What gets the name is the file that was written, not a copy of it."""
    with OutputFile(tmp_path / "m", 5) as file:
        file.put(b"whole", 0)
        written = os.fstat(file._fd).st_ino
    assert (tmp_path / "m").stat().st_ino == written


@pytest.mark.parametrize("links", [True, False])
def test_who_may_use_it(tmp_path: Path, kind: str, links: bool, monkeypatch: pytest.MonkeyPatch):
    if not links:
        monkeypatch.setattr(os, "link", lambda *names, **how: os.stat(tmp_path / "none"))
    (tmp_path / "m").touch(0o644)
    write_file(tmp_path / "m", b"mine", 0o600)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o600
    write_file(tmp_path / "m", b"anybody's")
    assert (tmp_path / "m").stat().st_mode & 0o400 and (tmp_path / "m").read_bytes() == b"anybody's"


def test_where_folders_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sync = os.fsync

    def files_only(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(22, "Invalid argument")
        sync(fd)

    monkeypatch.setattr(os, "fsync", files_only)
    write_file(tmp_path / "m.eqf", b"whole")
    assert (tmp_path / "m.eqf").read_bytes() == b"whole"


def test_one_place_per_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "pwrite", raising=False)
    with OutputFile(tmp_path / "m", 6) as file:
        file.put(b"def", 3)
        file.put(b"abc", 0)
    assert (tmp_path / "m").read_bytes() == b"abcdef"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at /proc")
def test_windows_renames_closed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr("edgeq.system.output._WINDOWS", True)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    replace, opened = os.replace, []

    def replacing(source: Path, target: Path) -> None:
        opened.extend(
            fd for fd in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{fd}") == str(source)
        )
        replace(source, target)

    monkeypatch.setattr(os, "replace", replacing)
    (tmp_path / ".m.eqf.01234567.tmp").touch()
    write_file(tmp_path / "m.eqf", b"whole")
    assert opened == [] and names(tmp_path) == ["m.eqf"] and (tmp_path / "m.eqf").read_bytes() == b"whole"


def test_what_a_conversion_is_made_of_is_swept(tiny_model: Path, tmp_path: Path):
    """The folder of a GGUF file's parts has the name and the lock of one that may be removed once nobody holds it."""
    seen: set[Path] = set()

    def look(*progress: object) -> None:
        remove_abandoned(tmp_path)
        for folder in tmp_path.glob(".m.gguf.*.tmp"):
            seen.update(folder.iterdir())

    convert(tiny_model, tmp_path / "m.gguf", "Q8_0", progress=look)
    assert names(tmp_path) == ["m.gguf"] and {"lock"} < {one.name for one in seen}
    left = next(one.parent for one in seen)
    left.mkdir()
    for name in ("lock", "converted.eqf"):
        (left / name).touch()
    convert(tiny_model, tmp_path / "m.gguf", "Q8_0")
    assert names(tmp_path) == ["m.gguf"]
