"""The CPU that code is made for: this one, or any other that LLVM knows. Imports no Numba.

LLVM takes what it is told: a feature that the CPU lacks is an illegal instruction later, an intrinsic whose feature is
missing aborts the process, and so does a name of an AArch64 CPU that it does not know. All of it is decided here.
"""

import ctypes
import functools
import platform
import sys
from dataclasses import dataclass

from edgeq.errors import UnsupportedError
from edgeq.simd import cpuinfo

AARCH64 = "aarch64-unknown-linux-gnu"

# Systems' names of the same architecture in triples
_SYNONYMS = {"arm64": "aarch64", "amd64": "x86_64"}

# What LLVM may be told of an AArch64 CPU: the features that kernels can use.
_V8, _DOTPROD = "+neon", "+neon,+dotprod,+fullfp16,+lse"
_I8MM = _DOTPROD + ",+i8mm,+bf16"
AARCH64_CPUS = {
    **dict.fromkeys(("generic", "cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a73"), _V8),
    **dict.fromkeys(("cortex-a55", "cortex-a75", "cortex-a76", "cortex-a77", "cortex-a78", "cortex-a78c"), _DOTPROD),
    **dict.fromkeys(("cortex-x1", "neoverse-n1", "apple-m1"), _DOTPROD),
    **dict.fromkeys(("cortex-a510", "cortex-a520", "cortex-a710", "cortex-a715", "cortex-a720", "cortex-x2"), _I8MM),
    **dict.fromkeys(("cortex-x3", "cortex-x4", "neoverse-n2", "neoverse-v1", "neoverse-v2", "apple-m2"), _I8MM),
}

# getauxval(3): the two words of hardware capabilities, and the bits of Linux's asm/hwcap.h for AArch64
_HWCAP, _HWCAP2 = 16, 26
_AARCH64_BITS = {
    "neon": (_HWCAP, 1),
    "lse": (_HWCAP, 8),
    "fullfp16": (_HWCAP, 10),
    "dotprod": (_HWCAP, 20),
    "i8mm": (_HWCAP2, 13),
    "bf16": (_HWCAP2, 14),
}


@dataclass(frozen=True)
class Machine:
    """A code generator's target, in LLVM's words: triple, CPU name, and features as `+this,-that`."""

    triple: str
    cpu: str
    features: str

    @property
    def has(self) -> frozenset[str]:
        """The features that are there."""
        return frozenset(name[1:] for name in self.features.split(",") if name.startswith("+"))

    @property
    def tuned_features(self) -> str:
        """The features, and what LLVM is not to choose by itself, as a code generator takes them.

        It makes gathers and scatters of strided loops where a CPU has them: slower than loads and stores on AMD's, and
        on Intel's where the microcode guards them (Downfall).
        """
        tuning = "" if is_aarch64(self.triple) else ",+prefer-no-gather,+prefer-no-scatter"
        return (self.features + tuning).removeprefix(",")


def architecture(triple: str) -> str:
    """`x86_64`, `aarch64`, or what else a triple begins with."""
    name = triple.partition("-")[0]
    return _SYNONYMS.get(name, name)


def is_aarch64(triple: str) -> bool:
    return architecture(triple) == "aarch64"


def check_64_bit() -> None:
    """Raises UnsupportedError on a 32-bit system: there are no wheels of the compiler for it."""
    if sys.maxsize < 2**32:
        raise UnsupportedError(
            f"this is a 32-bit Python on {platform.machine()}: edgeq needs a 64-bit system (aarch64 or x86_64)"
        )


@functools.cache
def host_features() -> dict[str, bool]:
    """CPU features by LLVM's names, as this machine has them."""
    check_64_bit()
    if platform.machine().lower() in ("aarch64", "arm64"):
        return _aarch64_features()
    if known := cpuinfo.x86_features():
        return known
    import llvmlite.binding as llvm

    return dict(llvm.get_host_cpu_features())


def _aarch64_features() -> dict[str, bool]:
    """From the kernel: LLVM's own detection never lists dotprod or i8mm."""
    if sys.platform == "darwin":  # every Mac of this architecture has them
        return dict.fromkeys(("neon", "lse", "fullfp16", "dotprod"), True)
    if sys.platform != "linux":  # nothing here knows how the system tells: what every 64-bit Arm has
        return {"neon": True}
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return {name: bool(getauxval(word) >> bit & 1) for name, (word, bit) in _AARCH64_BITS.items()}


def host() -> Machine:
    """This machine. An AArch64 CPU that is not in the list is `generic` with the features it has."""
    import llvmlite.binding as llvm

    triple, cpu = llvm.get_process_triple(), llvm.get_host_cpu_name()
    features = host_features() if is_aarch64(triple) else llvm.get_host_cpu_features()
    if is_aarch64(triple) and cpu not in AARCH64_CPUS:
        cpu = "generic"
    return Machine(triple, cpu, ",".join(f"{'+' if there else '-'}{name}" for name, there in sorted(features.items())))


def machine(cpu: str | None = None, features: str | None = None, triple: str | None = None) -> Machine:
    """The machine that LLVM calls `cpu`, or this one.

    `triple` is taken from the CPU's name where it is not given, `features` (`+this,-that`) from the table of AArch64
    CPUs; an x86-64 name implies its own. Raises UnsupportedError for an AArch64 name that is not in the table.
    """
    if cpu is None:
        here = host()
        return Machine(triple or here.triple, here.cpu, here.features if features is None else features)
    import llvmlite.binding as llvm

    if triple is None:
        triple = AARCH64 if cpu in AARCH64_CPUS else llvm.get_process_triple()
    if is_aarch64(triple):
        if cpu not in AARCH64_CPUS:
            raise UnsupportedError(f"unknown AArch64 CPU {cpu}: choose one of {', '.join(sorted(AARCH64_CPUS))}")
        features = AARCH64_CPUS[cpu] if features is None else features
    return Machine(triple, cpu, features or "")
