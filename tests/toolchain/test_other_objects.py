"""Kernels for systems that nobody here has: what can be known of them without running them."""

import platform
import re

import pytest

from edgeq.errors import KernelError
from edgeq.simd.isa import TABLE
from edgeq.simd.machine import machine
from edgeq.simd.target import target_machine
from edgeq.toolchain import library
from edgeq.toolchain.compile import kernel_module

ISA = {row.name: row for row in TABLE}
WINDOWS = ("x86_64-pc-windows-msvc", "x86-64-v3", "avx2")
MAC_INTEL = ("x86_64-apple-darwin22.0.0", "x86-64-v3", "avx2")
MAC_ARM = ("arm64-apple-darwin22.0.0", "apple-m1", "neon_dotprod")
# The first bytes of a COFF object for x86-64, and of a 64-bit Mach-O file
STARTS = {WINDOWS: bytes.fromhex("6486"), MAC_INTEL: bytes.fromhex("cffaedfe"), MAC_ARM: bytes.fromhex("cffaedfe")}
# What LLVM's loader of objects finds in every process of the system
THERE = {WINDOWS: {"SwitchToThread", "__chkstk"}, MAC_INTEL: {"_sched_yield"}, MAC_ARM: {"_sched_yield"}}

_CALL = re.compile(r"^\s*(?:callq?|bl|jmp|b)\s+([A-Za-z_]\w*)", re.MULTILINE)
_LABEL = re.compile(r'^"?([A-Za-z_]\w*)"?:', re.MULTILINE)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        *((target, name) for target in STARTS for name in ("execute:serve", "norm")),
        (WINDOWS, "matmul:Q4_K"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_objects_of_other_systems_need_only_what_is_there(target: tuple[str, str, str], name: str):
    triple, cpu, body = target
    family, _, variant = name.partition(":")
    aimed = machine(cpu, triple=triple)
    module = kernel_module(family, variant, ISA[body], "kernel", aimed)
    code = target_machine(aimed)
    text = code.emit_assembly(module)
    assert code.emit_object(module).startswith(STARTS[target])
    needed = set(_CALL.findall(text)) - set(_LABEL.findall(text)) - {"L"}
    assert {call for call in needed if not call.startswith("LBB")} <= THERE[target]
    if name == "execute:serve":
        assert needed & {"SwitchToThread", "_sched_yield"}, "who waits must offer its core"


def test_where_numba_has_no_packages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(library, "no_compiler", lambda: "Numba is not installed")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with pytest.raises(KernelError, match=r"Numba is not installed; its packages need glibc, which .* is without"):
        library.kernel("norm:none")
