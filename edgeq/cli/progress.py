"""A bar on stderr, at a terminal, while a file is read or another one is made of it; a line for what has no size."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

Progress = Callable[[str, int, int, int, int], None]  # tensor, its index, tensors in all, bytes done, bytes in all


@contextlib.contextmanager
def _bar(first: str) -> Iterator[Callable[[str, int, int], None]]:
    """Gives what moves the bar: text, bytes done, bytes in all. Until it is called the bar says `first`."""
    import rich.progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        rich.progress.TextColumn("{task.description:<28}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(True),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(first, total=None)
        yield lambda text, done, total: bar.update(task, description=text, completed=done, total=total)


@contextlib.contextmanager
def progress_bar(first: str) -> Iterator[Progress]:
    """Gives what moves the bar, which names the tensor that is done; until then it says `first`. It goes away again."""
    with _bar(first) as show:
        yield lambda tensor, index, tensors, done, total: show(f"{index + 1}/{tensors} {tensor}", done, total)


@contextlib.contextmanager
def bytes_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what moves the bar: bytes done, and bytes in all. It goes away at the end."""
    with _bar(text) as show:
        yield lambda done, total: show(text, done, total)


@contextlib.contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """At a terminal a line on stderr that says what makes someone wait; gives what changes it. It goes away again."""

    def show(text: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{text}\x1b[K", err=True, nl=False)

    show(text)
    try:
        yield show
    finally:
        show("")
