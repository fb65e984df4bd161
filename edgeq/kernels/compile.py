"""Compile one kernel to a relocatable object: Python through Numba to LLVM IR, then machine code for this CPU.

The object exports one C function `void name(int64 args, int64 thread, int64 n_threads)` and needs nothing but libc, so
that it loads later without Numba. This module and the kernel families are imported only when an object is missing.
"""

from importlib import import_module

import llvmlite.binding as llvm
from numba.core import types

from edgeq.simd.isa import Isa
from edgeq.simd.target import entry, kernel_target

SIGNATURE = types.void(types.int64, types.int64, types.int64)


def target_machine(cpu: str | None = None) -> llvm.TargetMachine:
    """The code generator for this CPU, or for the one that LLVM calls `cpu`."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = "" if cpu else llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=cpu or llvm.get_host_cpu_name(), features=features, opt=3, reloc="pic", codemodel="default"
    )


def kernel_module(family: str, variant: str, isa: Isa, symbol: str) -> llvm.ModuleRef:
    """The optimised LLVM module of a kernel, with its C entry point `symbol`."""
    function = entry(import_module(f"edgeq.kernels.{family}").make(variant, isa))
    with kernel_target.installed():
        function.compile(SIGNATURE)
    overload = function.overloads[SIGNATURE.args]
    module = llvm.parse_assembly(str(overload.library._final_module))
    module.link_in(llvm.parse_assembly(_entry_point(symbol, overload.fndesc.llvm_func_name)))
    module.verify()
    return module


def compile_kernel(family: str, variant: str, isa: Isa, symbol: str) -> bytes:
    """The object file of a kernel."""
    return target_machine().emit_object(kernel_module(family, variant, isa, symbol))


def assembly(family: str, variant: str, isa: Isa, cpu: str | None = None) -> str:
    """The assembly of a kernel, to read and to assert on; for this CPU, or for the one that LLVM calls `cpu`."""
    return target_machine(cpu).emit_assembly(kernel_module(family, variant, isa, "kernel"))


def _entry_point(symbol: str, mangled: str) -> str:
    """A C function around Numba's calling convention (result pointer, exception pointer, arguments -> status)."""
    return f"""
declare i32 @"{mangled}"(ptr, ptr, i64, i64, i64)
define void @"{symbol}"(i64 %args, i64 %thread, i64 %threads) {{
  %result = alloca ptr
  %exception = alloca ptr
  %status = call i32 @"{mangled}"(ptr %result, ptr %exception, i64 %args, i64 %thread, i64 %threads)
  ret void
}}
"""
