"""Kills commands at random times, as a power cut does, and looks at what is left: the whole file, or none.

    python tools/killing.py --times 200 --minutes 30 --kernels

Verbs that write a file (convert, import, export, prefix), in turn; with --kernels also the first run with an empty
cache of kernels, which compiles them each time.
What counts: a file of another content than an undisturbed run's (wrong), and temporary files that the same command,
run again and to its end, has not removed (not swept). After a killed first run another one must give the same text.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
EDGEQ = [sys.executable, "-m", "edgeq"]


class Verb:
    """A command, the file that it writes into `folder`, and how long it takes undisturbed."""

    def __init__(self, folder: Path, out: str | None, *arguments: str | Path) -> None:
        self.out = None if out is None else folder / out
        self.arguments = [str(one) for one in arguments] + ([] if self.out is None else ["-o", str(self.out)])
        self.cache = folder / "kernels" if out is None else None
        begun = time.monotonic()
        self.whole = self.finish()
        self.seconds = time.monotonic() - begun
        self.clear()

    def _begin(self) -> "subprocess.Popen[bytes]":
        own = {} if self.cache is None else {"EDGEQ_CACHE": str(self.cache), "EDGEQ_KERNELS": str(self.cache)}
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **own}
        return subprocess.Popen(
            [*EDGEQ, *self.arguments], stdout=-1, stderr=-1, env=environment, start_new_session=True
        )

    def finish(self) -> bytes:
        """What it writes, or says, when it is left alone."""
        process = self._begin()
        said, failed = process.communicate()
        if process.returncode:
            raise SystemExit(f"{self.arguments[0]} fails by itself: {failed.decode(errors='replace')[-300:]}")
        return said if self.out is None else self._file()

    def kill(self, rng: random.Random) -> None:
        """Begin, and be killed at some time."""
        process = self._begin()
        time.sleep(self.seconds * rng.random() * 1.05)
        os.killpg(process.pid, 9)
        process.communicate()

    def _file(self) -> bytes:
        assert self.out is not None
        return self.out.read_bytes()

    def wrong(self) -> str | None:
        """What is wrong with what is there after a kill."""
        if self.out is not None and self.out.exists() and self._file() != self.whole:
            return "wrong file"
        if self.out is None and self.finish() != self.whole:
            return "another text"
        return None

    def clear(self) -> None:
        """Remove what it writes."""
        if self.out is not None:
            self.out.unlink(missing_ok=True)
        if self.cache is not None:
            shutil.rmtree(self.cache, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tools/killing.py", description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30.0, help="at most")
    parser.add_argument("--kernels", action="store_true", help="first runs, too")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place), Path(place) / "out"
        out.mkdir()
        (folder / "prompt.txt").write_text("Once upon a time there was a little dog. " * 8)
        model, source = REPOSITORY / "tools" / "tiny_model", folder / "model.eqf"
        subprocess.run([*EDGEQ, "convert", model, "-o", source, "--type", "Q8_0"], check=True, capture_output=True)
        subprocess.run([*EDGEQ, "export", source, "-o", folder / "model.gguf"], check=True, capture_output=True)
        verbs = [
            Verb(out, "converted.eqf", "convert", model, "--type", "Q8_0"),
            Verb(out, "imported.eqf", "import", folder / "model.gguf"),
            Verb(out, "exported.gguf", "export", source),
            Verb(out, "text.eqp", "prefix", source, "--raw", "--prompt", folder / "prompt.txt"),
        ]
        if asked.kernels:
            verbs.append(Verb(out, None, "run", source, "Once upon", "-n", "4", "--temp", "0", "--raw"))
        end = time.monotonic() + 60 * asked.minutes
        for number in range(asked.times):
            if time.monotonic() > end:
                break
            verb = verbs[number % len(verbs)]
            verb.kill(rng)
            counts["killed"] += 1
            counts["a file is there"] += verb.out is not None and verb.out.exists()
            if fault := verb.wrong():
                counts[fault] += 1
            left = [one for one in out.rglob("*") if one.name.endswith(".tmp")]
            counts["temporary files"] += bool(left)
            if left and number % 2:  # those of a dead process are removed by the next one
                verb.finish()
                counts["not swept"] += any(one.exists() for one in left)
            verb.clear()
            for one in left:
                one.unlink(missing_ok=True)
    print(", ".join(f"{what}: {count}" for what, count in counts.items()))
    return 1 if counts["wrong file"] + counts["another text"] + counts["not swept"] else 0


if __name__ == "__main__":
    sys.exit(main())
