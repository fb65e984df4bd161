"""Files of machine code are run only where nobody but the user, or root, could have written them.

A digest inside a file tells damage, not malice: whoever writes the file writes the digest. So the folder and the file
must be the user's or root's, and nobody else may write to them. What lies in the package is as trusted as its code.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from edgeq.errors import KernelError
from edgeq.system.input import IrregularError, open_regular

PACKAGE = Path(__file__).resolve().parent.parent
REMEDY = "remove it, or `chmod go-w` it if all that is in it is yours"
_KNOWN = hasattr(os, "geteuid") and os.open in os.supports_dir_fd  # systems that tell whose a file is


def open_owned(path: Path) -> BinaryIO:
    """The file `path`, open, whose folder was looked at by what is open, too: links are not followed.

    Raises KernelError, one line that says why, for what others could have written and for what is no regular file;
    OSError where it is not there.
    """
    if not _KNOWN or path.is_relative_to(PACKAGE):
        return open(open_regular(path), "rb")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(path, os.fstat(folder), f"its folder {path.parent} ")
        try:
            fd = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise KernelError(
                f"{path}: is a link, kernels are not run through one: put the file itself there"
            ) from None
    finally:
        os.close(folder)
    file = open(fd, "rb")  # noqa: SIM115  (the caller closes it)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise IrregularError(path)
        _check(path, found, "")
    except BaseException:
        file.close()
        raise
    return file


def refusal(path: Path) -> str:
    """Why the file `path` would not be opened, if others could have written it; else nothing."""
    try:
        open_owned(path).close()
    except KernelError as error:
        return str(error)
    except OSError:
        pass
    return ""


def _check(path: Path, found: os.stat_result, what: str) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise KernelError(f"{path}: {what}belongs to another user (uid {found.st_uid}), so it is not run: {REMEDY}")
    if found.st_mode & 0o022:
        raise KernelError(f"{path}: {what}can be written by others, so it is not run: {REMEDY}")
