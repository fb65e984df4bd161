"""The `edgeq` program, and `python -m edgeq`."""

import os
import signal
import sys


def main() -> int:
    """Run the command line; the result is the exit code. Ctrl-C while it is still being imported ends it silently."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # in the background it may be ignored
    if heard:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from edgeq import cli

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
