"""`edgeq version`: what is installed, for bug reports."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from edgeq.cli.json_output import json_option, show_json
from edgeq.version import VERSION

LIBRARIES = ("numpy", "numba", "llvmlite", "tokenizers", "sentencepiece")


@click.command("version")
@json_option
def command(as_json: bool) -> None:
    """Print the versions of edgeq and of what it stands on."""
    facts = versions()
    if as_json:
        show_json(facts)
        return
    click.echo(f"edgeq {facts['edgeq']}")
    click.echo(f"python {facts['python']} on {facts['system']} {facts['machine']}")
    for name, number in facts["packages"].items():
        click.echo(f"{name} {number or 'is not installed'}")


def versions() -> dict[str, Any]:
    """What is installed; None is the version of a package that is not."""
    packages: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "edgeq": VERSION,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": packages,
    }
