"""Compiled kernels on disk: whole files, found again, and not kept for ever."""

import os
import time
from pathlib import Path

import pytest

from edgeq.simd.isa import TABLE
from edgeq.toolchain import cache
from edgeq.toolchain.cpus import CPUS

ISA = TABLE[-1]
CODE = b"machine code" * 100
DAY = 86400


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path))
    return tmp_path / "kernels"


def other(folder: Path, digest: str, days: float) -> Path:
    """Kernels of another version, last used so many days ago."""
    made = folder / digest
    made.mkdir(parents=True)
    (made / "norm-avx2.eqk").write_bytes(CODE)
    used = time.time() - days * DAY
    os.utime(made, (used, used))
    return made


def test_what_is_kept_is_whole():
    assert cache.keep("matmul:Q4_K", ISA, CODE)
    assert cache.path("matmul:Q4_K", ISA).read_bytes() == CODE
    assert [path.name for path in cache.folder("matmul:F32", ISA).iterdir()] == ["matmul-Q4_K-portable.eqk"]


def test_only_folders_that_nobody_uses_are_removed(folder: Path):
    cache.keep("norm", ISA, CODE)
    own = cache.folder("norm", ISA)
    os.utime(own, (0, 0))
    cache.mark_used(["norm"], ISA)
    old, recent = other(folder, "0123456789abcdef", 31), other(folder, "fedcba9876543210", 29)
    half_removed = other(folder, ".unused-77-00112233445566", 31)
    not_ours = other(folder, "notes", 100)
    cache.prune()
    assert not old.exists() and not half_removed.exists()
    assert own.exists() and recent.exists() and not_ours.exists()
    assert sorted(p.name for p in folder.iterdir()) == sorted([own.name, recent.name, not_ours.name])


def test_using_kernels_keeps_their_folder(folder: Path):
    cache.mark_used(["norm"], ISA)  # there is no folder yet
    for name in ("norm", "copy_rows"):
        cache.keep(name, ISA, CODE)
        os.utime(cache.folder(name, ISA), (0, 0))
    cache.mark_used(["norm:add"], ISA)
    assert time.time() - cache.folder("norm", ISA).stat().st_mtime < DAY
    assert cache.folder("copy_rows", ISA).stat().st_mtime == 0


def test_what_is_there_is_counted(folder: Path):
    """Those of this machine's folders that are of the sources as they are, for any body."""
    assert cache.count() == 0
    cache.keep("norm", ISA, CODE)
    cache.keep("norm:add", ISA, CODE)
    cache.keep("matmul:Q4_K", TABLE[0], CODE)
    cache.keep("matmul:Q4_K", TABLE[0], CODE, CPUS[0])
    other(folder, "0123456789abcdef", 1)
    (folder / "0123456789abcdef" / "gone-avx9.eqk").write_bytes(CODE)
    assert cache.count() == 3


def test_pruning_an_absent_or_crowded_cache(folder: Path, monkeypatch: pytest.MonkeyPatch):
    cache.prune()
    assert not folder.exists()
    old = other(folder, "0123456789abcdef", 31)

    def faster(source: str, target: Path) -> None:
        raise FileNotFoundError(source)

    monkeypatch.setattr(os, "rename", faster)  # another process renamed it in between
    cache.prune()
    assert old.exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "file"))
    assert not cache.keep("norm", ISA, CODE)
