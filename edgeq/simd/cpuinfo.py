"""What this machine's CPU is and can do, as Linux tells it. Imports neither Numba nor llvmlite.

LLVM's own detection costs the loading of LLVM, which a process with compiled kernels never needs otherwise.
"""

import functools
from pathlib import Path

# Linux's names of x86 features (arch/x86/include/asm/cpufeatures.h) that LLVM calls otherwise
_LLVM_NAMES = {
    "abm": "lzcnt",
    "avx512_bf16": "avx512bf16",
    "avx512_vnni": "avx512vnni",
    "avx512_vbmi2": "avx512vbmi2",
    "avx_vnni": "avxvnni",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "bmi1": "bmi",
    "lahf_lm": "sahf",
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
}
# Those that kernels may need, by Linux's names
_X86 = (
    *("avx", "avx2", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", "avx512vbmi", "bmi2", "cx16", "f16c"),
    *("fma", "gfni", "movbe", "popcnt", "sse", "sse2", "ssse3", *_LLVM_NAMES),
)


@functools.cache
def _processors() -> list[dict[str, str]]:
    """/proc/cpuinfo: a dict for each processor; none where the system has no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [
        {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())}
        for block in text.split("\n\n")
        if block.strip()
    ]


def x86_features() -> dict[str, bool] | None:
    """The features of an x86 CPU that kernels may need, by LLVM's names; None where the system does not tell them."""
    flags = set(next((row["flags"] for row in _processors() if "flags" in row), "").split())
    if not flags:
        return None
    return {_LLVM_NAMES.get(name, name): name in flags for name in _X86}


def identity() -> str:
    """What LLVM tells CPUs apart by: vendor, family and model, or the cores' implementers and parts. May be empty."""
    fields = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
    return ";".join(sorted({",".join(row[f] for f in fields if f in row) for row in _processors()}))
