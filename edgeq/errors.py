"""The one error tree: everything that bad input, a full disk or an unsupported model can raise.

Each message is one line that names the file, says what is wrong and what to do about it; the command line prints
that line and exits with code 2. Those that are about a value are also a ValueError, that of a file that is not there
also a FileNotFoundError: callers who know neither edgeq nor this tree catch what they always catch.
"""

import errno

from edgeq.printable import printable

LONGEST = 900  # bytes of a message: what a file says of itself may be megabytes


class EdgeqError(Exception):
    """Base of every error that is the input's or the machine's fault, never the program's."""

    exit_code = 2

    def __init__(self, message: object = "") -> None:
        """`message` becomes one printable line."""
        line = printable(message, LONGEST)
        while (nbytes := len(line.encode())) > LONGEST:
            line = printable(line, LONGEST * len(line) // nbytes)
        super().__init__(line)


class UsageError(EdgeqError, ValueError):
    """An option or argument has a value that cannot work."""


class FormatError(EdgeqError, ValueError):
    """A file is not a well-formed `.eqf` file: wrong magic, truncated, inconsistent header."""


class ChecksumError(FormatError):
    """The bytes of a tensor, an asset or the header are not those that were written."""


class CheckpointError(EdgeqError, ValueError):
    """A Hugging Face checkpoint is incomplete, damaged, or holds something that cannot be converted."""


class NotFoundError(FormatError, CheckpointError, FileNotFoundError):
    """There is no file or folder of that name."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ENOENT


class UnsupportedError(EdgeqError):
    """A model architecture, block type or machine that this version does not know."""


class KernelError(EdgeqError):
    """A kernel could not be compiled here, or a library of compiled kernels cannot be used."""


class TokenizerError(EdgeqError):
    """A tokenizer is missing, unreadable, or does not fit the model."""


class TemplateError(EdgeqError):
    """A chat template is missing, is malformed, or refuses the conversation."""


class OutputError(EdgeqError):
    """An output could not be written: disk full, no permission, folder missing."""


class ContextError(EdgeqError, ValueError):
    """A prompt or conversation needs more positions than the context has."""


class MemoryLimitError(EdgeqError):
    """A model needs more memory, for its weights or its context, than this machine or control group has."""
