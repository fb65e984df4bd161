"""What was typed in earlier chats: a line of JSON each, in a file that only its owner can read."""

import contextlib
import json
import os
from pathlib import Path

from edgeq.errors import OutputError
from edgeq.system.output import write_file

ENTRIES, LARGEST = 1000, 1 << 16  # how many are kept, and of how many characters


class HistoryFile:
    """A file that grows by a line at a time. What cannot be read or written is not there: no chat fails for it."""

    def __init__(self, path: Path | None):
        self._path = path

    def read(self) -> list[str]:
        """The texts in it, the oldest first. A file that has grown to twice its bound is cut back."""
        if self._path is None:
            return []
        try:
            if not self._path.is_file():  # reading a pipe would wait
                return []
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return []
        texts = [text for line in lines if (text := _text(line)) is not None]
        if len(lines) > 2 * ENTRIES:
            with contextlib.suppress(OutputError):
                write_file(self._path, _lines(texts[-ENTRIES:]), 0o600)
        return texts[-ENTRIES:]

    def add(self, text: str) -> None:
        """Append a text, unless it is too long to be kept."""
        if self._path is None or len(text) > LARGEST:
            return
        with contextlib.suppress(OSError):
            if self._path.exists() and not self._path.is_file():
                return
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(fd, "ab") as file:
                if hasattr(os, "fchmod"):
                    os.fchmod(fd, 0o600)  # it may be an older one
                file.write(_lines([text]))


def _lines(texts: list[str]) -> bytes:
    return b"".join(json.dumps(text).encode() + b"\n" for text in texts)


def _text(line: bytes) -> str | None:
    with contextlib.suppress(ValueError, RecursionError):
        text = json.loads(line)
        if isinstance(text, str):
            return text
    return None
