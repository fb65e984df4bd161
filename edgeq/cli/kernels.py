"""`edgeq kernels`: libraries of kernels that were compiled ahead of time."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.json_output import json_option, show_json
from edgeq.cli.units import binary_size
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.toolchain.prebuilt import Library


@click.group("kernels", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Kernels compiled ahead of time: with a library that fits its CPU, a machine needs no compiler."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command.command("build", short_help="Compile every kernel for some CPUs.")
@click.option("--cpu", "names", help="CPUs, separated by commas; --cpu help lists them.  [default: this one]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder.  [default: EDGEQ_KERNELS, or the user's data folder]",
)
def build_command(names: str | None, output: Path | None) -> None:
    """Compile every kernel into one library per CPU, on any machine.

    Libraries are looked for in the folder that EDGEQ_KERNELS names, or else in the installed package and in the user's
    data folder, which is where this puts them.
    """
    from edgeq.cli.announcer import Announcer
    from edgeq.ops import catalog
    from edgeq.system import environment
    from edgeq.toolchain import cpus
    from edgeq.toolchain.build import build, check_compiler

    if names == "":
        raise UsageError("--cpu names no CPU: --cpu help lists them")
    if names == "help":
        for cpu in cpus.CPUS:
            click.echo(f"{cpu.name:16}{cpu.isa.name:14}{cpu.chips}")
        return
    targets = [cpus.cpu(name.strip()) for name in names.split(",")] if names else [cpus.this_cpu()]
    check_compiler()
    folder = output or environment.kernels_folder() or environment.data_folder()
    announce = Announcer(long=True)
    for cpu in targets:
        every = catalog.names(cpu.isa)
        announce(f"compiling {len(every)} kernels for {cpu.name} ({cpu.isa.name})")
        try:
            path = build(cpu, folder, every, progress=announce.progress)
        finally:
            announce.progress(1, 1)
        click.echo(f"{path}: {binary_size(path.stat().st_size)}")


@command.command("list", short_help="Show what is found and what is used.")
@json_option
def list_command(as_json: bool) -> None:
    """Show the libraries that are found, which one is used, and what was compiled here."""
    facts = describe()
    if as_json:
        show_json(facts)
        return
    click.echo(f"this CPU runs {facts['body']} kernels")
    for one in facts["libraries"]:
        if one["cpu"] is None:
            click.echo(one["problem"])
            continue
        size = binary_size(one["bytes"])
        state = one["problem"] or one["state"]
        click.echo(f"{one['path']}: {one['cpu']}, {one['body']}, {one['kernels']} kernels, {size}: {state}")
    if not facts["libraries"]:
        click.echo(f"no library in {' or '.join(facts['folders'])}")
    compiled = facts["compiled"]
    click.echo(f"compiled here: {compiled['kernels']} kernels in {compiled['folder']}")


def describe() -> dict[str, Any]:
    """What `edgeq kernels list` tells, as plain data. A library that cannot be read has no CPU, body and kernels."""
    from edgeq.toolchain import library, prebuilt

    library.missing(["execute:lead"])  # a library whose code is damaged shows when a kernel is taken from it
    isa, best = library.chosen_isa(), prebuilt.best()
    folders = prebuilt.folders()
    count, folder = library.cached()
    return {
        "body": isa.name,
        "folders": [str(one) for one in folders],
        "libraries": [_library(one, one is best, isa.name) for one in prebuilt.found(tuple(folders))],
        "compiled": {"kernels": count, "folder": str(folder)},
    }


def _library(one: "Library", best: bool, body: str) -> dict[str, Any]:
    from edgeq.system import environment

    readable = one.header is not None and not one.problem.startswith(str(one.path))
    ruled_out = environment.isa() not in (None, one.isa)
    unused = "fits, EDGEQ_ISA asks for another body" if ruled_out else "fits, another one is better"
    return {
        "path": str(one.path),
        "bytes": one.path.stat().st_size,
        "cpu": one.header.cpu if readable and one.header else None,
        "body": one.isa if readable else None,
        "kernels": len(one.header.kernels) if readable and one.header else None,
        "state": None if one.problem else "used" if best and one.isa == body else unused,
        "problem": one.problem or None,
    }
