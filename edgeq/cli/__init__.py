"""The `edgeq` command: one file per verb, imported when it is used.

Whatever is the input's fault ends with one line on stderr, `edgeq: ...`, and exit code 2; Ctrl-C with 130.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from edgeq.errors import EdgeqError

VERBS = ("convert", "run", "chat", "show", "verify", "bench", "version")


class Verbs(click.Group):
    """A group whose commands are modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"edgeq.cli.{cmd_name}").command
        return command


@click.group(cls=Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeq", message="edgeq %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Convert Hugging Face checkpoints to one block-quantized file, and run it on an ordinary CPU."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows "?"
    try:
        result = cli.main(None if arguments is None else list(arguments), prog_name="edgeq", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except EdgeqError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "edgeq"
        return _fail(f"{error.format_message()} (see {where} --help)", error.exit_code)
    except MemoryError:
        return _fail("not enough memory: try a smaller model, a coarser type or a smaller --context", 2)


def _fail(message: str, code: int) -> int:
    click.echo("edgeq: " + " ".join(message.split()), err=True)
    return code
