"""`edgeq bundle`: a folder with everything that a board needs to run a model without a network."""

import base64
import csv
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

import click

from edgeq.cli.announcer import Announcer
from edgeq.cli.bundle_texts import word, write_texts
from edgeq.cli.options import made_runnable
from edgeq.cli.units import binary_size
from edgeq.errors import OutputError, UsageError
from edgeq.system import environment
from edgeq.system.output import temporary_folder


@dataclass(frozen=True)
class Board:
    """What is known of a target: the machine that `uname -m` tells, its usual Python, and its CPU.

    cpus: names of toolchain/cpus.py; where it may have one of several, first that whose kernels run on all
    """

    title: str
    cpus: tuple[str, ...]
    machine: str
    python: str


BOARDS = {
    "pi5": Board("Raspberry Pi 5 (Cortex-A76)", ("cortex-a76",), "aarch64", "3.13"),
    "pi4": Board("Raspberry Pi 4 (Cortex-A72)", ("cortex-a72",), "aarch64", "3.13"),
    "generic-arm64": Board("any 64-bit ARM board", ("cortex-a72", "cortex-a76", "neoverse-n2"), "aarch64", "3.13"),
    "x86-64-v3": Board("x86-64 with AVX2, from 2013 on", ("x86-64-v3",), "x86_64", "3.13"),
}

# pip takes tags as they are: a wheel for an older C library is found only if its tag is listed too.
GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_24", "manylinux_2_17", "manylinux2014")
COMPILER = frozenset({"numba", "llvmlite"})  # not needed where the kernels come compiled
CONVERTING = frozenset({"ml-dtypes", "huggingface-hub"})  # not needed to run what is converted
TOKENIZERS = {  # a model needs the first it has
    "tokenizer.json": "tokenizers",
    "tokenizer.model": "sentencepiece",
    "spm.model": "tokenizers",
    "vocab.txt": "tokenizers",
}

WRITTEN_BY_INSTALLERS = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "RECORD"})

OWN_NAMES = frozenset(
    {"check", "install", "serve", "settings", "requirements.txt", "README.txt", "wheels", "kernels", "venv"}
)


@click.command("bundle")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--for", "board", type=click.Choice(list(BOARDS)), required=True, help="The board that it is for.")
@click.option(
    "-o", "--output", "--out", "out", type=click.Path(path_type=Path), required=True, help="The folder to make."
)
@click.option("--python", "version", help="Python on the board; Raspberry Pi OS 12 has 3.11.  [default: 3.13]")
@click.option("--no-wheels", is_flag=True, help="Leave Python packages out: edgeq is installed there already.")
@click.option(
    "--edgeq-wheel",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="edgeq's own wheel.  [default: made of the edgeq that runs]",
)
@click.option(
    "--all-kernels", is_flag=True, help="Every kernel: for other models too, and to convert and import on the board."
)
@click.option(
    "--serve", "server", is_flag=True, help="Add what `edgeq serve` needs, and a script that serves the model."
)
def command(
    model: Path,
    board: str,
    out: Path,
    version: str | None,
    no_wheels: bool,
    edgeq_wheel: Path | None,
    all_kernels: bool,
    server: bool,
) -> None:
    """Make a folder with MODEL, whatever edgeq runs, and what a board needs to run it without a network.

    It holds the model (a hard link where the disk allows it), wheels of edgeq and of what it needs, kernels
    compiled for the board, a README and a script that sets up and checks the board. The kernels are those that MODEL
    needs, whatever the options. Ended half-way it leaves no folder, and begun again it goes on where it was.
    """
    target = BOARDS[board]
    python = _python_version(version or target.python)
    if no_wheels and edgeq_wheel is not None:
        raise UsageError("--edgeq-wheel names a wheel, and --no-wheels leaves all out: give one of them")
    if os.path.lexists(out):
        raise UsageError(f"{out}: exists already: remove it, or choose another folder")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"{out}: the folder {out.absolute().parent} does not exist: make it first")
    file = made_runnable(model)
    name = model.name if file == model else f"{named_after(model)}.eqf"
    size = make(file, target, out, None if no_wheels else python, edgeq_wheel, all_kernels, name, server)
    click.echo(f"{out}: {binary_size(size)} for {target.title}; copy it there and run: sh {word(out.name)}/check")


def named_after(source: Path) -> str:
    """What a file is called that was made of `source`: "m" for m.gguf, for a folder m and for owner/m:Q8_0."""
    name = source.name if source.exists() else source.name.partition(":")[0]
    return name.removesuffix(".gguf").removesuffix(".safetensors") or "model"


