"""What was typed in earlier chats: a line of JSON each, in a file that only its owner can read."""

import contextlib
import json
import os
from pathlib import Path

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
            self._write(texts[-ENTRIES:])
        return texts[-ENTRIES:]

    def add(self, text: str) -> None:
        """Append a text, unless it is too long to be kept."""
        if self._path is None or len(text) > LARGEST:
            return
        with contextlib.suppress(OSError):
            if self._path.exists() and not self._path.is_file():
                return
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _put(self._path, os.O_APPEND, [text])

    def _write(self, texts: list[str]) -> None:
        """Replace the file, whole."""
        assert self._path is not None
        temporary = self._path.with_name(f".{self._path.name}.{os.urandom(4).hex()}.tmp")
        with contextlib.suppress(OSError):
            try:
                _put(temporary, os.O_EXCL, texts)
                os.replace(temporary, self._path)
            finally:
                temporary.unlink(missing_ok=True)


def _put(path: Path, flags: int, texts: list[str]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    with open(fd, "ab") as file:
        if hasattr(os, "fchmod"):
            os.fchmod(fd, 0o600)  # it may be an older one
        file.write(b"".join(json.dumps(text).encode() + b"\n" for text in texts))


def _text(line: bytes) -> str | None:
    with contextlib.suppress(ValueError, RecursionError):
        text = json.loads(line)
        if isinstance(text, str):
            return text
    return None
