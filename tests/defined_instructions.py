"""Bodies of AVX-512 and AVX-VNNI on machines that have neither: their instructions replaced by their definitions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from llvmlite import ir

from edgeq.simd import emit, intrinsics, isa, portable
from edgeq.toolchain import library


def _saturate(b, wide, low):
    return b.trunc(
        emit.call(
            b,
            "llvm.smax.v32i32",
            wide.type,
            [
                emit.call(b, "llvm.smin.v32i32", wide.type, [wide, emit.splat_constant(wide.type, 32767)]),
                emit.splat_constant(wide.type, -32768),
            ],
        ),
        low,
    )


def _maddubs_512(b, codes, activations):
    """`vpmaddubsw`, saturation included, as Intel's manual defines it."""
    wide = ir.VectorType(ir.IntType(32), 64)
    products = b.mul(b.zext(codes, wide), b.sext(activations, wide))
    even, odd = (emit.shuffle(b, products, products, range(i, 64, 2)) for i in range(2))
    return _saturate(b, b.add(even, odd), ir.VectorType(ir.IntType(16), 32))


def _maddwd_512(b, x, y):
    """`vpmaddwd`."""
    wide = ir.VectorType(ir.IntType(32), 32)
    products = b.mul(b.sext(x, wide), b.sext(y, wide))
    even, odd = (emit.shuffle(b, products, products, range(i, 32, 2)) for i in range(2))
    return b.add(even, odd)


def _pshufb_512(b, tables, indices):
    """`vpshufb` of four equal tables, whose indices are below 16."""
    return portable.BODY.lookup(b, emit.quarters(b, tables)[0], indices)


def _as_function(name: str, generate: Callable[..., ir.Value]) -> Callable[..., ir.Value]:
    """`generate` as a function of the module that is called, not inlined: compiled once, not for every use."""

    def call(b: ir.IRBuilder, *args: ir.Value) -> ir.Value:
        module = b.module
        if name not in module.globals:
            probe = ir.IRBuilder(ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), []), "f").append_basic_block())
            result = generate(probe, *[ir.Constant(arg.type, ir.Undefined) for arg in args]).type
            function = ir.Function(module, ir.FunctionType(result, [arg.type for arg in args]), name)
            function.linkage = "internal"
            function.attributes.add("noinline")
            inside = ir.IRBuilder(function.append_basic_block())
            inside.ret(generate(inside, *function.args))
        return b.call(module.globals[name], args)

    return call


@contextmanager
def defined_instructions() -> Iterator[None]:
    """These bodies with their instructions replaced by what these are defined to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(intrinsics.VPDPBUSD, 64, _as_function("vpdpbusd", portable.BODY.dot_bytes))
        patch.setitem(intrinsics.VPDPBUSD, 32, _as_function("vpdpbusd256", portable.BODY.dot_bytes))
        patch.setitem(intrinsics.PSHUFB, 64, _pshufb_512)
        patch.setitem(intrinsics.PMADDUBSW, 64, _as_function("vpmaddubsw", _maddubs_512))
        patch.setitem(intrinsics.PMADDWD, 64, _as_function("vpmaddwd", _maddwd_512))
        patch.setattr(emit, "pin", lambda b, values: values)  # its registers are 512 bits wide
        yield


def emulated(row: isa.Isa) -> Callable[[str], library.Kernel]:
    kernels: dict[str, library.Kernel] = {}

    def kernel(name: str) -> library.Kernel:
        if name not in kernels:
            from edgeq.toolchain.compile import compile_kernel

            symbol = f"emulated_{name}_{row.name}".replace(":", "_")
            with defined_instructions():
                code = compile_kernel(*name.partition(":")[::2], row, symbol)
            kernels[name] = library.Kernel(name, library._engine().load(code, symbol))
        return kernels[name]

    return kernel
