"""A Numba target for kernels: it types and lowers Python to optimised LLVM IR, and emits no machine code of its own.

Numba's CPU target would also compile every helper for this process. Kernels leave as objects instead (emitted for the
chosen CPU by toolchain/compile.py), which is faster and lets a body be compiled on machines that cannot run it.

All of Numba and llvmlite that their documentation does not promise is used here and nowhere else; what that is,
tests/simd/test_numba_contract.py says.
"""

import contextlib
import functools
import re
import weakref
from collections.abc import Callable

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cpu, typing
from numba.core.codegen import AOTCodeLibrary, AOTCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.descriptors import TargetDescriptor
from numba.core.registry import CPUDispatcher, cpu_target

from edgeq.simd.machine import Machine, host

# What is compiled: `void kernel(int64 args, int64 thread, int64 n_threads)`
SIGNATURE = types.void(types.int64, types.int64, types.int64)

# A Python exception that Numba could raise, by its parts' addresses: nobody looks at it, and it would need relocations.
_EXCEPTION = re.compile(r"^(@\.const\.picklebuf\.\S+ = internal constant \{[^}]*\}) .*$", re.MULTILINE)


class _Context(cpu.CPUContext):
    def get_executable(self, library, fndesc, env):
        """Nothing can be called from Python; Numba only needs a distinct built-in object per function as its key."""
        library.finalize()
        return [fndesc].append


def target_machine(machine: Machine) -> llvm.TargetMachine:
    """LLVM's code generator for a machine."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu,
        features=machine.tuned_features,
        opt=3,
        reloc="pic",
        codemodel="default",
    )


class _Library(AOTCodeLibrary):
    """The module of a function. Helpers stay as they are lowered: they are optimised where they were inlined, once.

    Numba would optimise a helper, then whatever calls it, and so on: half of the time that a kernel takes to compile.
    """

    def _optimize_final_module(self):
        pass

    def optimized(self):
        """The module of an entry point, with everything that it has inlined, as LLVM IR."""
        super()._optimize_final_module()
        return str(self._final_module)


class _Codegen(AOTCPUCodegen):
    """Numba's code generator, optimising for any machine."""

    _library_class = _Library

    def __init__(self, machine: Machine):
        self._machine = machine
        super().__init__("edgeq", cpu_name="host")

    def _init(self, llvm_module):
        super()._init(llvm_module)
        self._tm = target_machine(self._machine)
        self._target_data = self._tm.target_data
        self._data_layout = str(self._target_data)

    def _create_empty_module(self, name):
        module = super()._create_empty_module(name)
        module.triple = self._machine.triple
        return module


class _Target(TargetDescriptor):
    """The machine that kernels are compiled for, with Numba's contexts of it."""

    options = cpu.CPUTargetOptions

    def __init__(self):
        super().__init__("cpu")
        self.machine = host()

    @functools.cached_property
    def typing_context(self):
        return typing.Context()

    @functools.cached_property
    def target_context(self):
        codegen = _Codegen(self.machine)
        return _Context(self.typing_context, self._target_name).subtarget(_internal_codegen=codegen, aot_mode=True)

    def aim(self, machine: Machine) -> None:
        """Compile for `machine` from here on. Whatever was compiled for another one is forgotten."""
        if machine == self.machine:
            return
        self.machine = machine
        for name in ("typing_context", "target_context"):
            vars(self).pop(name, None)
        for dispatcher in _dispatchers:
            dispatcher._reset_overloads()
            dispatcher.typingctx, dispatcher.targetctx = self.typing_context, self.target_context
            dispatcher.typingctx.insert_global(dispatcher, dispatcher._type)

    @contextlib.contextmanager
    def installed(self):
        """Compile for this target: Numba's own helpers (min, max, ...) look for the CPU target, so stand in for it."""
        names = {"_toplevel_typing_context": self.typing_context, "_toplevel_target_context": self.target_context}
        with global_compiler_lock:
            before = {name: vars(cpu_target).pop(name, None) for name in names}
            vars(cpu_target).update(names)
            try:
                yield
            finally:
                for name, value in before.items():
                    del vars(cpu_target)[name]
                    if value is not None:
                        vars(cpu_target)[name] = value


_dispatchers: weakref.WeakSet = weakref.WeakSet()
_target = _Target()


def aim(machine: Machine) -> None:
    """Compile for `machine` from here on; what follows from a body's features is asked of it while a kernel is made."""
    _target.aim(machine)


def machine_has(feature: str) -> bool:
    """Whether the machine that is being compiled for has a feature, for operations with two ways of doing the same."""
    return feature in _target.machine.has


_OPTIONS = {
    "nopython": True,
    "nogil": True,
    "error_model": "numpy",  # division as in C, never an exception
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


class _Dispatcher(CPUDispatcher):
    targetdescr = _target

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _dispatchers.add(self)


def device(function):
    """A helper of kernels, inlined wherever it is called."""
    return _Dispatcher(function, targetoptions={**_OPTIONS, "forceinline": True})


def outlined(function):
    """A large helper that is called: which values its loops keep in registers does not depend on what is around it."""
    return _Dispatcher(function, targetoptions={**_OPTIONS, "forceinline": False})  # else it inherits its caller's


class Device:
    """A device function as what an operation can build calls of."""

    def __init__(self, typingctx, function, *arguments):
        self._type = typingctx.resolve_value_type(function)
        self._signature = self._type.get_call_type(typingctx, arguments, {})

    def __call__(self, context, b: ir.IRBuilder, *args: ir.Value) -> ir.Value:
        function = context.get_function(self._type, self._signature)
        context.add_linking_libs(function.libs)
        return function(b, args)


def lowered(function: Callable[[int, int, int], None], symbol: str) -> llvm.ModuleRef:
    """The optimised LLVM module of a kernel's function, for the machine aimed at, with its C entry point `symbol`."""
    dispatcher = _Dispatcher(function, targetoptions=dict(_OPTIONS))
    with _target.installed():
        dispatcher.compile(SIGNATURE)
    overload = dispatcher.overloads[SIGNATURE.args]
    module = llvm.parse_assembly(_EXCEPTION.sub(r"\1 zeroinitializer", overload.library.optimized()))
    module.link_in(llvm.parse_assembly(_entry_point(symbol, overload.fndesc.llvm_func_name, module)))
    return module


def _entry_point(symbol: str, mangled: str, module: llvm.ModuleRef) -> str:
    """A C function around Numba's calling convention (result pointer, exception pointer, arguments -> status)."""
    return f"""
target triple = "{module.triple}"
target datalayout = "{module.data_layout}"
declare i32 @"{mangled}"(ptr, ptr, i64, i64, i64)
define void @"{symbol}"(i64 %args, i64 %thread, i64 %threads) {{
  %result = alloca ptr
  %exception = alloca ptr
  %status = call i32 @"{mangled}"(ptr %result, ptr %exception, i64 %args, i64 %thread, i64 %threads)
  ret void
}}
"""
