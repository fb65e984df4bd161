"""Throws changed files at the readers, and counts what does not end in an answer or in one clear line.

    python tools/fuzz gguf --minutes 10      one reader, by the clock
    python tools/fuzz all --cases 500        all, so many files each: the same ones every time
    python tools/fuzz gguf --seed 7 --only 123   one file again, with its traceback; --keep FOLDER writes it

What counts: an exception that is not edgeq's, or a process that dies (uncaught); a message that is longer than 1 KB or
more than one line (uncaught too); more than 2 s (hangs); more than 300 MB above what the process had before (memory).
Files are read in a child, which is started again where it dies.
"""

import argparse
import contextlib
import json
import os
import random
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path[0:0] = [str(Path(__file__).resolve().parents[1].parent)]

from messages import check_message  # noqa: E402
from readers import READERS, Reader  # noqa: E402

SECONDS, BYTES = 2.0, 300 << 20
PATIENCE = 20.0  # seconds after which a child is ended
PREPARING = 600.0  # before its first file: kernels may have to be compiled
MEMORY = "/dev/shm"  # where files are no disk's
ROOM = 6 << 30  # bytes of address space that a child may take beyond what it has


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tools/fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("reader", choices=[*READERS, "all"])
    parser.add_argument("--minutes", type=float, help="of each reader")
    parser.add_argument("--cases", type=int, default=500, help="of each reader, where no --minutes are given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--only", type=int, help="this file alone, in this process")
    parser.add_argument("--keep", type=Path, help="a folder for files that count")
    asked = parser.parse_args()
    chosen = list(READERS.values()) if asked.reader == "all" else [READERS[asked.reader]]
    bad = 0
    print("reader             files  refused  uncaught  hangs  memory")
    for reader in chosen:
        with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
            if asked.only is not None:
                _again(reader, asked.seed, asked.only, Path(folder), asked.keep)
                continue
            counts, findings = Supervisor(reader, asked.seed, Path(folder)).run(asked.first, asked.cases, asked.minutes)
            for one in findings.values():
                print(f"  {one['kind']}: {one['what']} (file {one['case']}{', and more' * one['more']})")
                if asked.keep:
                    asked.keep.mkdir(exist_ok=True)
                    kept = asked.keep / f"{reader.name}-{asked.seed}-{one['case']}"
                    kept.write_bytes(Cases(reader, asked.seed, Path(folder)).content(one["case"]))
            numbers = [counts[key] for key in ("files", "refused", "uncaught", "hangs", "memory")]
            print("{:<16} {:>7} {:>8} {:>9} {:>6} {:>7}".format(reader.name, *numbers), flush=True)
            bad += sum(numbers[2:])
    return 1 if bad else 0


class Cases:
    """The changed files of a reader, by number: always the same ones."""

    def __init__(self, reader: Reader, seed: int, folder: Path) -> None:
        self.reader, self.seed = reader, seed
        self.sound = reader.seeds(folder)

    def content(self, case: int) -> bytes:
        rng = random.Random(f"{self.seed} {self.reader.name} {case}")
        return self.reader.change(rng, rng.choice(self.sound))


