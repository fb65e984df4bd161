"""The CPUs that kernels are built for ahead of time. Imports neither Numba nor llvmlite."""

import platform
from dataclasses import dataclass

from edgeq.errors import UnsupportedError
from edgeq.simd import isa as isa_table


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
