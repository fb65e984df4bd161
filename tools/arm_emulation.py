"""Run edgeq's AArch64 kernels without an ARM machine: kernels compiled here, run in an emulated Python.

    python tools/arm_emulation.py [--cache FOLDER] [--cpu cortex-a72 cortex-a76 max] [--minutes N]

Fetches once, into the cache folder and nowhere else (some 500 MB, no root): qemu's user emulator, Python 3.11 for arm64
from Debian, and PyPI's aarch64 wheels. qemu enforces each CPU's instruction set: `sdot` on a Cortex-A72 is an illegal
instruction. Every kernel that edgeq has is compiled for each CPU, and then

- every result of emulated_results.py must have the same bits as on this machine, in a process that has no Numba: the
  matrix kernels of every type, logits of models of many architectures, with several numbers of threads and splits of
  the prompt, greedy texts, and conversations that this machine has saved and the other one goes on with, drawn at a
  temperature, with their logprobs;
- the tests of the kernels must pass, in a process that may compile nothing;
- kernels of every block type must keep within buffers that end at unmapped pages, on a Raspberry Pi 5's CPU;
- a bundle for a Raspberry Pi 5 must run with the packages that it brings and no others, and say what is said here.

Exit code 1 where a result differs or a test fails, 77 where the parts cannot be fetched. With --minutes it ends by
then, and says what was left out.
"""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import emulation
from emulation import ROOT, Clock, Unavailable, fetch_wheels, output

# qemu's CPU -> the library of kernels for it, and the body that must be chosen there
CPUS = {
    "cortex-a72": ("cortex-a72", "neon"),
    "cortex-a76": ("cortex-a76", "neon_dotprod"),
    "max": ("neoverse-n2", "neon_i8mm"),
}
BOARDS = {"cortex-a76": "pi5"}  # whose bundle is tried
_PLATFORMS = tuple(f"--platform=manylinux{tag}_aarch64" for tag in ("_2_28", "_2_17", "2014"))


# ---- fetching ----

_APT = """Dir::State "{folder}/state";
Dir::State::status "{folder}/none";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Sandbox::User "";
Acquire::Retries "1";
Acquire::http::Timeout "20";
"""
_DEBIAN = {
    "amd64": ("qemu-user-static",),
    "arm64": (
        *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6"),
        *("libexpat1", "zlib1g", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libuuid1", "libsqlite3-0"),
    ),
}
# What a board needs, and what tests need beside it.
_WHEELS = {
    "site": ("numpy", "psutil", "tokenizers", "sentencepiece", "jinja2", "markupsafe"),
    "site-tests": ("numba", "llvmlite", "ml_dtypes", "pytest", "pluggy", "iniconfig", "packaging", "pygments"),
}


def fetch(cache: Path) -> None:
    """Debian's packages into `cache/root`, wheels into `cache/site` and `cache/site-tests`; once."""
    done = cache / "fetched"
    wanted = {folder: [f"{name}=={version(name)}" for name in names] for folder, names in _WHEELS.items()}
    stamp = f"{wanted} {_DEBIAN}"
    if done.is_file() and done.read_text() == stamp:
        return
    for name in ("root", *wanted):
        shutil.rmtree(cache / name, ignore_errors=True)
    for architecture, packages in _DEBIAN.items():
        _debian(cache / f"apt-{architecture}", architecture, packages, cache / "root")
    for emulator in (cache / "root/usr/bin").glob("qemu-*"):
        if emulator.name != "qemu-aarch64-static":
            emulator.unlink()
    for folder, wheels in wanted.items():
        fetch_wheels(wheels, cache / folder, *_PLATFORMS, "--python-version=3.11")
    done.write_text(stamp)


def _debian(folder: Path, architecture: str, packages: tuple[str, ...], root: Path) -> None:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "none").touch()
    (folder / "apt.conf").write_text(_APT.format(folder=folder, architecture=architecture))
    (folder / "sources.list").write_text("deb http://deb.debian.org/debian bookworm main\n")
    apt = ["apt-get", "-c", str(folder / "apt.conf"), "-qq"]
    output([*apt, "update"])
    output([*apt, "download", *packages], cwd=folder)
    root.mkdir(exist_ok=True)
    for package in sorted(folder.glob("*.deb")):
        output(["dpkg", "-x", str(package), str(root)])
    shutil.rmtree(folder)


# ---- running ----