def make(
    model: Path,
    board: Board,
    out: Path,
    python: str | None,
    edgeq_wheel: Path | None = None,
    all_kernels: bool = False,
    name: str | None = None,
    server: bool = False,
) -> int:
    """Write the bundle; its bytes. `python` is the version on the board; None leaves the wheels out. The model's file
    is called `name` there, by default as it is here. `server` adds what `edgeq serve` needs, and a script for it.

    Raises FormatError for a model that is none, is damaged or cannot be run, UsageError for one whose name the bundle
    needs and for what is no wheel of edgeq, OutputError where wheels cannot be had or the folder not be written; then
    nothing is left behind.
    """
    from edgeq.runtime.kernel_state import put_library

    name = name or model.name
    if name in OWN_NAMES:
        raise UsageError(f"{model}: a bundle has a file of that name itself: rename the model, to {name}.eqf say")
    if edgeq_wheel is not None:
        _check_own(edgeq_wheel)
    tokenizer, names, sees = _examine(model, board.cpus)
    extras = [extra for extra, wanted in (("serve", server), ("vision", sees)) if wanted]
    unneeded = CONVERTING | (set(TOKENIZERS.values()) - {tokenizer})
    libraries = {cpu: put_library(cpu, None if all_kernels else names[cpu]) for cpu in board.cpus}
    compiled = libraries[board.cpus[0]] is not None
    try:
        with temporary_folder(out.absolute()) as temporary:
            folder = temporary / out.name
            folder.mkdir()
            _link(model, folder / name)
            if python is not None:  # before kernels are compiled, which takes minutes: wheels fail at once
                unneeded |= COMPILER if compiled else frozenset()
                add_wheels(folder, board, python, edgeq_wheel, unneeded, extras)
            cpus = add_kernels(folder / "kernels", libraries)
            write_texts(folder, board.title, board.machine, name, python, cpus, compiled, server)
            size = sum(_flush(path) for path in folder.rglob("*") if path.is_file())
            os.rename(folder, out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror or error}") from error
    return size


def _examine(model: Path, cpus: Sequence[str]) -> tuple[str | None, dict[str, list[str]], bool]:
    """The package of the model's tokenizer, the kernels it needs on each CPU, and whether it sees images.

    Raises FormatError where a byte of the model is not what it should be, and for what cannot be run.
    """
    from edgeq.container.reader import open_file
    from edgeq.models.image_tower import is_of_images
    from edgeq.runtime.kernel_state import needed

    with open_file(model) as file:
        file.verify()
        tokenizer = next((package for asset, package in TOKENIZERS.items() if asset in file.assets), None)
        return tokenizer, {cpu: needed(file, cpu) for cpu in cpus}, any(map(is_of_images, file.tensors))


def add_kernels(folder: Path, libraries: Mapping[str, Callable[..., Path] | None]) -> list[str]:
    """Put kernels for CPUs into `folder`, with what puts them there or None; the CPUs whose kernels are there now."""
    announce = Announcer(long=True)
    least = next(iter(libraries))
    if lacking := [cpu for cpu, put in libraries.items() if put is None]:
        instead = "compiles its kernels itself, which takes a while and needs Numba there"
        if least not in lacking:
            instead = f"runs those for {least}, which are slower"
        announce(f"no kernels for {', '.join(lacking)} are here, and no Numba to compile any: such a board {instead}")
    for put in libraries.values():
        if put is not None:
            put(folder, announce, announce.progress)
    return [cpu for cpu in libraries if cpu not in lacking]


