"""Run edgeq's AArch64 kernels without an ARM machine: kernels compiled here, run in an emulated Python.

    python tools/arm_emulation.py [--cache FOLDER] [--cpu cortex-a72 cortex-a76 max]

Fetches once, into the cache folder and nowhere else (some 400 MB, no root): qemu's user emulator, Python 3.11 for arm64
from Debian, and PyPI's aarch64 wheels. qemu enforces each CPU's instruction set: `sdot` on a Cortex-A72 is an illegal
instruction. Every result must have the same bits as on this machine:

- the matrix kernels, of every type, over shapes with ragged rows and short super-blocks, one token and several;
- the logits of the bundled model, as several types, with 1 to 3 threads and prompts split in several ways;
- its greedy text.

Neither Numba nor a compiler is loaded in the emulated process. Exit code 77 where the parts cannot be fetched.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = 77

# qemu's CPU -> the library of kernels for it, and the body that must be chosen there
CPUS = {
    "cortex-a72": ("cortex-a72", "neon"),
    "cortex-a76": ("cortex-a76", "neon_dotprod"),
    "max": ("neoverse-n2", "neon_i8mm"),
}
MATMULS = ("Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F32", "F16", "BF16")
SHAPES = ((16, 32), (48, 256), (37, 288), (5, 96), (64, 576))
TOKENS = (1, 2, 9)
MODELS = ("Q4_0", "Q4_K_M", "Q6_K", "Q8_0", "F16")
PROMPT = [int(token) for token in np.random.RandomState(3).randint(1, 2048, 37)]
TEXT = "Once upon a time"
SPLITS = ((1, 37), (2, 37), (3, 7), (2, 1))  # threads, tokens of the prompt at once


class Unavailable(Exception):
    """Something cannot be fetched here."""


# ---- fetching ----

_APT = """Dir::State "{folder}/state";
Dir::State::status "{folder}/none";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Sandbox::User "";
"""
_DEBIAN = {
    "amd64": ("qemu-user-static",),
    "arm64": (
        *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6"),
        *("libexpat1", "zlib1g", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libuuid1", "libsqlite3-0"),
    ),
}
_WHEELS = ("numpy", "llvmlite", "numba", "psutil", "tokenizers", "sentencepiece", "jinja2", "markupsafe", "ml_dtypes")
_PURE = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")


def _run(command: list[str], **options: object) -> str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, **options)
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} is not installed here") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or [f"exit code {error.returncode}"]
        raise Unavailable(f"{' '.join(command[:3])}: {lines[-1]}") from error
    return done.stdout


def fetch(cache: Path) -> None:
    """Debian's packages into `cache/root`, wheels into `cache/site`; once."""
    done = cache / "fetched"
    wanted = " ".join(f"{name}=={version(name)}" for name in _WHEELS)
    if done.is_file() and done.read_text() == wanted:
        return
    for name in ("root", "site"):
        shutil.rmtree(cache / name, ignore_errors=True)
    for architecture, packages in _DEBIAN.items():
        _debian(cache / f"apt-{architecture}", architecture, packages, cache / "root")
    for emulator in (cache / "root/usr/bin").glob("qemu-*"):
        if emulator.name != "qemu-aarch64-static":
            emulator.unlink()
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    platforms = [f"--platform=manylinux{tag}_aarch64" for tag in ("_2_28", "_2_17", "2014")]
    target = ["--only-binary=:all:", *platforms, "--python-version=3.11", f"--target={cache / 'site'}"]
    _run([*command, *target, *wanted.split(), *_PURE])
    done.write_text(wanted)


def _debian(folder: Path, architecture: str, packages: tuple[str, ...], root: Path) -> None:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "none").touch()
    (folder / "apt.conf").write_text(_APT.format(folder=folder, architecture=architecture))
    (folder / "sources.list").write_text("deb http://deb.debian.org/debian bookworm main\n")
    apt = ["apt-get", "-c", str(folder / "apt.conf"), "-qq"]
    _run([*apt, "update"])
    _run([*apt, "download", *packages], cwd=folder)
    root.mkdir(exist_ok=True)
    for package in sorted(folder.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(root)])
    shutil.rmtree(folder)


def emulated(cache: Path, cpu: str, arguments: list[str], **options: object) -> subprocess.CompletedProcess:
    """Run the emulated Python."""
    root = cache / "root"
    environment = {
        "PYTHONPATH": os.pathsep.join(str(path) for path in (ROOT, ROOT / "tests", cache / "site")),
        "PYTHONDONTWRITEBYTECODE": "1",
        "EDGEQ_CACHE": str(cache / "compiled"),
        "EDGEQ_KERNELS": str(cache / f"kernels-{cpu}"),
        "OPENBLAS_NUM_THREADS": "1",
        "PATH": os.environ["PATH"],
        "HOME": str(cache),
    }
    command = [str(root / "usr/bin/qemu-aarch64-static"), "-L", str(root), "-cpu", cpu]
    return subprocess.run(
        [*command, str(root / "usr/bin/python3.11"), *arguments], env=environment, text=True, **options
    )


