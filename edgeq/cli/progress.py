"""A bar on stderr, at a terminal, while a file is read or another one is made of it; a line for what has no size."""

import contextlib
import time
from collections.abc import Callable, Iterator

import click

from edgeq.cli.announcer import can_move_lines

SILENCE_S = 10.0  # at most so long nothing is said where there is no terminal
Progress = Callable[[str, int, int, int, int], None]  # tensor, its index, tensors in all, bytes done, bytes in all


@contextlib.contextmanager
def _bar(first: str) -> Iterator[Callable[[str, int, int], None]]:
    """Gives what moves the bar: text, bytes done, bytes in all, or 0 where nobody knows. Until it is called the bar
    says `first`."""
    import rich.progress
    import rich.text
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:  # older versions of rich end a bar that is off with an empty line
        yield lambda text, done, total: None
        return

    class Size(rich.progress.DownloadColumn):
        def render(self, task: rich.progress.Task) -> rich.text.Text:
            return rich.text.Text() if task.total is None else super().render(task)

    columns = (
        rich.progress.TextColumn("{task.description:<28}"),
        rich.progress.BarColumn(),
        Size(True),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(first, total=None)

        def show(text: str, done: int, total: int) -> None:
            bar.tasks[0].total = total or None  # without one the bar only moves
            bar.update(task, description=text, completed=done)

        yield show


@contextlib.contextmanager
def work_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Gives what shows how far work is: what is at work, bytes done, bytes in all. The first call makes the bar; where
    there is no terminal it is a line now and then.
    """
    with contextlib.ExitStack() as stack:
        show: Callable[[str, int, int], None] | None = None
        said = time.monotonic()

        def progress(text: str, done: int, total: int) -> None:
            nonlocal show, said
            if can_move_lines():
                show = show or stack.enter_context(_bar(text))
                show(text, done, total)
                if done >= total:  # what follows has lines of its own
                    stack.close()
                    show = None
            elif time.monotonic() - said > SILENCE_S:
                said = time.monotonic()
                click.echo(f"edgeq: {100 * done // max(total, 1)} % done", err=True)

        yield progress


@contextlib.contextmanager
def progress_bar(first: str) -> Iterator[Progress]:
    """Gives what moves the bar, which names the tensor that is done; until then it says `first`. It goes away again."""
    with _bar(first) as show:
        yield lambda tensor, index, tensors, done, total: show(
            f"{index + 1}/{tensors} {tensor}" if tensors else tensor, done, total
        )


@contextlib.contextmanager
def bytes_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what moves the bar: bytes done, and bytes in all. It goes away at the end."""
    with _bar(text) as show:
        yield lambda done, total: show(text, done, total)


@contextlib.contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """At a terminal a line on stderr that says what makes someone wait; gives what changes it. It goes away again."""

    def show(text: str) -> None:
        if can_move_lines():
            click.echo(f"\r{text}\x1b[K", err=True, nl=False)

    show(text)
    try:
        yield show
    finally:
        show("")