def _python_version(text: str) -> str:
    match = re.fullmatch(r"3\.(\d+)", text)
    if match is None or int(match[1]) < 11:
        raise UsageError(f"--python is {text!r}: give a version from 3.11 on, like 3.13")
    return text


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy on another disk."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _flush(path: Path) -> int:
    """Make sure that a file is on the disk before the bundle gets its name; its bytes."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


# ---- wheels ----


def add_wheels(
    folder: Path, board: Board, python: str, edgeq_wheel: Path | None, unneeded: Set[str], extras: Sequence[str] = ()
) -> None:
    """wheels/ with edgeq and what it needs on the board, and requirements.txt with their versions; with what these
    extras of edgeq's need.

    Raises OutputError where pip cannot make or download them.
    """
    wheels = folder / "wheels"
    wheels.mkdir()
    if edgeq_wheel is not None:
        own = wheels / edgeq_wheel.name
        shutil.copyfile(edgeq_wheel, own)
    else:
        own = _build(wheels)
    needs = [need for need in requirements(own, extras) if _name(need) not in unneeded]
    tags = [argument for glibc in GLIBC for argument in ("--platform", f"{glibc}_{board.machine}")]
    download = ["download", "--dest", str(wheels), "--only-binary=:all:", "--implementation", "cp"]
    _pip([*download, "--python-version", python, *tags, *needs], f"wheels for {board.machine} and Python {python}")
    _prune(wheels, unneeded, extras)
    pins = sorted(pinned(path) for path in wheels.glob("*.whl"))
    (folder / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")


def _prune(wheels: Path, unneeded: Set[str], extras: Sequence[str]) -> None:
    """Remove the wheels that only `unneeded` packages need, and those: pip cannot be told to leave out a dependency."""
    found = {_name(pinned(path)): path for path in wheels.glob("*.whl")}
    waiting, kept = ["edgeq"], set[str]()
    while waiting:
        name = waiting.pop()
        if name in found and name not in kept and name not in unneeded:
            kept.add(name)
            waiting += map(_name, requirements(found[name], extras if name == "edgeq" else ()))
    for name in found.keys() - kept:
        found[name].unlink()


def _check_own(wheel: Path) -> None:
    """Raises UsageError for what is no wheel of edgeq."""
    if not fnmatch.fnmatchcase(wheel.name, "edgeq-*-*-*-*.whl"):
        raise UsageError(
            f"{wheel}: is no wheel of edgeq: give one that `pip wheel` made, edgeq-VERSION-py3-none-any.whl"
        )
    requirements(wheel)


def requirements(wheel: Path, extras: Sequence[str] = ()) -> list[str]:
    """What a wheel depends on, with these of its extras. Raises UsageError for a file that is no wheel."""
    try:
        with zipfile.ZipFile(wheel) as content:
            name = next(name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
            metadata = HeaderParser().parsestr(content.read(name).decode())
    except (OSError, zipfile.BadZipFile, StopIteration, UnicodeDecodeError) as error:
        raise UsageError(f"{wheel}: is no wheel: give one that `pip wheel` made") from error
    needs = metadata.get_all("Requires-Dist") or []
    of_extras = re.compile(rf";\s*extra == ['\"]({'|'.join(extras)})['\"]\s*$")
    return [of_extras.sub("", need) for need in needs if "extra ==" not in need or of_extras.search(need)]


def pinned(wheel: Path) -> str:
    """ "numpy-2.4.0-cp313-cp313-manylinux.whl" -> "numpy==2.4.0"."""
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version}"


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _build(wheels: Path) -> Path:
    """edgeq's own wheel, from the source tree that runs or, where there is none, from what is installed."""
    import edgeq

    tree = Path(edgeq.__file__).resolve().parent.parent
    if not (tree / "pyproject.toml").is_file():
        return _pack(tree, wheels)
    without = environment.of_child(EDGEQ_BUILD_KERNELS="none")  # those of this machine's CPU are of no use there
    _pip(["wheel", "--no-deps", "--wheel-dir", str(wheels), str(tree)], "edgeq's own wheel", without)
    return next(wheels.glob("edgeq-*.whl"))


def _pack(site: Path, wheels: Path) -> Path:
    """The wheel that edgeq was installed from into `site`, made again of its files; compiled kernels stay out.

    Raises UsageError where no installer left a list of them, or not all are there.
    """
    from importlib.metadata import distributions

    record = ""
    try:
        installed = next(iter(distributions(name="edgeq", path=[str(site)])))
        rows = csv.reader((installed.read_text("RECORD") or "").splitlines())
        files = [file for row in rows if _is_packed(file := PurePosixPath(row[0]))]
        info = next(file.parts[0] for file in files if file.name == "METADATA")
        path = wheels / f"{info.removesuffix('.dist-info')}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
            for file in files:
                content = (site / file).read_bytes()
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
                record += f"{file},sha256={digest},{len(content)}\n"
                wheel.writestr(str(file), content)
            wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    except (StopIteration, FileNotFoundError) as error:
        raise UsageError(
            f"{site}: edgeq lies here without pip's list of its files, or without some: give its --edgeq-wheel FILE"
        ) from error
    return path


def _is_packed(file: PurePosixPath) -> bool:
    """Whether a file of an installed edgeq was in its wheel and is needed elsewhere."""
    if file.parts[0] == "edgeq":
        return "__pycache__" not in file.parts and file.suffix != ".eqk"
    return file.parts[0].endswith(".dist-info") and file.name not in WRITTEN_BY_INSTALLERS


def _pip(arguments: Sequence[str], what: str, variables: Mapping[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=variables)
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if "ERROR" in line or "No module named" in line]
        why = said[-1].removeprefix("ERROR: ") if said else f"pip ended with {result.returncode}"
        raise OutputError(f"{what} cannot be had: {why}: connect to the network, or leave wheels out with --no-wheels")
