"""Compiled kernels on disk: whole, atomic, and not kept for ever."""

import os
import time
from pathlib import Path

import pytest

from edgeq.kernels import cache
from edgeq.simd.isa import TABLE

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
    (made / "norm-avx2.o").write_bytes(CODE)
    used = time.time() - days * DAY
    os.utime(made, (used, used))
    return made


def test_what_is_kept_is_read_back():
    assert cache.read("matmul:Q4_K", ISA) is None
    cache.keep("matmul:Q4_K", ISA, CODE)
    assert cache.read("matmul:Q4_K", ISA) == CODE
    assert cache.read("matmul:Q6_K", ISA) is None
    assert [p.name for p in cache.path("matmul:Q4_K", ISA).parent.iterdir()] == ["matmul-Q4_K-portable.o"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other kernel"])
def test_a_damaged_object_is_not_read(damage: str):
    cache.keep("norm", ISA, CODE)
    path = cache.path("norm", ISA)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    path.write_bytes({"cut": content[:-1], "empty": b""}.get(damage, content))
    if damage == "other kernel":
        path.rename(cache.path("rope:f16", ISA))
        assert cache.read("rope:f16", ISA) is None
    assert cache.read("norm", ISA) is None


def test_only_folders_that_nobody_uses_are_removed(folder: Path):
    cache.keep("norm", ISA, CODE)
    own = cache.path("norm", ISA).parent
    long_ago = time.time() - 100 * DAY
    os.utime(own, (long_ago, long_ago))
    old, recent = other(folder, "0123456789abcdef", 31), other(folder, "fedcba9876543210", 29)
    half_removed = other(folder, ".unused-77-00112233445566", 31)
    not_ours = other(folder, "notes", 100)
    cache.prune()
    assert not old.exists() and not half_removed.exists()
    assert own.exists() and recent.exists() and not_ours.exists()
    assert sorted(p.name for p in folder.iterdir()) == sorted([own.name, recent.name, not_ours.name])


def test_using_kernels_keeps_their_folder(folder: Path):
    cache.mark_used()  # there is no folder yet
    cache.keep("norm", ISA, CODE)
    own = cache.path("norm", ISA).parent
    os.utime(own, (0, 0))
    cache.mark_used()
    assert time.time() - own.stat().st_mtime < DAY


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
    cache.keep("norm", ISA, CODE)
    assert cache.read("norm", ISA) is None
