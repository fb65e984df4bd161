"""What a bundle says and does on the board: its README.txt and its scripts for the shell."""

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from edgeq.cli.units import binary_size

README = """\
{name} for {title}

Copy this folder to the board, then, on the board and in this folder:

    sh check                          # {setup}looks at the board and the model

    . ./settings
    edgeq chat {model}
    edgeq run {model} "Once upon a time" -n 100
{serving}
The first step needs no network{python}.
{kernels}

What is here:
{contents}
"""

SCRIPT = """\
#!/bin/sh
# {title}
set -eu
CDPATH= cd -- "$(dirname -- "$0")"
if [ "$(uname -m)" != {machine} ]; then
    echo "{name}: this bundle is for {machine}, this machine is $(uname -m): make one with edgeq bundle --for" >&2
    exit 2
fi
{rest}"""

INSTALL = """\
fail() {{
    rm -rf venv
    echo "install: $1" >&2
    exit 2
}}
# The stamp is written last: what was interrupted, moved since, or made of other wheels is made again.
stamp="$(pwd -P) {wheels}"
if [ "$(cat venv/stamp 2>/dev/null)" != "$stamp" ]; then
    rm -rf venv
    for python in python{python} python3 none; do
        "$python" -c '{is_right}' 2>/dev/null && break
    done
    [ "$python" != none ] ||
        fail "the wheels here are for 64-bit Python {python}: install it, or edgeq bundle with another --python"
    "$python" -m venv venv ||
        fail "Python's module venv does not work, it says above why: install it (Debian's package python3-venv)"
    venv/bin/python -m pip install --quiet --no-index --no-deps --find-links wheels -r requirements.txt ||
        fail "pip cannot install the wheels, it says above why: make room on the disk, or copy the bundle here again"
    echo "$stamp" >venv/stamp || fail "venv cannot be written: make room on the disk"
fi
"""

CHECK = """\
. ./settings
edgeq verify {model}
exec edgeq doctor {model}
"""

SERVE = """\
. ./settings
exec edgeq serve {model} "$@"
"""

SETTINGS = """\
# Read this into a shell that stands in this folder:  . ./settings
PATH="$PWD/venv/bin:$PATH"
export PATH
"""
KERNELS = """\
EDGEQ_KERNELS="$PWD/kernels"
export EDGEQ_KERNELS
"""


def word(name: str) -> str:
    """A file's name for a shell, which no program takes for an option."""
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


def _digest(wheels: Path) -> str:
    """That of the wheels' names and contents."""
    digest = hashlib.sha256()
    for path in sorted(wheels.glob("*.whl")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def write_texts(
    folder: Path,
    title: str,
    machine: str,
    model: str,
    python: str | None,
    cpus: Sequence[str],
    compiled: bool,
    server: bool = False,
) -> None:
    """README.txt and the scripts, for what is in `folder`.

    `cpus` are those of the kernels in it; `compiled` says whether every board that it is for runs with these.
    `server` adds a script that serves the model.
    """
    scripts = {"check": ("Checks the model, then looks at this machine.", CHECK.format(model=word(model)))}
    if server:
        what = "Serves the model to clients and browsers: sh serve --host 0.0.0.0 --no-auth lets other machines ask."
        scripts["serve"] = what, SERVE.format(model=word(model))
    if python is not None:
        version = python.replace(".", ", ")
        is_right = f"import sys; sys.exit(sys.version_info[:2] != ({version}) or sys.maxsize < 2**32)"
        what = "Sets edgeq up in this folder if that has not been done, without a network."
        scripts["install"] = what, INSTALL.format(python=python, is_right=is_right, wheels=_digest(folder / "wheels"))
        for name in scripts.keys() - {"install"}:
            what, rest = scripts[name]
            scripts[name] = f"Runs install. {what}", "sh ./install\n" + rest
    (folder / "settings").write_text(SETTINGS + (KERNELS if cpus else ""), encoding="utf-8", newline="\n")
    for name, (what, rest) in scripts.items():
        text = SCRIPT.format(name=name, title=what, machine=machine, rest=rest)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
        (folder / name).chmod(0o755)
    contents = [f"    {model}: the model, {binary_size((folder / model).stat().st_size)}"]
    if python is not None:
        count = len(list((folder / "wheels").glob("*.whl")))
        contents.append(f"    wheels, requirements.txt: {count} Python packages for Python {python} on {machine}")
    if cpus:
        contents.append(f"    kernels: compiled for {', '.join(cpus)}")
    compiling = "The first run of a model compiles its kernels, once, and says so: this takes a while and needs Numba."
    text = README.format(
        name=model,
        title=title,
        model=word(model),
        serving="    sh serve                          # http://127.0.0.1:8080\n" if server else "",
        setup="sets edgeq up (install), then " if python else "",
        python=f"; it needs 64-bit Python {python} with venv" if python else " but an installed edgeq",
        kernels="The kernels come compiled, without a compiler." if compiled else compiling,
        contents="\n".join([*contents, f"    {', '.join(sorted(scripts))}, settings: scripts for the shell"]),
    )
    (folder / "README.txt").write_text(text, encoding="utf-8", newline="\n")
