"""`edgeq pull`: fetch and convert a model now, to run it later."""

import click

from edgeq.cli.announcer import tell


@click.command("pull")
@click.argument("names", nargs=-1, required=True)
def command(names: tuple[str, ...]) -> None:
    """Make NAMES ready to run: a repository (owner/name, owner/name:Q8_0), a short name (`edgeq models --recommended`
    lists them), a checkpoint's folder or a GGUF file. Afterwards they run without a network.
    """
    from edgeq.cli.options import made_runnable

    for name in names:
        tell(f"{name}: ready, {made_runnable(name)}")
