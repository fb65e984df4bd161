"""A short lane of tools/fuzz: the first files of each reader. By hand it goes on for minutes."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parent.parent / "tools" / "fuzz"
CASES = {
    "eqf": 30,
    "gguf": 40,
    "safetensors": 300,
    "torch": 300,
    "tokenizer.json": 150,
    "tokenizer.model": 150,
    "tokenizer_config": 60,
    "config": 200,
    "config.families": 200,
    "checkpoint": 25,
    "template": 200,
    "kernels": 300,
    "eqf.head": 100,
    "gguf.head": 100,
    "prefix": 60,
    "adapter.peft": 100,
    "adapter.gguf": 40,
    "calibration": 15,
    "plan": 20,
    "requests": 30,
    "texts": 100,
    "seen": 40,
    "image": 200,
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured through /proc")


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the tool says, run by itself: readers may die."""
    return subprocess.run(
        [sys.executable, FUZZ, *arguments], capture_output=True, text=True, timeout=600, env={**os.environ}
    )


@pytest.mark.parametrize("reader", CASES)
def test_nothing_but_answers_and_clear_lines(reader: str):
    done = fuzz(reader, "--cases", str(CASES[reader]))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stdout.splitlines()[-1].split()[:2] == [reader, str(CASES[reader])], done.stdout


def test_the_tool_finds_faults(tmp_path: Path):
    """An uncaught exception, a death, time, memory: each is counted as what it is."""
    code = f"""
import os, sys, time
sys.path.insert(0, {str(FUZZ)!r})
import readers
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("fuzz_main", {str(FUZZ / "__main__.py")!r})
fuzz = module_from_spec(spec)
spec.loader.exec_module(fuzz)
from edgeq.errors import EdgeqError

def check(path):
    what = path.read_bytes()
    if what == b"uncaught":
        raise KeyError("x")
    if what == b"dies":
        os.abort()
    if what == b"hangs":
        while True:
            pass
    if what == b"memory":
        bytearray(b"x") * (400 << 20)
    if what == b"refused":
        raise EdgeqError("one line")

kinds = [b"uncaught", b"dies", b"hangs", b"memory", b"refused", b"accepted"]
reader = readers.Reader("own", lambda folder: [b"sound"], lambda rng, data: kinds.pop(0), check)
class Cases(fuzz.Cases):
    def content(self, case):
        return [b"uncaught", b"dies", b"hangs", b"memory", b"refused", b"accepted"][case]
fuzz.Cases, fuzz.PATIENCE = Cases, 4.0
from pathlib import Path
counts, _ = fuzz.Supervisor(reader, 0, Path({str(tmp_path)!r})).run(0, 6, None)
print(sorted(counts.items()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ})
    assert done.stdout.strip() == str([("files", 6), ("hangs", 1), ("memory", 1), ("refused", 1), ("uncaught", 2)]), (
        done.stdout + done.stderr
    )


def test_an_archive_is_the_same_at_any_time(monkeypatch: pytest.MonkeyPatch):
    """A zip file keeps dates: they must be none of today's."""
    monkeypatch.syspath_prepend(str(FUZZ))
    import mutate_checkpoints
    import seeds

    def made(year: int) -> list[bytes]:
        monkeypatch.setattr(time, "localtime", lambda *_: time.struct_time((year, 1, 1, 0, 0, 0, 0, 1, 0)))
        return [mutate_checkpoints.torch(random.Random(i), seeds.torch()) for i in range(10)]

    assert made(2020) == made(2030)
