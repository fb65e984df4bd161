"""Compile one kernel to a relocatable object: Python through Numba to LLVM IR, then machine code for this CPU.

The object exports one C function `void name(int64 args, int64 thread, int64 n_threads)` and needs nothing but libc, so
that it loads later without Numba. This module and the kernel families are imported only when an object is missing.
"""

from importlib import import_module

import llvmlite.binding as llvm

from edgeq.errors import UnsupportedError
from edgeq.simd.isa import Isa
from edgeq.simd.machine import Machine, host, is_aarch64, machine
from edgeq.simd.target import aim, lowered, target_machine
from edgeq.toolchain.sources import module_of


def kernel_module(family: str, variant: str, isa: Isa, symbol: str, machine: Machine | None = None) -> llvm.ModuleRef:
    """The optimised LLVM module of a kernel, with its C entry point `symbol`; for this machine or another one.

    Raises UnsupportedError if the machine lacks what the body needs: LLVM would abort the process.
    """
    machine = machine or host()
    if (is_aarch64(machine.triple) or "neon" in isa.needs) and not isa.needs <= machine.has:
        lacking = ", ".join(sorted(isa.needs - machine.has))
        raise UnsupportedError(f"the kernel body {isa.name} needs {lacking}, which {machine.cpu} does not have")
    aim(machine)
    module = lowered(import_module(module_of(family)).make(variant, isa), symbol)
    for helper in module.functions:  # their names may be those of other kernels' helpers, which one loader may hold
        if not helper.is_declaration and helper.name != symbol:
            helper.linkage = "internal"
    module.verify()
    return module


def compile_kernel(
    family: str,
    variant: str,
    isa: Isa,
    symbol: str,
    cpu: str | None = None,
    features: str | None = None,
    triple: str | None = None,
) -> bytes:
    """The object file of a kernel: for this machine, or for the one that LLVM calls `cpu` (see simd/machine.py)."""
    target = machine(cpu, features, triple)
    return bytes(target_machine(target).emit_object(kernel_module(family, variant, isa, symbol, target)))


def assembly(family: str, variant: str, isa: Isa, cpu: str | None = None, features: str | None = None) -> str:
    """The assembly of a kernel, to read and to assert on; for this machine, or for the one that LLVM calls `cpu`."""
    target = machine(cpu, features)
    return str(target_machine(target).emit_assembly(kernel_module(family, variant, isa, "kernel", target)))
