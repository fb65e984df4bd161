#!/usr/bin/env python3
"""Make edgeq's wheel with compiled kernels in it: where it is installed, nothing is compiled at the first run.

    python tools/make_wheel.py [--cpu x86-64-v3,cortex-a76] [--kernels build/kernels] [-o dist]

One wheel serves every system: it holds a library of kernels for each CPU, by default for all that `edgeq kernels build
--cpu help` names, and a machine takes the one that fits (formats/kernels.md). Libraries that were built from these very
sources are taken from the folder of kernels as they are; the others are built there first, some two minutes each.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from edgeq.cli.units import binary_size
from edgeq.errors import EdgeqError, KernelError, OutputError
from edgeq.kernels import catalog, image
from edgeq.kernels.build import build
from edgeq.kernels.prebuilt import PACKAGED, SUFFIX
from edgeq.kernels.sources import sources

ROOT = Path(__file__).resolve().parent.parent


def library(cpu: catalog.Cpu, folder: Path) -> Path:
    """The library of kernels for `cpu` in `folder`, built now unless it is there, sound and whole."""
    path, names = folder / f"{cpu.name}{SUFFIX}", catalog.names(cpu.isa)
    try:
        header, _ = image.read(path)
        if header.sources == sources() and header.cpu == cpu.name and header.kernels.keys() >= set(names):
            return path
    except KernelError:  # not there, or damaged
        pass
    print(f"compiling {len(names)} kernels for {cpu.name}", flush=True)
    return build(cpu, folder)


def make_wheel(libraries: list[Path], out: Path) -> Path:
    """A wheel of this source tree with `libraries` in it, in the folder `out`; its path. Raises OutputError."""
    with tempfile.TemporaryDirectory() as temporary:
        tree, built = Path(temporary) / "tree", Path(temporary) / "built"
        shutil.copytree(ROOT / "edgeq", tree / "edgeq", ignore=shutil.ignore_patterns("__pycache__", PACKAGED.name))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / name, tree / name)
        packaged = tree / PACKAGED.relative_to(ROOT)
        packaged.mkdir()
        for path in libraries:
            shutil.copyfile(path, packaged / path.name)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(tree)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            reasons = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["pip failed"]
            raise OutputError(f"{out}: no wheel was made: {reasons[-1].removeprefix('ERROR: ')}")
        wheel = next(built.iterdir())
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(wheel, out / wheel.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", help="CPUs, separated by commas (default: all)")
    parser.add_argument("--kernels", type=Path, default=ROOT / "build" / "kernels", help="folder of libraries")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist", help="folder of the wheel")
    arguments = parser.parse_args()
    try:
        cpus = [catalog.cpu(name) for name in arguments.cpu.split(",")] if arguments.cpu else catalog.CPUS
        libraries = [library(cpu, arguments.kernels) for cpu in cpus]
        wheel = make_wheel(libraries, arguments.output)
    except EdgeqError as error:
        print(f"make_wheel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"{wheel}: {binary_size(wheel.stat().st_size)}, kernels for {', '.join(cpu.name for cpu in cpus)}")


if __name__ == "__main__":
    main()
