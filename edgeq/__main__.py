"""The `edgeq` program, and `python -m edgeq`."""

import os
import signal
import sys

TYPE_CHECKING = False  # see __init__.py
if TYPE_CHECKING:
    from types import FrameType

# What a system sends to end a program: kill, a terminal that closes, Ctrl-Break on Windows
ENDING = ("SIGTERM", "SIGHUP", "SIGBREAK")


def main() -> int:
    """Run the command line; the result is the exit code. Ctrl-C while it is still being imported ends it silently.

    A signal that ends the program ends it as an exception does: no temporary files and no processes are left.
    """
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # in the background it may be ignored
    if heard:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from edgeq import cli

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _end)
    return cli.main()


def _end(number: int, frame: "FrameType | None") -> None:
    """Leave with the code that shells give; the same signal once more ends at once."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
