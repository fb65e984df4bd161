"""The program before its command line is there, and how signals end it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import edgeq

# sends Ctrl-C when a module is about to be imported
INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["edgeq", "--help"]
signal.signal(signal.SIGINT, signal.{handler})
from edgeq.__main__ import main
sys.exit(main())
"""


def start(handler: str) -> subprocess.CompletedProcess[str]:
    """A process that has this handler of SIGINT: a test in a shell's background would inherit that it is ignored."""
    command = [sys.executable, "-c", INTERRUPT.format(handler=handler)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_interrupt_while_importing_says_nothing():
    done = start("default_int_handler")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_ignored_interrupt_stays_ignored():
    done = start("SIG_IGN")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: edgeq")


# Half-way through a conversion, on a file system where temporary files have names
CONVERT = """
import os, sys, time
import edgeq.quantize.pipeline as pipeline
from edgeq.__main__ import main

if hasattr(os, "O_TMPFILE"):
    del os.O_TMPFILE
encoded, done = pipeline._encoded, []

def slowly(*arguments):
    done.append(1)
    if len(done) == 3:
        print("half", os.listdir(os.path.dirname(sys.argv[-1])), flush=True)
        time.sleep(120)
    return encoded(*arguments)

pipeline._encoded = slowly
sys.exit(main())
"""

# An answer that does not end
ANSWER = """
import sys
from edgeq.__main__ import main
from edgeq.runtime.team import Team

run = Team.run

def forever(*arguments):
    print("half", flush=True)
    while True:
        run(*arguments)

Team.run = forever
sys.exit(main())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    path = tmp_path_factory.mktemp("ended") / "tiny.eqf"
    edgeq.convert(tiny_model, path, "Q8_0")
    return path


def begun(*command: object, ready: str = "half", stdin: bytes = b"") -> subprocess.Popen[bytes]:
    """A program that has written a line which starts with `ready`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, *map(str, command)], **pipes)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None  # which communicate() would flush
    if not process.stdout.readline().decode().startswith(ready):
        pytest.fail(process.communicate()[1].decode())
    return process


def ended(process: subprocess.Popen[bytes], number: int) -> tuple[int, str]:
    """Its exit code after a signal, and what it said of it."""
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    return process.returncode, said.decode().strip()


posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_conversion_that_is_ended_leaves_nothing(tiny_model: Path, tmp_path: Path, number: int):
    out = tmp_path / "m.eqf"
    process = begun("-c", CONVERT, "convert", tiny_model, "--type", "F16", "-o", out, ready="half ['.m.eqf.")
    assert ended(process, number)[0] == 128 + number
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize("verb", ["run", "chat"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_answer_that_is_ended(model: Path, tmp_path: Path, verb: str, number: int):
    (tmp_path / "template").write_text("{{ messages[-1].content }}")
    words = ("Once",) if verb == "run" else ()
    process = begun("-c", ANSWER, verb, model, *words, "--template", tmp_path / "template", stdin=b"Once\n")
    assert ended(process, number) == (128 + number, "")


@posix
def test_an_ignored_hangup_stays_ignored(tiny_model: Path, tmp_path: Path):
    code = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{CONVERT}"
    arguments = ("convert", tiny_model, "--type", "F16", "-o", tmp_path / "m.eqf")
    process = begun("-c", code, *arguments)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    assert ended(process, signal.SIGTERM)[0] == 143
