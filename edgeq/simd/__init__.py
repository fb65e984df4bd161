"""SIMD as values in Python: vector and tile types for Numba, and the operations on them.

`types` names the vector and tile types, `memory` loads and stores scalars at addresses, `vector` holds what LLVM
lowers by itself on every CPU, `isa` is the visible table of instruction set bodies, and one file per body
(`avx512vnni`, `avxvnni`, `avx2`, `neon` and so on) holds the byte dot products that LLVM cannot find alone.
"""
