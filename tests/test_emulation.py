"""The emulated lanes' own logic: what they do where nothing can be fetched, where results differ, where time is up."""

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

sys.path.insert(1, str(ROOT / "tests" / "models"))

import bochs  # noqa: E402  (tools/ is no package)
import emulated_results  # noqa: E402
import emulation  # noqa: E402
import random_checkpoints  # noqa: E402

from edgeq.container.reader import open_file  # noqa: E402
from edgeq.ops import catalog  # noqa: E402
from edgeq.quantize.pipeline import convert  # noqa: E402
from edgeq.runtime.session import Session  # noqa: E402
from edgeq.simd import cpuinfo  # noqa: E402
from edgeq.simd.isa import TABLE  # noqa: E402
from edgeq.toolchain import library  # noqa: E402

NOWHERE = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}


@pytest.mark.parametrize(
    ("tool", "why"),
    [("arm_emulation", "apt-get is not installed here\n"), ("x86_emulation", "")],
)
def test_one_line_where_nothing_can_be_fetched(tool: str, why: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--cache", str(tmp_path / "cache")]
    done = subprocess.run(command, env={"PATH": str(tmp_path), **NOWHERE}, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (emulation.SKIPPED, "", 1)
    assert done.stdout.startswith(f"{tool}: skipped: {why}")


@pytest.mark.parametrize(
    ("found", "wrong", "says"),
    [
        ({}, 0, ""),
        ({"logits m": np.float32([1, -0.0])}, 1, "DIFFERS: logits m"),
        ({"body": np.array("neon")}, 1, "the body neon was chosen"),
        ({"text n": np.zeros(1, np.uint8)}, 1, "other results"),
    ],
)
def test_differences_count(found, wrong, says, tmp_path, monkeypatch, capsys):
    expected = {"body": np.array("neon_i8mm"), "logits m": np.float32([1, 0])}
    np.savez(tmp_path / "expected.npz", **expected)
    monkeypatch.setattr(emulated_results, "results", lambda folder: expected | found)
    for name in ("numba", "llvmlite"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert emulated_results.compare(tmp_path, "neon_i8mm") == wrong
    assert says in capsys.readouterr().out


def test_nothing_begins_when_time_is_up():
    began = []
    assert emulation.check("max", "bits", lambda *job: began.append(job) or (0, ""), emulation.Clock(0)) is None
    assert began == []
    assert emulation.Clock(1).left > 50 and not emulation.Clock(None).is_over


def test_two_runs_do_not_share_a_cache(tmp_path):
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        emulation.take(first, tmp_path, emulation.Clock(None))
        with pytest.raises(emulation.Unavailable, match="in use by another run"):
            emulation.take(second, tmp_path, emulation.Clock(0.001))


def test_models_ask_for_every_family_of_kernels(tmp_path):
    small = [model for model in emulated_results.MODELS if model.checkpoint not in emulated_results.REAL]
    asked: set[str] = set()
    for model in small:
        path = model.path(tmp_path)
        checkpoint = random_checkpoints.write(model.checkpoint, tmp_path / model.checkpoint)
        convert(checkpoint, path, model.type, allow_no_tokenizer=True)
        with open_file(path) as file, Session(file, context=16, threads=1, kv=model.kv) as session:
            asked |= set(session.plan.kernels)
    # by own tests, by every model, by doctor, by images
    used_otherwise = {"encode", "mend", "rearrange", "execute", "probe", "given_rows"}
    families = catalog.variants(library.chosen_isa()).keys() - used_otherwise
    assert {name.partition(":")[0] for name in asked} == families
    assert {"rope:f16", "rope:f32", "rope:q8_0", "norm:add", "elementwise:softcap"} <= asked


@pytest.mark.parametrize("name", ["lfm2-bias-Q8_0", "granite-4-h-Q4_K_M"])
def test_a_saved_text_is_read_not_computed(name, tmp_path):
    model = next(model for model in emulated_results.RESUMED if model.name == name)
    checkpoint = random_checkpoints.write(model.checkpoint, tmp_path / model.checkpoint)
    convert(checkpoint, model.path(tmp_path), model.type, allow_no_tokenizer=True)
    written, read = (emulated_results._resumed(model, tmp_path, saves) for saves in (True, False))
    assert written[f"resumed {name}, known"] > emulated_results.SAVED
    assert written.keys() == read.keys() and all(np.array_equal(written[key], read[key]) for key in read)


def test_texts_are_gone_on_with_over_all_kinds_of_states():
    assert set(emulated_results.RESUMED) <= set(emulated_results.MODELS), "else they are not converted"
    assert {model.kv for model in emulated_results.RESUMED} == {None, "q8_0"}


# ---- the emulated x86 CPU, without its emulator ----


def placed(code: str) -> tuple[ctypes.Array[ctypes.c_char], int]:
    """Memory that ends with this code, and where that is."""
    memory = ctypes.create_string_buffer(bytes.fromhex(code).rjust(64, b"\x90"), 64)
    return memory, ctypes.addressof(memory) + 64


def test_every_feature_of_an_x86_body_is_asked_of_the_cpu():
    asked = {name for _, _, bits in bochs._FLAGS for name in bits}
    assert asked <= set(cpuinfo._X86)
    wanted = set().union(*(isa.needs for isa in TABLE if "avx2" in isa.needs))
    assert wanted <= {cpuinfo._LLVM_NAMES.get(name, name) for name in asked}


@pytest.mark.parametrize(
    ("code", "instead"),  # as GNU as has them
    [
        # vscatterqps [zmm19], ymm20
        (
            "62e27d41a3241d00000000",
            "62f1fd487f05b6ffffff 62b1fd486fc3 62e27d49a3240500000000 62f1fd486f059bffffff",
        ),
        # vgatherqps ymm0, [rax + 4 zmm27 + 8]
        (
            "62b27d4293449802",
            "62f1fd487f0db6ffffff 6291fd486fcb 62f27d4a93448802 62f1fd486f0d9effffff",
        ),
        # vpscatterdd [r13 + 8 zmm24 + 0x12345], zmm3
        (
            "62927d41a09cc545230100",
            "62f1fd487f05b6ffffff 6291fd486fc0 62d27d49a09cc545230100 62f1fd486f059bffffff",
        ),
    ],
)
def test_indices_of_a_scatter_move_to_a_register_that_bochs_takes(code, instead):
    _memory, after = placed(code)
    detours = bochs._Detours()
    start = detours.around(after)
    there = bytes.fromhex(instead) + bytes.fromhex("ff2500000000") + after.to_bytes(8, "little")
    assert start == detours.around(after) and ctypes.string_at(start, len(there)) == there


@pytest.mark.parametrize(
    "code",
    [
        "62f27d49a3241d00000000",  # vscatterqps [zmm3], ymm4: Bochs takes it
        "6211fd486f442401",  # vmovdqa64 zmm8, [r12 + 64]
        "62e27d41a3241d000000",  # not whole
    ],
)
def test_no_other_instruction_is_taken_for_such_a_scatter(code):
    _memory, after = placed(code)
    assert bochs._Detours().around(after) is None


def test_the_tests_that_emulated_cpus_run_are_there():
    tests = Path(__file__).resolve().parent
    assert emulation.KERNEL_TESTS and all((tests / name).is_file() for name in emulation.KERNEL_TESTS)
