"""The program before its command line is there."""

import subprocess
import sys

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
