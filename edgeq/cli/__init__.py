"""The `edgeq` command: one file per verb, imported when it is used.

Whatever is the input's fault ends with one line on stderr, `edgeq: ...`, and exit code 2; a fault of the program itself
with such a line and 70; Ctrl-C with 130.
"""

import contextlib
import difflib
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from edgeq.errors import EdgeqError
from edgeq.printable import printable
from edgeq.system import environment

FAULT = 70  # as sysexits.h has it: an internal software error

VERBS = {  # and what --help says of each, which imports none of them
    "chat": "Talk with a model.",
    "run": "Answer one message, or complete a text.",
    "batch": "Answer a file of requests, offline.",
    "serve": "Answer clients over HTTP, with a page to chat on.",
    "prefix": "Evaluate a text once, for all that begins with it.",
    "embed": "Turn texts into vectors.",
    "rerank": "Sort texts by how well they answer a query.",
    "models": "List, remove or recommend models.",
    "pull": "Fetch and convert a model, to run it later.",
    "convert": "Convert a checkpoint to one file, or quantize again.",
    "calibrate": "Run a model over text, to convert it with less loss.",
    "import": "Import a GGUF file as one .eqf file.",
    "export": "Export a model as a GGUF file.",
    "show": "Show what a model's file holds.",
    "verify": "Check a model's file.",
    "compare": "Try all ways to quantize a model.",
    "eval": "Measure quality, and what was lost.",
    "drift": "Tell whether texts are still what a model was calibrated with.",
    "bench": "Measure speed.",
    "doctor": "Look at this machine, and whether a model runs on it.",
    "bundle": "Make a folder that runs a model on a board, offline.",
    "kernels": "Build or list compiled kernels.",
    "version": "Print versions.",
}

ENVIRONMENT = """
\b
Environment variables:
  EDGEQ_THREADS  threads, where --threads is not given
  EDGEQ_CACHE    folder of compiled kernels and of models  [default: ~/.cache/edgeq]
  EDGEQ_KERNELS  folder of kernels built ahead of time  [default: the package, then ~/.local/share/edgeq/kernels]
  EDGEQ_HISTORY  file of what was typed in chats; "-" keeps none  [default: ~/.local/state/edgeq/chat-history]
  EDGEQ_ISA      body of the kernels, e.g. avx2 or portable  [default: the best one]
  EDGEQ_API_KEY  a key that clients of `edgeq serve` need
  EDGEQ_DEBUG    1 shows the traceback of an error that edgeq did not expect
"""


class Verbs(click.Group):
    """A group whose commands are modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            from edgeq.cli import other_programs

            name = args[0].lower()
            likely = difflib.get_close_matches(name, VERBS, 1)
            meant = other_programs.VERBS.get(name) or (likely[0] if likely else "")
            hint = other_programs.NO_VERBS.get(name) or (f"did you mean {meant}?" if meant else "")
            raise click.UsageError(f"there is no verb {args[0]!r}" + (f": {hint}" if hint else ""), ctx)
        verb, command, rest = super().resolve_command(ctx, args)
        if command is not None and any(len(word) > 2 and word[0] == "-" != word[1] for word in rest):
            from edgeq.cli import other_programs

            valued = [flag for one in command.params if _valued(one) for flag in one.opts]
            if other_programs.is_read_otherwise(rest, valued):  # which one `main` says
                raise click.UsageError("an option is another program's", click.Context(command, ctx, verb))
        return verb, command, rest

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = "import_" if cmd_name == "import" else cmd_name  # `import` cannot name a module
        command: click.Command = import_module(f"edgeq.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _valued(parameter: click.Parameter) -> bool:
    """Whether it is an option that a value follows."""
    return isinstance(parameter, click.Option) and not parameter.is_flag and not parameter.count


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=ENVIRONMENT,
)
@click.version_option(package_name="edgeq", message="edgeq %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Convert Hugging Face checkpoints to one block-quantized file, and run it on an ordinary CPU."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit code."""
    _prepare_streams()
    if not sys.stderr.isatty():  # bars are for people who watch
        environment.silence_downloads()
    try:
        result = cli.main(None if arguments is None else list(arguments), prog_name="edgeq", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except EdgeqError as error:
        return _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:  # a board gets only the packages that running needs
        package = (error.name or "edgeq").partition(".")[0]
        if package == "edgeq":
            return _unexpected(error)
        return _fail(f"this needs the Python package {package}, which is not installed here: pip install {package}", 2)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        from edgeq.cli import other_programs

        context = error.ctx if isinstance(error, click.UsageError) else None
        given = sys.argv[1:] if arguments is None else arguments
        flags = [flag for option in context.command.params for flag in option.opts] if context else []
        message = other_programs.option_instead(given, flags) or error.format_message()
        return _fail(f"{message} (see {context.command_path if context else 'edgeq'} --help)", error.exit_code)
    except OSError as error:
        if error.filename is not None or not _of_output(error):  # a file's is an EdgeqError: a fault of the program
            return _unexpected(error)
        _drop_output()
        return _fail(f"the output cannot be written: {error.strerror}", 2)
    except MemoryError:
        return _fail("not enough memory: try a smaller model, a coarser type or a smaller --context", 2)
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """A fault of the program's own: one line that says where, so that it can be reported."""
    if environment.debug():
        traceback.print_exception(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    where = f"{os.path.join(*Path(place.filename).parts[-2:])}:{place.lineno}"
    advice = "this is a fault of edgeq: please report it with what you did (EDGEQ_DEBUG=1 shows more)"
    return _fail(f"{what:.300} ({where}): {advice}", FAULT)


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # where stderr cannot be written either, the exit code has to do
        click.echo(f"edgeq: {printable(message.strip())}", err=True)
    return code


def _prepare_streams() -> None:
    """Streams that were closed lead nowhere; text comes in as strict UTF-8, and goes out however the terminal can."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  (open until the end)
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows "?"


def _of_output(error: OSError) -> bool:
    """Whether an error is one of stdout: it is of a kind that only writing has, or what is buffered fails again."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return error.errno in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _drop_output() -> None:
    """Lead stdout nowhere, so that what is still buffered does not fail a second time when Python ends."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
