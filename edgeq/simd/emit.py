"""LLVM IR building blocks shared by the vector operations and the instruction set bodies. No Numba types here."""

from collections.abc import Sequence

from llvmlite import ir

from edgeq.simd import machine

I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
FALSE = ir.Constant(ir.IntType(1), 0)
U8X64, I32X16, F32X16 = ir.VectorType(I8, 64), ir.VectorType(I32, 16), ir.VectorType(F32, 16)
U8X16, I32X4 = ir.VectorType(I8, 16), ir.VectorType(I32, 4)

# The bits of the f32 1.5 * 2**23: this plus an integer below 2**22 are the bits of 1.5 * 2**23 plus that integer. A dot
# that starts here becomes a float by one subtraction, which is exact, where a conversion is slow.
FLOAT_BIAS = 0x4B400000

# What inline assembly calls a vector register, where it is not "v"
_VECTOR_REGISTERS = {"aarch64": "w"}


def splat_constant(vector: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def splat(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """`value` in every lane."""
    vector = ir.VectorType(value.type, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, I32(0))
    return builder.shuffle_vector(first, undefined, splat_constant(ir.VectorType(I32, lanes), 0))


def shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: Sequence[int]) -> ir.Value:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def half(builder: ir.IRBuilder, value: ir.Value, which: int) -> ir.Value:
    """The low (0) or high (1) half of a vector's lanes."""
    lanes = value.type.count // 2
    return shuffle(builder, value, value, range(which * lanes, (which + 1) * lanes))


def concat(builder: ir.IRBuilder, low: ir.Value, high: ir.Value) -> ir.Value:
    return shuffle(builder, low, high, range(2 * low.type.count))


def quarters(builder: ir.IRBuilder, value: ir.Value) -> list[ir.Value]:
    """The four 128-bit registers of a 512-bit vector."""
    lanes = value.type.count // 4
    return [shuffle(builder, value, value, range(q * lanes, (q + 1) * lanes)) for q in range(4)]


def join(builder: ir.IRBuilder, parts: Sequence[ir.Value]) -> ir.Value:
    """The inverse of `quarters`."""
    return concat(builder, concat(builder, parts[0], parts[1]), concat(builder, parts[2], parts[3]))


def offset(builder: ir.IRBuilder, address: ir.Value, nbytes: int) -> ir.Value:
    return builder.add(address, I64(nbytes)) if nbytes else address


def load(builder: ir.IRBuilder, address: ir.Value, llvm_type: ir.Type, align: int = 1) -> ir.Value:
    value = builder.load(builder.inttoptr(address, llvm_type.as_pointer()))
    value.align = align
    return value


def store(builder: ir.IRBuilder, address: ir.Value, value: ir.Value, align: int = 1) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = align


def prefetch(builder: ir.IRBuilder, address: ir.Value, level: int = 1) -> None:
    """Ask for the cache line at `address`, into the cache of `level` 1 or 2; any address is allowed."""
    pointer = builder.inttoptr(address, I8.as_pointer())
    name = "llvm.prefetch.p0"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32]), name)
    builder.call(function, [pointer, I32(0), I32(4 - level), I32(1)])


def call(builder: ir.IRBuilder, name: str, result: ir.Type, args: Sequence[ir.Value]) -> ir.Value:
    """Call the LLVM intrinsic or C function `name`, declaring it in the module on first use."""
    module = builder.module
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(result, [arg.type for arg in args]), name)
    return builder.call(function, args)


def fma(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c with one rounding, whatever the CPU: results do not depend on the instruction set body."""
    suffix = f"v{a.type.count}f32" if isinstance(a.type, ir.VectorType) else "f32"
    return call(builder, f"llvm.fma.{suffix}", a.type, [a, b, c])


def splat_word(builder: ir.IRBuilder, address: ir.Value, lanes: int) -> ir.Value:
    """The 4 bytes at `address` repeated over `lanes` bytes: 4 activations against every row of a code line."""
    word = load(builder, address, I32, 4)
    return builder.bitcast(splat(builder, word, lanes // 4), ir.VectorType(I8, lanes))


def repeat_word(builder: ir.IRBuilder, value: ir.Value, lane: int) -> ir.Value:
    """Word (4 bytes) `lane` of 16 bytes, in every word: AArch64 instructions `by lane` take it in as it is."""
    words = builder.bitcast(value, I32X4)
    return builder.bitcast(shuffle(builder, words, words, [lane] * 4), value.type)


def conceal(builder: ir.IRBuilder, value: ir.Value, constraint: str) -> ir.Value:
    """The same value, of which LLVM no longer knows where it came from; `constraint` names the kind of register."""
    kind = ir.FunctionType(value.type, [value.type])
    return builder.call(
        ir.InlineAsm(kind, "", f"={constraint},0", side_effect=False), [value], attrs=("readnone", "nounwind")
    )


def in_memory(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Store `value` on the stack; its address. Conceal it before loading, else LLVM keeps the value in a register.

    A broadcast from memory costs x86 no more than a load; one from a register takes the ports that dots need.
    """
    with builder.goto_entry_block():
        memory = builder.alloca(value.type)
        memory.align = 64
    address = builder.ptrtoint(memory, I64)
    store(builder, address, value, 64)
    return address


def pin(builder: ir.IRBuilder, values: Sequence[ir.Value]) -> list[ir.Value]:
    """The same values, one register each, behind an empty assembly statement.

    LLVM cannot look through it, nor move code across. A hot loop keeps the order and the register pressure it was
    written with; without it, LLVM regroups the sums of a tile and spills the weights.
    """
    one = len(values) == 1
    outputs = values[0].type if one else ir.LiteralStructType([value.type for value in values])
    kind = ir.FunctionType(outputs, [value.type for value in values])
    register = _VECTOR_REGISTERS.get(machine.architecture(builder.module.triple), "v")
    constraints = ",".join([f"={register}"] * len(values) + [str(i) for i in range(len(values))] + ["~{memory}"])
    result = builder.call(ir.InlineAsm(kind, "", constraints, side_effect=True), values)
    return [result] if one else [builder.extract_value(result, i) for i in range(len(values))]
