"""A bar on stderr, at a terminal, while one file is made of another."""

import contextlib
from collections.abc import Callable, Iterator

Progress = Callable[[str, int, int, int, int], None]  # tensor, its index, tensors in all, bytes done, bytes in all


@contextlib.contextmanager
def progress_bar(first: str) -> Iterator[Progress]:
    """Gives what moves the bar; until it is called the bar says `first`. The bar goes away at the end."""
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

        def progress(tensor: str, index: int, tensors: int, done: int, total: int) -> None:
            bar.update(task, description=f"{index + 1}/{tensors} {tensor}", completed=done, total=total)

        yield progress
