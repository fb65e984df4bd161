"""What is told on stderr while someone waits."""

import sys
import threading
import time

import click

from edgeq.printable import printable
from edgeq.system import environment

TICK = 1.0  # seconds


def announce(line: str) -> None:
    """Tell on stderr what makes someone wait, over a bar or a line that moves: that comes again below."""
    if can_move_lines():
        click.echo("\r\x1b[K", err=True, nl=False)
    tell(f"edgeq: {line}", err=True)


def tell(line: str, err: bool = False) -> None:
    """Print a line that may hold what a file says: only what is printable of it."""
    click.echo(printable(line), err=err)


def can_move_lines() -> bool:
    """Whether stderr is a terminal that can write over a line."""
    return sys.stderr.isatty() and not environment.dumb_terminal()


class Announcer:
    """As `announce`, and how far a work is. At a terminal that is a line which moves every second and goes away again;
    elsewhere, where the work is a `long` one, a line for each quarter of it."""

    def __init__(self, long: bool = False) -> None:
        self._long = long
        self._done = self._total = 0
        self._began = 0.0
        self._ended = threading.Event()
        self._clock: threading.Thread | None = None

    def __call__(self, line: str) -> None:
        announce(line)

    def progress(self, done: int, total: int) -> None:
        """So many of `total` are done; with all of them the work is over, however it ended."""
        before, self._done, self._total = self._done, done, total
        if not can_move_lines():
            if self._long and done < total and 4 * done // total > 4 * before // total:
                announce(f"{done} of {total} compiled")
        elif done < total:
            self._start()
            self._show()
        else:
            self._stop()
        if done >= total:
            self._done = 0

    def _show(self) -> None:
        seconds = time.monotonic() - self._began
        click.echo(f"\redgeq: {self._done} of {self._total} compiled, {seconds:.0f} s\x1b[K", err=True, nl=False)

    def _start(self) -> None:
        if self._clock is None:
            self._began = time.monotonic()
            self._ended.clear()
            self._clock = threading.Thread(target=self._run, name="edgeq-announcer", daemon=True)
            self._clock.start()

    def _stop(self) -> None:
        if self._clock is not None:
            self._ended.set()
            self._clock.join()
            self._clock = None
        click.echo("\r\x1b[K", err=True, nl=False)

    def _run(self) -> None:
        while not self._ended.wait(TICK):
            self._show()
