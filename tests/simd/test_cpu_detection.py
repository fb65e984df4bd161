"""What code is compiled for: detection, and what is refused before LLVM sees it."""

import ctypes
import platform
import subprocess
import sys

import pytest

from edgeq.errors import UnsupportedError
from edgeq.simd import isa, machine
from edgeq.toolchain.compile import compile_kernel

ISA = {row.name: row for row in isa.TABLE}


def pretend(monkeypatch: pytest.MonkeyPatch, words: dict[int, int]) -> None:
    """An AArch64 Linux whose getauxval gives these words."""

    class Library:
        getauxval = type("Function", (), {"__call__": lambda self, word: words.get(word, 0)})()

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(sys, "platform", "linux")
    machine.host_features.cache_clear()


@pytest.fixture(autouse=True)
def forget():
    yield
    machine.host_features.cache_clear()


@pytest.mark.parametrize(
    ("words", "bodies"),
    [
        ({16: 1 << 1}, ["neon", "portable"]),
        ({16: 1 << 1 | 1 << 20}, ["neon_dotprod", "neon", "portable"]),
        ({16: 1 << 1 | 1 << 20, 26: 1 << 13}, ["neon_i8mm", "neon_dotprod", "neon", "portable"]),
    ],
    ids=["cortex-a72", "cortex-a76", "neoverse-n2"],
)
def test_bodies_by_hardware_capabilities(monkeypatch, words, bodies):
    pretend(monkeypatch, words)
    assert [row.name for row in isa.available()] == bodies


def test_a_32_bit_system_is_refused(monkeypatch):
    machine.host_features.cache_clear()
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    monkeypatch.setattr(platform, "machine", lambda: "armv7l")
    with pytest.raises(UnsupportedError, match="32-bit Python on armv7l: edgeq needs a 64-bit"):
        isa.available()


def test_unknown_names_and_missing_features_are_refused():
    with pytest.raises(UnsupportedError, match="unknown AArch64 CPU cortex-a999"):
        compile_kernel("norm", "", ISA["neon"], "kernel", "cortex-a999", triple=machine.AARCH64)
    with pytest.raises(UnsupportedError, match="neon_dotprod needs dotprod, which cortex-a72 does not have"):
        compile_kernel("norm", "", ISA["neon_dotprod"], "kernel", "cortex-a72")


def test_llvm_knows_every_name():
    """In a process of its own: a name that LLVM does not know crashes it."""
    code = """
from edgeq.simd.machine import AARCH64_CPUS, machine
from edgeq.simd.target import target_machine
import llvmlite.binding as llvm
for cpu in AARCH64_CPUS:
    code = target_machine(machine(cpu)).emit_object(llvm.parse_assembly("define void @f() { ret void }"))
    assert code[:4] == b"\\x7fELF" and code[18] == 183, cpu
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "not a recognized" not in result.stderr


def test_a_body_of_another_architecture_is_refused():
    foreign = "avx2" if platform.machine() in ("aarch64", "arm64") else "neon"
    with pytest.raises(UnsupportedError, match=f"the kernel body {foreign} needs "):
        compile_kernel("norm", "", ISA[foreign], "kernel")
