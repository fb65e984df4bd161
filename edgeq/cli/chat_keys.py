"""Keys that are typed while nobody reads them."""

import contextlib
import sys
from typing import Any


class HeldKeys:
    """Keeps a terminal from echoing keys and from acting on them, Ctrl-C excepted: who reads next gets them all.

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

    def release(self) -> None:
        """Set the terminal as it was."""
        if sys.platform == "win32" or self._before is None:
            return
        import termios

        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        self._before = None
