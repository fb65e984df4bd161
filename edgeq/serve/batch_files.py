"""A file of requests made into a file of answers, all computed together; what is there after a kill is kept.

Answers go to OUT.part as they come, with the digest of their rows, and from there into OUT, in the order of the
requests, when all are there.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from starlette.types import ASGIApp

from edgeq.errors import OutputError, UsageError
from edgeq.serve import offline
from edgeq.serve.failures import Failure, invalid
from edgeq.serve.replies import encode
from edgeq.system.output import OutputFile, folder_of

AHEAD = 2  # rows that are read by their endpoint for each that is computed


@dataclass(frozen=True)
class Outcome:
    """answered: rows with status 200; refused: all others; kept: rows that were answered by an earlier run"""

    answered: int
    refused: int
    kept: int


class Journal:
    """Answers as they come, on the disk: the first line says whose they are, each other one is a row's.

    Raises OutputError where it cannot be written.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.places: dict[str, tuple[int, int]] = {}  # of answers: digest of the row -> first byte, bytes
        head = encode({"edgeq_batch": identity}) + b"\n"
        try:
            self._file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115  (open until `close`)
            end = self._read(head)
            self._file.seek(end)
            self._file.truncate()  # an answer that was cut, or those of another model
            if not end:
                self._file.write(head)
                self._file.flush()
        except OSError as error:
            raise _unwritable(path, error) from None

    def _read(self, head: bytes) -> int:
        """Note the answers that are there; where the last whole one ends."""
        if self._file.readline() != head:
            return 0
        end = len(head)
        for line in self._file:
            if not line.endswith(b"\n") or line[64:65] != b" ":
                break
            self.places[line[:64].decode("ascii", "replace")] = (end + 65, len(line) - 65)
            end += len(line)
        return end

    def add(self, row: str, answer: bytes) -> None:
        """Keep the answer to a row, one line without its end."""
        try:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(f"{row} ".encode() + answer + b"\n")
            self._file.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from None
        self.places[row] = (place + 65, len(answer) + 1)

    def answer(self, row: str) -> bytes:
        """The line of a row's answer."""
        place, size = self.places[row]
        self._file.seek(place)
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


class Work:
    """A file of requests on its way to a file of answers.

    rows    what is to be answered: line -> request
    wanted  lines of those that no earlier run of the same `identity` (of the model and its options) has answered

    Raises UsageError for a file that cannot be read or holds no row, OutputError for one that cannot be written.
    """

    def __init__(self, source: Path, target: Path, identity: str) -> None:
        folder_of(target)
        self._lines, self._target = _lines(source), target
        self.rows, self._refusals = _checked(self._lines)
        self._journal = Journal(target.with_name(f"{target.name}.part"), identity)
        self._failed: dict[str, bytes] = {}  # by a fault of ours, so that the next run tries again
        self.wanted = [line for line in self.rows if offline.digest(line) not in self._journal.places]
        self.kept = len(self.rows) - len(self.wanted)

    def add(self, line: bytes, said: bytes, status: int) -> None:
        """Keep the answer to a row, one line without its end, and its status."""
        where = offline.digest(line)
        if status >= 500:
            self._failed[where] = said + b"\n"
        else:
            self._journal.add(where, said)

    def write(self) -> Outcome:
        """Write all answers, in the order of their rows."""
        told = [self._told(line, self._refusals.get(number)) for number, line in enumerate(self._lines)]
        sizes = [size for size, _ in told]
        with OutputFile(self._target, sum(sizes)) as file:
            place = 0
            for size, text in told:
                file.put(text(), place)
                place += size
        answered = sum(1 for line in self.rows if self._succeeded(offline.digest(line)))
        if not self._failed:
            self.close()
            self._journal.path.unlink(missing_ok=True)
        return Outcome(answered, len(self._lines) - answered, self.kept)

    def close(self) -> None:
        self._journal.close()

    def _told(self, line: bytes, refusal: bytes | None) -> tuple[int, Callable[[], bytes]]:
        """How long a row's answer is, and what reads it."""
        where = offline.digest(line)
        text = refusal if refusal is not None else self._failed.get(where)
        if text is not None:
            return len(text), lambda: text
        return self._journal.places[where][1], lambda: self._journal.answer(where)

    def _succeeded(self, row: str) -> bool:
        places = self._journal.places
        return row in places and msgspec.json.decode(self._journal.answer(row))["response"]["status_code"] == 200


async def answer_file(
    app: ASGIApp,
    source: Path,
    target: Path,
    identity: str,
    at_once: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Write the answers to the requests of `source` to `target`: `app` answers, `at_once` of them at a time.

    What an earlier run of the same `identity` has answered is taken from `target`.part. Raises what `Work` raises.
    """
    with contextlib.closing(Work(source, target, identity)) as work:
        done = work.kept
        progress(done, len(work.rows))
        turns = asyncio.Semaphore(at_once * AHEAD)

        async def compute(line: bytes) -> None:
            nonlocal done
            async with turns:
                found = await offline.answer(app, line, work.rows[line])
            work.add(line, encode(found), found["response"]["status_code"])
            done += 1
            progress(done, len(work.rows))

        await _all([asyncio.create_task(compute(line)) for line in work.wanted])
        return work.write()


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Until all have ended; where one fails, the others are ended."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _lines(source: Path) -> list[bytes]:
    try:
        lines = [line for line in source.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"{source}: cannot be read: {error.strerror}") from None
    if not lines:
        raise UsageError(f"{source}: holds no request: write one a line, as OpenAI's batch files have them")
    return lines


def _checked(lines: list[bytes]) -> tuple[dict[bytes, offline.Row], dict[int, bytes]]:
    """The requests among the lines, and what is said of the others, by their number."""
    rows: dict[bytes, offline.Row] = {}
    refusals: dict[int, bytes] = {}
    names = set[str]()
    for number, line in enumerate(lines):
        try:
            row = offline.read(line)
            if row.custom_id in names:
                raise invalid(f"another row has the custom_id {row.custom_id!r:.100}", "custom_id")
        except Failure as failure:
            refusals[number] = encode(offline.refusal(line, failure)) + b"\n"
        else:
            names.add(row.custom_id)
            rows[line] = row
    return rows, refusals


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written: {error.strerror or error}: choose another place")
