"""The instruction set bodies: one visible table, and the choice of a row for this CPU. Imports no Numba.

Everything LLVM lowers well by itself is written once in `vector`; a body holds the byte dot products. All bodies give
the same bits: the dot products are exact integers and every float operation is spelled out in the shared kernels.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from edgeq.errors import UnsupportedError
from edgeq.simd.machine import host_features as host_features
from edgeq.system import environment

if TYPE_CHECKING:
    from edgeq.simd.body import Body


@dataclass(frozen=True)
class Isa:
    """One instruction set body.

    `module` holds its dot products (`BODY`, see body.py), `needs` the CPU features (LLVM's names) without which it must
    never be compiled, `tile` the tokens that a matmul tile keeps in registers, `registers` the vectors of 16 int32
    that fit in them. `streams`: panels that a matvec reads at once.
    """

    name: str
    module: str
    needs: frozenset[str]
    tile: int
    registers: int
    chips: str
    streams: int = 4

    def body(self) -> "Body":
        """Its dot products. Imports llvmlite."""
        body: Body = import_module(self.module).BODY
        return body


_AVX2 = frozenset({"avx2", "fma", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}

# Best first.
TABLE: tuple[Isa, ...] = (
    Isa(
        "avx512vnni",
        "edgeq.simd.avx512vnni",
        _AVX512 | {"avx512vnni"},
        8,
        32,
        "Intel Cascade Lake, Ice Lake, Sapphire Rapids and later Xeon; AMD Zen 4, Zen 5",
    ),
    Isa("avx512", "edgeq.simd.avx512", _AVX512, 8, 32, "Intel Skylake-X, Skylake-SP"),
    Isa(
        "avxvnni",
        "edgeq.simd.avxvnni",
        _AVX2 | {"avxvnni"},
        4,
        16,
        "Intel Alder Lake, N100 and later",
    ),
    Isa("avx2", "edgeq.simd.avx2", _AVX2, 4, 16, "Intel Haswell to Comet Lake; AMD Zen 1 to Zen 3"),
    Isa(
        "neon_i8mm",
        "edgeq.simd.neon_i8mm",
        frozenset({"neon", "dotprod", "i8mm"}),
        4,
        8,
        "Arm Cortex-A510, A710, X2 and later; Neoverse N2, V1, V2; AWS Graviton 3, 4; Apple M2 and later",
        1,
    ),
    Isa(
        "neon_dotprod",
        "edgeq.simd.neon_dotprod",
        frozenset({"neon", "dotprod"}),
        4,
        8,
        "Arm Cortex-A55, A75, A76 (Raspberry Pi 5), A77, A78, X1; Neoverse N1; AWS Graviton 2; Apple M1",
        1,
    ),
    Isa(
        "neon",
        "edgeq.simd.neon",
        frozenset({"neon"}),
        4,
        8,
        "Arm Cortex-A53 (Raspberry Pi 3), A57, A72 (Raspberry Pi 4), A73",
        1,
    ),
    Isa("portable", "edgeq.simd.portable", frozenset(), 4, 16, "anything that LLVM knows", 1),
)


def available() -> list[Isa]:
    """The bodies that this CPU can run, best first."""
    features = host_features()
    return [isa for isa in TABLE if all(features.get(need) for need in isa.needs)]


def choose() -> Isa:
    """The body to use: the one that EDGEQ_ISA names, else the best this CPU has.

    Raises UnsupportedError for a name that is not in the table or that this CPU cannot run.
    """
    rows, wanted = available(), environment.isa()
    if wanted is None:
        return rows[0]
    for isa in rows:
        if isa.name == wanted:
            return isa
    raise UnsupportedError(f"EDGEQ_ISA={wanted} cannot run here: this CPU has {', '.join(isa.name for isa in rows)}")
