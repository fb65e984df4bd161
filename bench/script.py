"""What the scripts' command lines share: arguments are checked before any work, and what fails is one line."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

from turns import EngineError

from edgeq.errors import EdgeqError


def run(main: Callable[[], None]) -> None:
    """Call a script's `main`. What the input or the machine is to blame for is one line and code 2; Ctrl-C is 130."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (EdgeqError, EngineError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:
            raise
        message = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
        sys.exit(2)


def count(text: str) -> int:
    """A whole number of at least 1, for argparse; so are those below."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} cannot work: give a whole number of at least 1")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} cannot work: give seconds, more than 0")
    return value


def file(text: str) -> Path:
    """A file that can be read."""
    try:
        Path(text).open("rb").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    return Path(text)


def folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is not a folder")
    return Path(text)