# ---- kernels ----


def build(cache: Path, cpu: str, names: list[str]) -> None:
    """A library of these kernels for an emulated CPU, in the folder where its edgeq looks."""
    from edgeq.kernels import build, catalog

    build.build(catalog.cpu(CPUS[cpu][0]), cache / f"kernels-{cpu}", names)


# ---- what runs on both sides ----


def results(models: dict[str, str]) -> dict[str, np.ndarray]:
    """Everything that must have the same bits, by name."""
    from kernel_calls import BODIES, matmul, random_panels

    from edgeq.kernels import library

    body = next(body for body in BODIES if body.isa == library.chosen_isa())
    found: dict[str, np.ndarray] = {"body": np.array(body.isa.name)}
    for name in MATMULS:
        for rows, columns in SHAPES:
            rng = np.random.default_rng(rows * columns)
            panels = random_panels(rng, name, rows, columns)
            for tokens in TOKENS:
                x = rng.standard_normal((tokens, columns)).astype(np.float32)
                found[f"matmul {name} {rows}x{columns} {tokens}"] = matmul(body, name, panels, rows, x)
    for name, path in models.items():
        found |= _model_results(name, path)
    return found


def _model_results(name: str, path: str) -> dict[str, np.ndarray]:
    import edgeq
    from edgeq.container.reader import open_file
    from edgeq.runtime.session import Session

    found = {}
    with open_file(path) as file:
        for threads, step in SPLITS:
            with Session(file, context=64, threads=threads) as session:
                parts = [session.eval(PROMPT[i : i + step], all_logits=True) for i in range(0, len(PROMPT), step)]
            found[f"logits {name} threads={threads} step={step}"] = np.concatenate(parts)
    with edgeq.load(path, threads=2) as model:
        text = "".join(model.generate(TEXT, max_tokens=40, temperature=0.0))
    found[f"text {name}"] = np.frombuffer(text.encode(), np.uint8)
    return found


def inside(expected_path: str, body: str, models: dict[str, str]) -> int:
    """The emulated process: compare with what this machine found. Returns the number of differences."""
    expected, wrong = np.load(expected_path), 0
    found = results(models)
    if str(found["body"]) != body:
        print(f"the body {found['body']} was chosen, not {body}")
        wrong += 1
    for name, value in found.items():
        if name != "body" and not np.array_equal(value.view(np.uint8), expected[name].view(np.uint8)):
            print(f"DIFFERS: {name}")
            wrong += 1
    if "numba" in sys.modules:
        print("Numba was imported")
        wrong += 1
    print(f"{len(found) - 1 - wrong} results have the same bits, {wrong} differ; greedy text: ", end="")
    print(repr(bytes(found[f"text {next(iter(models))}"]).decode()))
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run edgeq's AArch64 kernels in an emulator, against this machine's bits."
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "arm_emulation", help="where the parts are kept")
    parser.add_argument("--cpu", nargs="*", default=list(CPUS), choices=list(CPUS))
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    models = {name: str(cache / f"tiny-{name}.eqf") for name in MODELS}
    if arguments.inside:
        expected, body, _ = arguments.inside
        return 1 if inside(expected, body, models) else 0
    cache.mkdir(parents=True, exist_ok=True)
    try:
        fetch(cache)
    except Unavailable as error:
        print(f"arm_emulation: skipped: {error}")
        return SKIPPED
    return compare(cache, arguments.cpu, models)


def compare(cache: Path, cpus: list[str], models: dict[str, str]) -> int:
    """Compute everything here, then on every emulated CPU. Returns the exit code."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from edgeq.kernels import library
    from edgeq.quantize.pipeline import convert

    asked: dict[str, None] = {}
    kernel = library.kernel

    def noted(name: str, *rest: object) -> library.Kernel:
        asked[name] = None
        return kernel(name, *rest)

    for name, path in models.items():
        convert(ROOT / "tools" / "tiny_model", path, name)
    library.kernel = noted
    expected = cache / "expected.npz"
    np.savez(expected, **results(models))
    failed = []
    for cpu in cpus:
        started = time.perf_counter()
        build(cache, cpu, list(asked))
        built = time.perf_counter()
        script = [str(Path(__file__)), "--cache", str(cache), "--inside", str(expected), CPUS[cpu][1], cpu]
        code = emulated(cache, cpu, script).returncode
        print(f"{cpu}: kernels {built - started:.0f} s, emulated {time.perf_counter() - built:.0f} s, exit code {code}")
        if code != 0:
            failed.append(cpu)
    print(f"arm_emulation: {'failed on ' + ', '.join(failed) if failed else 'every result has the same bits'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
