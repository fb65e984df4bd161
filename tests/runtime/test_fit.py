"""The estimate of memory, against what sessions reserve and what processes hold."""

import subprocess
import sys
from collections.abc import Callable

import pytest

import edgeq
from edgeq.container.reader import File
from edgeq.errors import MemoryLimitError
from edgeq.models import architecture
from edgeq.runtime import program
from edgeq.runtime.fit import COMPILER, Fit
from edgeq.runtime.program import BATCH, OUTPUT_ROWS, kv_for
from edgeq.runtime.session import Session

MIB = 1 << 20


def fit_of(file: File, batch: int = BATCH) -> Fit:
    return Fit(file, architecture(file.metadata["config"], file.path), kv_for(file), batch, OUTPUT_ROWS, 2)


@pytest.mark.parametrize(("type", "context", "batch"), [("Q4_K_M", 40, 512), ("Q8_0", 1000, 64), ("F32", 512, 512)])
def test_cache_and_buffers_are_the_plans(tiny: Callable[[str], File], type: str, context: int, batch: int) -> None:
    file = tiny(type)
    need = fit_of(file, batch).estimate(context)
    with Session(file, context=context, batch=batch, threads=2) as session:
        memory = session.memory()
    assert need.kv == memory["kv"]
    assert 0 <= need.scratch - memory["scratch"] < 32 << 10, "tables of up to 255 positions more than are asked for"
    assert 0 <= memory["weights"] - need.weights < 1 * MIB, "the rest of the file is header and tokenizer"


FILL = """
import sys, edgeq
context = int(sys.argv[2])
model = edgeq.load(sys.argv[1], context=context, threads=2)
model.session.eval(list(range(context - 8)))
for token in range(8):
    model.session.eval([token])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
BEFORE = """
import edgeq.engine.model, edgeq.runtime.session
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("context", [64, 512])
def test_a_process_holds_what_was_estimated(tiny: Callable[[str], File], context: int) -> None:
    """Within 10 %, with the context full; the program itself is the larger part of so small a model."""
    file = tiny("Q4_K_M")
    Session(file, context=16, threads=2).close()  # compiles what is missing

    def kib(code: str, *arguments: str) -> int:
        command = [sys.executable, "-c", code, *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    real = 1024 * kib(FILL, file.path, str(context))
    estimate = 1024 * kib(BEFORE) + fit_of(file).estimate(context).total
    assert abs(estimate / real - 1) < 0.1


def test_the_largest_context(tiny: Callable[[str], File]) -> None:
    fit = fit_of(tiny("Q4_K_M"))
    for available in (30 * MIB, 64 * MIB, 1000 * MIB):
        largest = fit.largest_context(available)
        assert largest % 16 == 0
        assert fit.estimate(largest).total <= available < fit.estimate(largest + 16).total
    assert fit.largest_context(5 * MIB) == 0


def test_what_is_refused(tiny: Callable[[str], File]) -> None:
    file = tiny("Q4_K_M")
    fit = fit_of(file)
    fit.check(512, 64 * MIB)
    with pytest.raises(MemoryLimitError) as error:
        fit.check(200000, 64 * MIB)
    line = str(error.value)
    assert line.startswith(f"{file.path}: a context of 200000 needs ") and "\n" not in line
    largest = fit.largest_context(64 * MIB)
    more = int(line.partition(f" 64 MiB are available: a context of at most {largest} fits, of ")[2].split()[0])
    assert more > 1.5 * largest and f"{more} with --kv q8_0: ask for less, or insist with --force" in line
    with pytest.raises(MemoryLimitError, match="no context fits: ask for a smaller type"):
        fit.check(16, 5 * MIB)


def test_a_compiler_must_fit_too(tiny: Callable[[str], File], monkeypatch: pytest.MonkeyPatch) -> None:
    fit, before = fit_of(tiny("Q4_K_M")), fit_of(tiny("Q4_K_M")).estimate(64)
    monkeypatch.setattr("edgeq.toolchain.library.missing", lambda names: list(names))
    assert fit.estimate(64).program == before.program + COMPILER
    with pytest.raises(MemoryLimitError):
        fit.check(64, before.total + COMPILER - 1)


def test_loading_is_refused_or_forced(tiny: Callable[[str], File], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny("Q4_K_M").path
    monkeypatch.setattr(program, "available_memory", lambda: 5 * MIB)
    with pytest.raises(MemoryLimitError):
        edgeq.load(path, context=16)
    with edgeq.load(path, context=16, force=True) as model:
        assert model.logits([1]).shape == (1, 2048)


def test_plenty_of_memory_needs_no_plan(tiny: Callable[[str], File], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is little, the exact estimate decides."""
    fit = fit_of(tiny("Q4_K_M"))
    exact = fit.estimate(512).total
    asked: list[int] = []
    monkeypatch.setattr(fit, "estimate", lambda context: asked.append(context) or fit_of(fit.file).estimate(context))
    fit.check(512, 8 << 30)
    assert asked == []
    fit.check(512, exact)
    assert asked == [512]
