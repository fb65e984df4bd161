"""`edgeq kernels`: libraries of kernels that were compiled ahead of time."""

from importlib.util import find_spec
from pathlib import Path

import click

from edgeq.cli.units import binary_size
from edgeq.errors import KernelError, UsageError


@click.group("kernels", short_help="Build or list compiled kernels.", invoke_without_command=True)
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
    from edgeq import environment
    from edgeq.cli.announcer import Announcer
    from edgeq.kernels import catalog
    from edgeq.kernels.build import build

    if names == "":
        raise UsageError("--cpu names no CPU: --cpu help lists them")
    if names == "help":
        for cpu in catalog.CPUS:
            click.echo(f"{cpu.name:16}{cpu.isa.name:14}{cpu.chips}")
        return
    cpus = [catalog.cpu(name.strip()) for name in names.split(",")] if names else [catalog.this_cpu()]
    if find_spec("numba") is None:
        raise KernelError("kernels can be built only where Numba is installed: pip install numba")
    folder = output or environment.kernels_folder() or environment.data_folder()
    announce = Announcer(long=True)
    for cpu in cpus:
        announce(f"compiling {len(catalog.names(cpu.isa))} kernels for {cpu.name} ({cpu.isa.name})")
        try:
            path = build(cpu, folder, progress=announce.progress)
        finally:
            announce.progress(1, 1)
        click.echo(f"{path}: {binary_size(path.stat().st_size)}")


@command.command("list", short_help="Show what is found and what is used.")
def list_command() -> None:
    """Show the libraries that are found, which one is used, and what was compiled here."""
    from edgeq import environment
    from edgeq.kernels import library, prebuilt

    library.missing(["execute:lead"])  # a library whose code is damaged shows when a kernel is taken from it
    best = prebuilt.best()
    isa = library.chosen_isa()
    click.echo(f"this CPU runs {isa.name} kernels")
    libraries = prebuilt.found(tuple(prebuilt.folders()))
    for one in libraries:
        size = binary_size(one.path.stat().st_size)
        if one.header is None or one.problem.startswith(str(one.path)):
            click.echo(one.problem)
            continue
        used = one is best and one.isa == isa.name
        ruled_out = environment.isa() not in (None, one.isa)
        unused = "fits, EDGEQ_ISA asks for another body" if ruled_out else "fits, another one is better"
        state = one.problem or ("used" if used else unused)
        click.echo(f"{one.path}: {one.header.cpu}, {one.isa}, {len(one.header.kernels)} kernels, {size}: {state}")
    if not libraries:
        click.echo(f"no library in {' or '.join(map(str, prebuilt.folders()))}")
    click.echo(f"compiled here: {library.cached()}")