def emulated(
    cache: Path, cpu: str, arguments: list[str], paths: tuple[Path, ...], seconds: float, kernels: Path | None = None
) -> tuple[int, str]:
    """Run the emulated Python with the packages of some folders. Exit code, and what it said on both streams.

    subprocess.TimeoutExpired where it takes longer than `seconds`.
    """
    root = cache / "root"
    environment = {
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths),
        "PYTHONPYCACHEPREFIX": str(cache / "bytecode"),
        "EDGEQ_CACHE": str(cache / "compiled"),
        "EDGEQ_KERNELS": str(kernels or cache / f"kernels-{cpu}"),
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_CPU_NAME": "generic",  # the emulator shows this machine's /proc/cpuinfo
        "NUMBA_CPU_FEATURES": "",
        "PATH": os.environ["PATH"],
        "HOME": str(cache),
    }
    command = [str(root / "usr/bin/qemu-aarch64-static"), "-L", str(root), "-cpu", cpu]
    command += [str(root / "usr/bin/python3.11"), *arguments]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
    )
    return done.returncode, done.stdout.strip()


def run_bundle(cache: Path, cpu: str, clock: Clock) -> tuple[int, str]:
    """`edgeq bundle` for a board; then, in the emulator and with nothing but what is in the bundle, doctor and run.

    Unavailable where its wheels cannot be had.
    """
    folder, packages = cache / "run" / f"bundle-{cpu}", cache / "run" / f"packages-{cpu}"
    model = cache / "run" / "tiny_model-Q4_K_M.eqf"
    said_here = {**os.environ, "PYTHONPATH": str(ROOT), "EDGEQ_KERNELS": str(cache / f"kernels-{cpu}")}
    edgeq = [sys.executable, "-m", "edgeq"]
    bundle = ["bundle", str(model), "--for", BOARDS[cpu], "--python", "3.11", "-o", str(folder)]
    made = subprocess.run([*edgeq, *bundle], env=said_here, capture_output=True, text=True)
    if made.returncode == 2 and "cannot be had" in made.stderr:
        raise Unavailable(made.stderr.strip())
    if made.returncode != 0:
        return 1, made.stderr
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--only-binary=:all:"]
    install += [*_PLATFORMS, "--python-version=3.11", f"--find-links={folder / 'wheels'}", f"--target={packages}"]
    installed = subprocess.run(
        [*install, "-r", str(folder / "requirements.txt")], capture_output=True, text=True, check=False
    )
    if installed.returncode != 0:
        return 1, installed.stderr
    text = ["run", str(folder / model.name), "Once upon a time", "--raw", "-n", "40", "--temp", "0"]
    expected = subprocess.run([*edgeq, *text], env={**said_here, "EDGEQ_KERNELS": ""}, capture_output=True, text=True)
    for arguments in (["doctor", str(folder / model.name)], text):
        command = ["-m", "edgeq", *arguments]
        code, said = emulated(cache, cpu, command, (packages,), clock.left, folder / "kernels")
        if code != 0:
            return code, said
    if said != expected.stdout.strip() or "numba" in (folder / "requirements.txt").read_text():
        return 1, f"the board says {said!r}, this machine {expected.stdout!r}"
    count = len((folder / "requirements.txt").read_text().split())
    return 0, f"{BOARDS[cpu]}'s bundle of {count} packages runs: {said[:48]!r}"


def run(cache: Path, cpus: list[str], clock: Clock) -> int:
    """Compute everything here, then on every emulated CPU. Returns the exit code."""
    fetch(cache)
    emulation.compute_expected(cache / "run")
    paths = (ROOT, ROOT / "tests", cache / "site")

    def checked(cpu: str, kind: str) -> tuple[int, str]:
        if kind == "bundle":
            return run_bundle(cache, cpu, clock)
        if kind == "bits":
            arguments = [str(emulation.RESULTS), "bits", str(cache / "run"), CPUS[cpu][1]]
            return emulated(cache, cpu, arguments, paths, clock.left)
        files = emulation.GUARDED if kind == "guards" else emulation.tests()
        arguments = [str(emulation.RESULTS), "tests", *files]
        return emulated(cache, cpu, arguments, (*paths, cache / "site-tests"), clock.left)

    return emulation.check_all(
        cpus,
        lambda cpu: emulation.build(CPUS[cpu][0], cache / f"kernels-{cpu}"),
        lambda cpu: ("bits", "tests", "guards", "bundle") if cpu in BOARDS else ("bits", "tests"),
        checked,
        clock,
    )


if __name__ == "__main__":
    sys.exit(emulation.main("Run edgeq's AArch64 kernels in an emulator, against this machine's bits.", CPUS, run))
