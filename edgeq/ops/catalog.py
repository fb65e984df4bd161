"""Every kernel that the engine can ask for, by name, and the CPUs that they are built for ahead of time.

Imports neither Numba nor llvmlite.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeq import ops
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.errors import UnsupportedError
from edgeq.kernels.layout import heads_per_tile
from edgeq.simd import isa as isa_table

WITHOUT_VARIANTS = ("copy_rows", "head_norm", "layer_norm", "pack", "positions", "short_conv", "silu_mul")

# Of models that many people run: block types, those that GGUF's recipes fall back to among them, and how many query
# heads share a key/value head.
COMMON_TYPES = ("F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K", "Q5_K", "Q6_K")
COMMON_GROUPS = (1, 2, 3, 4, 6, 7, 8)


def variants(isa: isa_table.Isa) -> dict[str, list[str]]:
    """The variants of every family of kernels: to run a model of any shape, to convert one, to measure the machine."""
    return {
        **{family: list(of(isa)) for family, of in ops.kernels().items()},
        "encode": [name for name, bt in BLOCK_TYPES.items() if bt.quantized],
        "rearrange": ["to-panels", "to-blocks"],
        "execute": ["publish", "lead", "serve"],
        "probe": ["read", "dot-4", "dot-5", "dot-6", "dot-8"],
    }


def names(isa: isa_table.Isa) -> list[str]:
    """Every kernel, as `family:variant`."""
    return _names(variants(isa))


def _names(found: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{family}:{variant}".rstrip(":") for family, variants in found.items() for variant in variants]


def common(isa: isa_table.Isa) -> list[str]:
    """The kernels of common models: these are compiled where edgeq is installed, so it must not take long.

    They run most of what is not a mixture of experts, over a KV cache of f16, import a GGUF file, and measure the
    machine.
    """
    every = variants(isa)
    tiles = {heads_per_tile(group, 1, isa.tile) for group in COMMON_GROUPS}
    chosen = {
        "matmul": COMMON_TYPES,
        "embedding": COMMON_TYPES,
        "attention": [f"{heads}-f16" for heads in sorted(tiles)],
        "rope": ("f16",),
        "activation": ("gelu", "gelu-mul", "gelu_tanh", "gelu_tanh-mul"),
        "rearrange": ("to-panels",),
        "probe": ("read", "dot-4"),
        **{family: every[family] for family in ("norm", "elementwise", "execute", *WITHOUT_VARIANTS)},
    }
    return _names({family: chosen[family] for family in every if family in chosen})


@dataclass(frozen=True)
class Cpu:
    """A CPU that a library of kernels is built for.

    `llvm` and `features` tell LLVM what to make code for, `needs` what a CPU must have for that code to run.
    """

    name: str
    architecture: str
    llvm: str
    features: str
    needs: frozenset[str]
    chips: str

    @property
    def triple(self) -> str:
        return f"{self.architecture}-unknown-linux-gnu"

    @property
    def isa(self) -> isa_table.Isa:
        """The best body that it can run."""
        return next(isa for isa in isa_table.TABLE if isa.needs <= self.needs)


# The levels of the x86-64 psABI, by LLVM's names of features (what an operating system alone uses is left out).
_V2 = frozenset({"cx16", "popcnt", "sahf", "sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_A72 = frozenset({"neon"})
_A76 = _A72 | {"dotprod", "fullfp16", "lse"}
_N2 = _A76 | {"bf16", "i8mm"}


def _arm(name: str, needs: frozenset[str], chips: str) -> Cpu:
    """`name` decides how instructions are scheduled; none beyond `needs` may be used, scalable vectors least of all."""
    features = ",".join([*(f"+{feature}" for feature in sorted(needs)), "-rcpc", "-sve"])
    return Cpu(name, "aarch64", name, features, needs, chips)


CPUS: tuple[Cpu, ...] = (
    Cpu("x86-64-v3", "x86_64", "x86-64-v3", "", _V3, "Intel Haswell and later; AMD Zen and later"),
    Cpu(
        "x86-64-v3-vnni",
        "x86_64",
        "x86-64-v3",
        "+avxvnni",
        _V3 | {"avxvnni"},
        "Intel Alder Lake, N100 and later; AMD Zen 5",
    ),
    Cpu("x86-64-v4", "x86_64", "x86-64-v4", "", _V4, "Intel Skylake-X and later Xeon"),
    Cpu(
        "x86-64-v4-vnni",
        "x86_64",
        "x86-64-v4",
        "+avx512vnni",
        _V4 | {"avx512vnni"},
        "Intel Cascade Lake and later Xeon; AMD Zen 4 and later",
    ),
    _arm("cortex-a72", _A72, "Raspberry Pi 4; every 64-bit Arm"),
    _arm("cortex-a76", _A76, "Raspberry Pi 5; AWS Graviton 2; Apple M1"),
    _arm("neoverse-n2", _N2, "Cortex-A510, A710 and later; AWS Graviton 3, 4; Apple M2 and later"),
)


def cpu(name: str) -> Cpu:
    """The row of CPUS with this name. UnsupportedError if there is none."""
    for row in CPUS:
        if row.name == name:
            return row
    raise UnsupportedError(f"kernels cannot be built for {name!r}: choose among {', '.join(row.name for row in CPUS)}")


def this_cpu() -> Cpu:
    """The best row of CPUS that this machine can run. UnsupportedError if it can run none."""
    features = isa_table.host_features()
    fitting = [row for row in CPUS if row.architecture == platform.machine() and all(map(features.get, row.needs))]
    if not fitting:
        raise UnsupportedError("this CPU is none that kernels are built for: name one with --cpu (see --cpu help)")
    return max(fitting, key=lambda row: len(row.needs))