class Supervisor:
    """Runs files in children, and counts."""

    def __init__(self, reader: Reader, seed: int, folder: Path) -> None:
        self.reader, self.seed, self.folder = reader, seed, folder
        self.counts: Counter[str] = Counter()
        self.findings: dict[tuple[str, str], dict] = {}

    def run(self, first: int, cases: int, minutes: float | None) -> tuple[Counter[str], dict]:
        end = None if minutes is None else time.monotonic() + 60 * minutes
        last = first + cases if end is None else sys.maxsize
        while first < last and (end is None or time.monotonic() < end):
            first = self._child(first, last, end)
        return self.counts, self.findings

    def _child(self, first: int, last: int, end: float | None) -> int:
        """Files from `first` on, as far as one child gets; the number of the next one."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            code = 0
            try:
                _work(self.reader, self.seed, self.folder, first, last, end, write)
            except BaseException:
                traceback.print_exc(limit=-5, file=sys.stdout)
                sys.stdout.flush()
                code = 1
            os._exit(code)
        os.close(write)
        at, hung, rest, begun = first, False, b"", False
        while True:
            ready = select.select([read], [], [], PATIENCE if begun else PREPARING)[0]
            if not ready:
                hung = True
                os.kill(pid, signal.SIGKILL)
                break
            data = os.read(read, 1 << 16)
            if not data:
                break
            begun = True
            *lines, rest = (rest + data).split(b"\n")
            for line in filter(None, lines):
                at = self._hear(line) + 1
        os.close(read)
        status = os.waitpid(pid, 0)[1]
        if not begun or (os.WIFEXITED(status) and os.WEXITSTATUS(status)):
            raise SystemExit(f"{self.reader.name}: the sound files cannot be made or read")
        if hung or os.WIFSIGNALED(status):
            kind = "hangs" if hung else "uncaught"
            what = f"more than {PATIENCE:.0f} s" if hung else f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
            self.counts["files"] += 1
            self._note(kind, what, at)
            at += 1
        elif end is not None or at == first:
            at = max(at, first + 1)
        return at

    def _hear(self, line: bytes) -> int:
        case, refused, found = line.split(b" ", 2)
        self.counts["files"] += 1
        self.counts["refused"] += int(refused)
        for kind, what in json.loads(found) if found != b"[]" else ():
            self._note(kind, what, int(case))
        return int(case)

    def _note(self, kind: str, what: str, case: int) -> None:
        self.counts[kind] += 1
        what = (
            re.sub(r"0x[0-9a-f]+|\b\d+\b(?! [A-Z])", "#", what.split(" from ")[0])
            + what[len(what.split(" from ")[0]) :]
        )
        known = self.findings.setdefault((kind, what), {"kind": kind, "what": what, "case": case, "more": -1})
        known["more"] = min(known["more"] + 1, 1)


def _work(reader: Reader, seed: int, folder: Path, first: int, last: int, end: float | None, write: int) -> None:
    """The child: a line for each file."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # what libraries print of their panics
    cases = Cases(reader, seed, folder)
    path = folder / f"{os.getpid()}"
    path.mkdir()
    memory = Memory()
    for content in cases.sound:  # so that what is loaded once is loaded
        found = _measure(reader, path, content, memory)
        assert not found["found"] and not found["refused"] * (reader.name != "config"), found
    _compile_no_more()
    os.write(write, b"\n")
    room = _peak() + ROOM
    resource.setrlimit(resource.RLIMIT_DATA, (room, room))
    for case in range(first, last):
        if end is not None and time.monotonic() > end:
            return
        line = _measure(reader, path, cases.content(case), memory)
        os.write(write, f"{case} {line['refused']} {json.dumps(line['found'])}\n".encode())


def _compile_no_more() -> None:
    """A file may need a kernel that sound ones do not: to compile it takes seconds, which are not its reader's."""
    from edgeq.errors import KernelError
    from edgeq.toolchain import library

    def refuse(name: str, isa: object) -> None:
        raise KernelError(f"kernel {name} is not compiled for this")

    library._check_compiler = refuse


class Memory:
    """Tells how much more was taken, at any time since it was last asked. To ask is cheap; to begin anew is not."""

    def __init__(self) -> None:
        self._before = _reset_peak()

    def more(self) -> int:
        """Bytes."""
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - self._before
        if more > BYTES // 8:
            self._before = _reset_peak()
        return more


def _measure(reader: Reader, folder: Path, content: bytes, memory: Memory) -> dict:
    """What came of one file."""
    from edgeq.errors import EdgeqError

    file = folder / f"case.{'eqf' if reader.name == 'eqf' else 'gguf' if reader.name == 'gguf' else 'bin'}"
    file.write_bytes(content)
    found: list[tuple[str, str]] = []
    refused = 0
    clock = time.process_time()  # other programs may keep the processors busy
    try:
        reader.check(file)
    except EdgeqError as error:
        refused = 1
        if what := check_message(error):
            found.append(("uncaught", f"{what} from {_place(error)}"))
    except BaseException as error:
        kind = "memory" if isinstance(error, MemoryError) else "uncaught"
        found.append((kind, f"{type(error).__name__}: {str(error)[:100]!r} from {_place(error)}"))
    seconds = time.process_time() - clock
    if seconds > SECONDS:
        found.append(("hangs", f"takes {seconds:.0f} s"))
    if (more := memory.more()) > BYTES:
        found.append(("memory", f"takes {more >> 20} MiB"))
    return {"refused": refused, "found": found}


def _place(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/edgeq/" in f.filename] or [None]
    last = frames[-1]
    return "outside" if last is None else f"{Path(last.filename).name}:{last.lineno} {last.name}"


def _peak() -> int:
    return _status("VmHWM")


def _reset_peak() -> int:
    """Let the peak be what is resident now; bytes of that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0


def _again(reader: Reader, seed: int, case: int, folder: Path, keep: Path | None) -> None:
    content = Cases(reader, seed, folder).content(case)
    if keep:
        keep.mkdir(exist_ok=True)
        (keep / f"{reader.name}-{seed}-{case}").write_bytes(content)
    file = folder / f"case.{'eqf' if reader.name == 'eqf' else 'gguf' if reader.name == 'gguf' else 'bin'}"
    file.write_bytes(content)
    print(_measure(reader, folder, content, Memory()))
    with contextlib.suppress(KeyboardInterrupt):
        try:
            reader.check(file)
            print("accepted")
        except BaseException:
            traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
