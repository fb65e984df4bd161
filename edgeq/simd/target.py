"""A Numba target for kernels: it types and lowers Python to optimised LLVM IR, and emits no machine code of its own.

Numba's CPU target would also compile every helper for this process. Kernels leave as objects instead (emitted for the
chosen CPU by kernels/compile.py), which is faster and lets a body be compiled on machines that cannot run it.
"""

import contextlib
from functools import cached_property

from numba.core import cpu, typing
from numba.core.compiler_lock import global_compiler_lock
from numba.core.descriptors import TargetDescriptor
from numba.core.registry import CPUDispatcher, cpu_target


class _Context(cpu.CPUContext):
    def get_executable(self, library, fndesc, env):
        """Nothing can be called from Python; Numba only needs a distinct built-in object per function as its key."""
        library.finalize()
        return [fndesc].append


class _Target(TargetDescriptor):
    options = cpu.CPUTargetOptions

    @cached_property
    def typing_context(self):
        return typing.Context()

    @cached_property
    def target_context(self):
        return _Context(self.typing_context, self._target_name).with_aot_codegen("edgeq", cpu_name="host")

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


kernel_target = _Target("cpu")

_OPTIONS = {
    "nopython": True,
    "nogil": True,
    "error_model": "numpy",  # division as in C, never an exception
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


class _Dispatcher(CPUDispatcher):
    targetdescr = kernel_target


def entry(function):
    """A kernel's entry point, ready to be compiled for a signature."""
    return _Dispatcher(function, targetoptions=dict(_OPTIONS))


def device(function):
    """A helper of kernels, inlined wherever it is called."""
    return _Dispatcher(function, targetoptions={**_OPTIONS, "forceinline": True})
