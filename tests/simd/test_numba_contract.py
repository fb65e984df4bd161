"""What edgeq/simd/target.py relies on and Numba's documentation does not promise, asked of the Numba that is installed.

A version that breaks one of these is one that pyproject.toml must not allow; the failing line says what changed.
"""

import ast
import inspect
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import llvmlite
import numba
import pytest
from numba import types
from numba.core import codegen, cpu, registry, typing
from numba.core.base import BaseContext
from numba.core.compiler_lock import global_compiler_lock
from numba.core.descriptors import TargetDescriptor
from numba.core.dispatcher import Dispatcher
from numba.core.options import TargetOptions
from numba.extending import intrinsic

import edgeq
from edgeq.simd import target

PACKAGE = Path(edgeq.__file__).parent

# What any module may import of the two; `types` and `ir` are used by attribute, as documented.
PUBLIC = {
    "numba.types",
    "numba.extending.intrinsic",
    "numba.extending.models",
    "numba.extending.register_model",
    "llvmlite.ir",
    "llvmlite.binding",
}


def arguments(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(function: Callable[..., Any]) -> str:
    return inspect.getsource(function)


def over(name: str, *kinds: type) -> bool:
    """Whether this method, which target.py overrides, is one of all these classes, or inherited by them."""
    return all(callable(getattr(kind, name, None)) for kind in kinds)


CONTRACT: dict[str, Callable[[], bool]] = {
    "AOTCPUCodegen(module_name, cpu_name) makes the libraries of its `_library_class`": lambda: (
        arguments(codegen.AOTCPUCodegen.__init__)[:3] == ["self", "module_name", "cpu_name"]
        and codegen.AOTCPUCodegen._library_class is codegen.AOTCodeLibrary
        and "self._library_class(" in source(codegen.Codegen.create_library)
    ),
    "a code generator sets `_tm`, `_target_data` and `_data_layout` in `_init(llvm_module)`": lambda: (
        arguments(codegen.CPUCodegen._init) == ["self", "llvm_module"]
        and all(f"self.{name} = " in source(codegen.CPUCodegen._init) for name in ("_tm", "_target_data"))
        and "self._data_layout = " in source(codegen.CPUCodegen._init)
    ),
    "a code generator makes every module by `_create_empty_module(name)`": lambda: (
        arguments(codegen.CPUCodegen._create_empty_module) == ["self", "name"]
        and "._create_empty_module(" in source(codegen.CodeLibrary.create_ir_module)
    ),
    "a library optimises itself by `_optimize_final_module()` alone, and once": lambda: (
        arguments(codegen.CPUCodeLibrary._optimize_final_module) == ["self"]
        and source(codegen.CPUCodeLibrary.finalize).count("self._optimize_final_module()") == 1
    ),
    "a library keeps its module as `_final_module`": lambda: (
        "self._final_module" in source(codegen.CPUCodeLibrary.finalize)
    ),
    "a context makes what is called by `get_executable(library, fndesc, env)`": lambda: (
        arguments(cpu.CPUContext.get_executable) == ["self", "library", "fndesc", "env"]
    ),
    "a context has `_internal_codegen` and `aot_mode`, which `subtarget` sets": lambda: (
        "_internal_codegen" in source(cpu.CPUContext)
        and hasattr(BaseContext, "aot_mode")
        and arguments(BaseContext.subtarget) == ["self", "kws"]
    ),
    "a target descriptor is its name and two contexts": lambda: (
        arguments(TargetDescriptor.__init__) == ["self", "target_name"]
        and TargetDescriptor.__abstractmethods__ == {"typing_context", "target_context"}
    ),
    "the CPU target keeps its two contexts in its own dictionary": lambda: all(
        isinstance(vars(registry.CPUTarget).get(name), (cached_property, registry.cached_property))
        and f"self.{name}" in source(getattr(registry.CPUTarget, public).fget)
        for name, public in (
            ("_toplevel_typing_context", "typing_context"),
            ("_toplevel_target_context", "target_context"),
        )
    ),
    "the compiler's lock is a context manager": lambda: hasattr(global_compiler_lock, "__enter__"),
    "a dispatcher takes `targetoptions`, and its target from `targetdescr`": lambda: (
        "targetoptions" in arguments(Dispatcher.__init__) and "self.targetdescr" in source(Dispatcher.__init__)
    ),
    "a dispatcher forgets what it compiled by `_reset_overloads()`": lambda: (
        arguments(Dispatcher._reset_overloads) == ["self"]
    ),
    "a dispatcher keeps `typingctx`, `targetctx` and `_type`, and registers that type": lambda: all(
        line in source(Dispatcher.__init__)
        for line in ("self.typingctx = ", "self.targetctx = ", "self._type = ", "insert_global(self, self._type)")
    ),
    "the options of a CPU target are those of target.py": lambda: (
        issubclass(cpu.CPUTargetOptions, TargetOptions)
        and all(hasattr(cpu.CPUTargetOptions, name) for name in [*target._OPTIONS, "forceinline"])
    ),
    "a typing context finds a function's type and its calls'": lambda: (
        arguments(typing.Context.resolve_value_type) == ["self", "val"]
        and arguments(types.Dispatcher.get_call_type) == ["self", "context", "args", "kws"]
        and over("insert_global", typing.Context)
    ),
    "a context builds calls and links what they call": lambda: (
        arguments(BaseContext.get_function)[:3] == ["self", "fn", "sig"]
        and over("add_linking_libs", cpu.CPUContext)
        and over("get_dummy_value", cpu.CPUContext)
    ),
}


@pytest.mark.parametrize("what", CONTRACT)
def test_numba_is_as_it_was(what: str):
    found = f"Numba {numba.__version__} with llvmlite {llvmlite.__version__}"
    try:
        holds = CONTRACT[what]()
    except (AttributeError, TypeError, OSError) as error:
        pytest.fail(f"{found}: no longer true: {what} ({error})")
    assert holds, f"{found}: no longer true: {what}"


@intrinsic
def _store(typingctx, address, value):
    def generate(context, b, signature, args):
        b.store(args[1], b.inttoptr(args[0], args[1].type.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@target.device
def _third(value):
    if value == 7:
        raise ValueError("seven")
    return value // 3


def _kernel(args, thread, n_threads):
    _store(args, min(_third(args + thread), n_threads))


@pytest.fixture(scope="module")
def module() -> str:
    return str(target.lowered(_kernel, "a_kernel"))


def test_a_kernel_is_a_c_function(module: str):
    assert "define void @a_kernel(i64 %args, i64 %thread, i64 %threads)" in module


def test_helpers_are_inlined_and_optimised(module: str):
    called = [line for line in module.splitlines() if " call " in line and "llvm." not in line]
    assert len(called) == 1, called  # of the entry point: what Numba made
    assert "sdiv" in module and "alloca" in module


def test_an_exception_leaves_no_address(module: str):
    """Its text, where it is kept at all, is gone: it would have to be relocated."""
    kept = [line for line in module.splitlines() if line.startswith("@.const.picklebuf.")]
    assert kept, f"Numba {numba.__version__} keeps an exception under another name"
    assert all("zeroinitializer" in line for line in kept), kept


def test_min_is_typed_for_our_target_and_numba_for_its_own():
    """Numba's own helpers were made for the kernels' target above; ordinary functions are still for Numba's."""
    assert numba.njit(lambda a, b: min(a, b) + 1)(3, 4) == 4


def test_what_is_private_is_in_one_file():
    for path in PACKAGE.rglob("*.py"):
        if path == Path(target.__file__):
            continue
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        private = {name for name in names if name.split(".")[0] in ("numba", "llvmlite")} - PUBLIC
        assert not private, f"{path}: {', '.join(sorted(private))}: belongs in simd/target.py"
