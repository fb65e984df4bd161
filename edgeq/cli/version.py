"""`edgeq version`: what is installed, for bug reports."""

import platform
from importlib.metadata import PackageNotFoundError, version

import click

import edgeq

LIBRARIES = ("numpy", "numba", "llvmlite", "tokenizers", "sentencepiece")


@click.command("version", short_help="Print versions.")
def command() -> None:
    """Print the versions of edgeq and of what it stands on."""
    click.echo(f"edgeq {edgeq.__version__}")
    click.echo(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for library in LIBRARIES:
        try:
            click.echo(f"{library} {version(library)}")
        except PackageNotFoundError:
            click.echo(f"{library} is not installed")
