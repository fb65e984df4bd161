"""Run edgeq's kernels for x86 CPUs that this machine is not: AVX-512 with and without VNNI, and AVX-VNNI.

    python tools/x86_emulation.py [--cache FOLDER] [--cpu skylake-x icelake arrowlake] [--minutes N]

Fetches once, into the cache folder and nowhere else (6 MB, no root), Bochs' CPU as the Python package bochscpu. Every
kernel that edgeq has is compiled for each CPU, and every call of one runs on the emulated CPU, which has the features
that its CPUID tells and no others (see bochs.py). Then, as arm_emulation.py does for ARM,

- every result of emulated_results.py must have the same bits as on this machine: the matrix kernels of every type,
  logits of models of many architectures, with several numbers of threads and splits of the prompt, and greedy texts;
- the tests of the kernels must pass, in a process that may compile nothing.

Only kernels are emulated: Python and NumPy run as they do. Exit code 1 where a result differs or a test fails, 77 where
the package cannot be fetched. With --minutes it ends by then, and says what was left out.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import emulation
from emulation import ROOT, Clock, Unavailable

# Bochs' CPU -> the library of kernels for it, and the body that must be chosen there
CPUS = {
    "skylake-x": ("x86-64-v4", "avx512"),
    "icelake": ("x86-64-v4-vnni", "avx512vnni"),
    "arrowlake": ("x86-64-v3-vnni", "avxvnni"),
}
PACKAGE = "bochscpu-python==0.4.0"  # older ones round some f16 wrongly
# What its shared library asks of glibc 2.38 does the same as what older ones have under these names.
_SYMBOLS = {b"\0__isoc23_strtoull\0": b"\0strtoull\0", b"\0__isoc23_sscanf\0": b"\0sscanf\0"}


def fetch(cache: Path) -> None:
    """The package into `cache/bochs`, once."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise Unavailable("kernels for x86 can be mapped on Linux on x86-64 alone")
    done, stamp = cache / "fetched", f"{PACKAGE} {sys.implementation.cache_tag}"
    if not done.is_file() or done.read_text() != stamp:
        shutil.rmtree(cache / "bochs", ignore_errors=True)
        emulation.fetch_wheels([PACKAGE], cache / "bochs")
        for path in (cache / "bochs").glob("bochscpu/*.so"):
            content = path.read_bytes()
            for name, older in _SYMBOLS.items():
                content = content.replace(name, older.ljust(len(name), b"\0"))
            path.write_bytes(content)
        done.write_text(stamp)


def emulated(cache: Path, cpu: str, arguments: list[str], seconds: float) -> tuple[int, str]:
    """Run a script whose kernels run on an emulated CPU. Exit code, and what it said on both streams.

    subprocess.TimeoutExpired where it takes longer than `seconds`.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
        "EDGEQ_CACHE": str(cache / "compiled"),
        "EDGEQ_ISA": "",
        "EDGEQ_KERNELS": str(cache / f"kernels-{cpu}"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, str(ROOT / "tools" / "bochs.py"), cpu, str(cache / "bochs"), *arguments]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
    )
    return done.returncode, done.stdout.strip()


def run(cache: Path, cpus: list[str], clock: Clock) -> int:
    """Compute everything here, then on every emulated CPU. Returns the exit code."""
    fetch(cache)
    emulation.compute_expected(cache / "run")

    def prepare(cpu: str) -> str:
        built = emulation.build(CPUS[cpu][0], cache / f"kernels-{cpu}")
        _, features = emulated(cache, cpu, [], clock.left)
        return f"{built}\n{cpu}: {features}"

    def checked(cpu: str, kind: str) -> tuple[int, str]:
        if kind == "bits":
            arguments = [str(emulation.RESULTS), "bits", str(cache / "run"), CPUS[cpu][1]]
        else:
            arguments = [str(emulation.RESULTS), "tests", *emulation.tests()]
        return emulated(cache, cpu, arguments, clock.left)

    return emulation.check_all(cpus, prepare, lambda cpu: ("bits", "tests"), checked, clock)


if __name__ == "__main__":
    sys.exit(emulation.main("Run edgeq's kernels on emulated x86 CPUs, against this machine's bits.", CPUS, run))
