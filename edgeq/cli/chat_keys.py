"""Keys that are typed while nobody reads them."""

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any


class HeldKeys:
    """Keeps a terminal from echoing keys and from acting on them, Ctrl-C excepted.

    Where there is no termios (Windows' consoles echo only what is read) it does nothing.
    """

    def __init__(self, fd: int):
        self._fd = fd
        self._before: list[Any] | None = None

    def hold(self) -> None:
        """Begin, or begin again after something else has set the terminal."""
        if sys.platform == "win32":
            return
        import termios

        with contextlib.suppress(termios.error):
            if self._before is None:
                self._before = termios.tcgetattr(self._fd)
            state = termios.tcgetattr(self._fd)
            state[0] &= ~(termios.ICRNL | termios.INLCR)  # Enter stays apart from Ctrl-J
            state[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
            state[3] |= termios.ISIG | termios.NOFLSH  # Ctrl-C does not throw away what was typed before
            termios.tcsetattr(self._fd, termios.TCSANOW, state)

    @contextlib.contextmanager
    def taken(self, take: Callable[[], bool]) -> Iterator[None]:
        """A block in which a thread calls `take` when there are keys, until it is False: that there will be no more.

        A terminal holds only some thousands, and Ctrl-C would wait behind them.
        """
        if sys.platform == "win32":
            yield
            return
        wake, end = os.pipe()

        def work() -> None:
            while wake not in select.select([self._fd, wake], [], [])[0]:
                if not take():
                    break

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(end)
            thread.join()
            os.close(wake)

    def release(self) -> None:
        """Set the terminal as it was."""
        if sys.platform == "win32" or self._before is None:
            return
        import termios

        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        self._before = None
