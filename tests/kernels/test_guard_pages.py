"""Kernels read and write no byte beyond their buffers: tests of them, on memory between unmapped pages.

All of them: `PYTHONPATH=tests pytest -p guard_memory --guard after tests/kernels/guard_cases.py tests/kernels`, and
with `--guard before`.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_calls import BODIES

from edgeq.system import environment

TESTS = Path(__file__).resolve().parents[1]
BODY = next(body for body in BODIES if body.native)  # the best of this machine
CASES = {  # which of guard_cases.py, by the end that is guarded
    "after": f"matmul and {BODY} or embedding or Q4_K or I8_R",
    "before": "Q4_K or F16",
}
OTHERS = [
    "test_attention.py::test_attention_matches_twin[37-500-8-1-48-10-f16]",
    "test_attention.py::test_attention_matches_twin[1-700-14-2-64-0-f32]",
    "test_attention.py::test_a_q8_0_cache[6-2-64]",
    "test_attention.py::test_latents_of_a_window",
    "test_elementwise.py::test_rope_matches_twin_and_fills_the_pages[48-True-f16]",
    "test_recurrent_kernels.py::test_causal_conv_matches_twin_in_any_pieces[silu-True-3]",
    f"test_elementwise.py::test_quantize_matches_twin[21-{BODY}]",
]
OVERRUN = """
import ctypes, guard_memory
def test_overrun():
    buffer = guard_memory.guarded(128)
    found = buffer.ctypes.data
    ctypes.string_at(found, 128)
    {}
"""
FAULTS = {
    "after": ["ctypes.string_at(found, 129)", "ctypes.memset(found - 1, 1, 1)"],
    "before": ["ctypes.string_at(found - 1, 1)", "ctypes.memset(found + 128, 1, 1)"],
}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="mprotect is of POSIX")


def guarded(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "guard_memory", "-p", "no:cacheprovider", *arguments]
    own = environment.of_child(PYTHONPATH=path)
    return subprocess.run(command, capture_output=True, text=True, env=own, cwd=TESTS.parent)


@pytest.mark.parametrize("side", CASES)
def test_kernels_keep_within_their_buffers(side: str):
    kernels = TESTS / "kernels"
    of_types, others = [str(kernels / "guard_cases.py"), "-k", CASES[side]], [str(kernels / name) for name in OTHERS]
    for arguments in (of_types, others):
        found = guarded(f"--guard={side}", *arguments)
        assert found.returncode == 0, f"{found.stdout}{found.stderr}"[-3000:]
        buffers = re.search(r"(\d+) buffers right \w+ an unmapped page, 0 faults", found.stdout)
        assert buffers is not None and int(buffers[1]) > 500


@pytest.mark.parametrize(("side", "fault"), [(side, i) for side in FAULTS for i in range(2)])
def test_a_byte_too_many_would_be_noticed(side: str, fault: int, tmp_path: Path):
    """Beyond the guarded end by the processor; at the other one, if it is written, when the buffer is looked at."""
    (tmp_path / "test_overrun.py").write_text(OVERRUN.format(FAULTS[side][fault]))
    found = guarded(str(tmp_path / "test_overrun.py"), f"--guard={side}", f"--rootdir={tmp_path}")
    assert found.returncode == -(signal.SIGABRT if fault else signal.SIGSEGV)
