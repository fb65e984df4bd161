"""A process at a terminal of its own."""

import os
import pty
import re
import select
import subprocess
import termios
from collections.abc import Mapping, Sequence

ASKS_FOR_CURSOR = b"\x1b[6n"
ESCAPE_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x08")
PATIENCE_S = 60  # for a busy machine: what is waited for comes at once


class PseudoTerminal:
    """`raw` is all that the process has written."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], pass_fds: Sequence[int] = ()):
        self._master, self.slave = pty.openpty()
        os.set_blocking(self._master, False)
        termios.tcsetwinsize(self.slave, (24, 200))
        self.raw = b""
        self._expected = 0  # of the text without escape codes: what comes before it does not count again
        self.process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=dict(environment),
            pass_fds=pass_fds,
            preexec_fn=self._control,
        )

    def _control(self) -> None:
        """Make it the process' controlling terminal, for Ctrl-C to be a signal."""
        import fcntl

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def type(self, keys: str) -> None:
        data = keys.encode()
        while data:
            assert select.select([], [self._master], [], PATIENCE_S)[1], f"{len(data)} keys found no room"
            data = data[os.write(self._master, data) :]

    def expect(self, text: str) -> str:
        """Wait until a text is shown after the one expected before; what was shown between them, and it."""
        while (at := self.shown().find(text, self._expected)) < 0:
            ready, _, _ = select.select([self._master], [], [], PATIENCE_S)
            assert ready, f"{text!r} was not shown: {self.shown()[self._expected :]!r}"
            new = os.read(self._master, 4096)
            if ASKS_FOR_CURSOR in new:
                os.write(self._master, b"\x1b[1;1R")
            self.raw += new
        begin, self._expected = self._expected, at + len(text)
        return self.shown()[begin : self._expected]

    def shown(self) -> str:
        """The text without escape codes."""
        return ESCAPE_CODE.sub("", self.raw.decode(errors="replace"))

    def ended(self) -> int:
        """The exit code, after the process has ended."""
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """Let go of it, also where a test has failed before the process ended."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self.slave)
