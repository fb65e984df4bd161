"""SIMD as values in Python: vector and tile types for Numba, and the operations on them.

`types` names the vector and tile types, `memory` loads and stores scalars at addresses, `vector` holds what LLVM
lowers by itself on every CPU, and `architecture` the few single operations that x86 and AArch64 do their own way. `isa`
is the visible table of instruction set bodies, `body` says what a body promises, and one file per body (`avx512vnni`,
`avx2`, `neon` and so on) holds the byte dot products that LLVM cannot find alone; `intrinsics` names the instructions.
"""
