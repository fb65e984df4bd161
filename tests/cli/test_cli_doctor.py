"""`edgeq doctor` on this machine, on machines that are not there, and with models that do and do not fit."""

import json

import pytest

from edgeq.cli import doctor
from edgeq.quantize.pipeline import convert
from edgeq.runtime import hardware
from edgeq.store import recommended


@pytest.fixture(scope="module")
def tiny(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("doctor") / "tiny.eqf"
    convert(tiny_model, path, "Q4_K_M")
    return path


def test_a_model_that_is_none_is_said_before_anything_is_measured(edgeq, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_speed", lambda facts, team: pytest.fail("measured"))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    for model, message in ((tmp_path / "m.gguf", "is truncated"), (tmp_path / "none.gguf", "no such file")):
        code, out, err = edgeq("doctor", model)
        assert (code, out, err.count("\n")) == (2, "", 1) and message in err


def test_a_machine(edgeq):
    code, out, err = edgeq("doctor", "--no-speed")
    assert (code, err) == (0, "")
    sections = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert sections == ["cpu", "cores", "memory", "kernels", "models"]
    starts = {line.find(line[9:].lstrip()[:1], 9) for line in out.splitlines() if line[9:21].strip()}
    assert starts == {9}, "names of rows stand in a column"


def test_models_that_fit(monkeypatch):
    row = recommended.find("qwen2.5:0.5b")
    facts = {"problems": [], "memory": {"available": row.memory}, "speed": {"read_bandwidth": 10e9}}
    facts["models"] = doctor._models(facts)
    assert facts["models"][-1]["name"] == row.name and facts["models"][-1]["expected_rate"] == 10e9 / row.weights
    assert f"{row.name:15} needs 492.45 MiB, at most 32 tokens/s" in doctor._models_lines(facts["models"])[-2][1]
    assert doctor._models_lines([]) == []


def test_a_model_that_runs(edgeq, tiny):
    code, out, _ = edgeq("doctor", tiny, "--json", "-t", 1)
    facts = json.loads(out)
    assert code == 0 and facts["problems"] == []
    assert facts["cores"]["threads"] == 1
    speed, model = facts["speed"], facts["model"]
    assert speed["read_bandwidth"] > 1e8 and speed["dot_peak"] > 1e8
    assert model["runs"] and model["measured_rate"] > 0
    assert model["expected_rate"] == pytest.approx(speed["read_bandwidth"] / model["bytes_per_token"])
    need = model["need"]
    assert need["total"] == need["weights"] + need["kv"] + need["scratch"] + need["program"]
    assert model["context"] == model["trained_context"] == 512 < model["largest_context"]
    text = "\n".join(doctor.lines(facts))
    assert "tokens/s in a short run" in text and "runs here   yes" in text


def test_a_context_that_does_not_fit(edgeq, tiny):
    code, out, _ = edgeq("doctor", tiny, "--no-speed", "-c", 10**9)
    assert code == 2
    assert "runs here   no" in out
    problem = next(line for line in out.splitlines() if line.lstrip().startswith("!"))
    assert "a context of 1000000000 needs" in problem and "a context of at most" in problem


def test_a_model_that_does_not_fit(edgeq, tiny, monkeypatch):
    monkeypatch.setattr("edgeq.runtime.fit.available_memory", lambda: 5 << 20)
    code, out, _ = edgeq("doctor", tiny)
    assert code == 2, "and it is not run"
    assert "none fits" in out and "no context fits: ask for a smaller type" in out
    assert "! not measured: 5.00 MiB of memory are available" in out


def test_kernels_that_cannot_be_had(edgeq, tiny, monkeypatch):
    monkeypatch.setattr("edgeq.toolchain.library.missing", lambda names: list(names))
    monkeypatch.setattr("edgeq.runtime.kernel_state.no_compiler", lambda: "Numba is not installed")
    code, out, _ = edgeq("doctor", tiny, "--no-speed")
    assert code == 2
    assert "! none are there, and Numba is not installed: pip install 'numba>=" in out
    assert "its kernels are missing: execute:publish" in out


def test_kernels_built_ahead(edgeq, monkeypatch, tmp_path):
    used, refused = tmp_path / "x86-64-v3.eqk", f"{tmp_path}/old.eqk: was built from other kernel sources: remove it"
    others = ["b.eqk: for aarch64"]
    monkeypatch.setattr("edgeq.toolchain.library.built_ahead", lambda: ((used, "x86-64-v3"), [refused], others))
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path))
    out = edgeq("doctor", "--no-speed").out
    assert f"kernels  library     {used}, for x86-64-v3\n         cache       {tmp_path} is empty, " in out
    assert f"         ! {refused}\n" in out
    assert "aarch64" not in out.split("kernels  library")[1]
    monkeypatch.setattr("edgeq.toolchain.library.built_ahead", lambda: (None, [], others))
    out = edgeq("doctor", "--no-speed").out
    assert "kernels  library     none: edgeq kernels build makes one\n" in out
    assert "                     not b.eqk: for aarch64\n" in out
    assert "is empty: first runs compile" in out


def test_a_board(edgeq, monkeypatch):
    fast = hardware.Core((4,), 1024), hardware.Core((5,), 1024)
    slow = hardware.Core((0,), 530), hardware.Core((1,), 530)
    found = hardware.Cores((0, 1, 4, 5), fast, slow, fast, 2.5, 2, ("a reason",))
    monkeypatch.setattr(hardware, "cores", lambda: found)
    monkeypatch.setattr(hardware, "page_size", lambda: 16384)
    out = edgeq("doctor", "--no-speed").out
    assert "cores    fast        2 (CPUs 4, 5)\n         slow        2 (CPUs 0, 1)\n" in out
    assert "threads     2, kept to CPUs 4, 5\n                     a reason\n" in out
    assert "pages       16.00 KiB" in out
    assert "3, asked for; 2 by default\n" in edgeq("doctor", "--no-speed", "-t", 3).out


def test_a_body_that_was_asked_for(edgeq, monkeypatch):
    monkeypatch.setattr(
        "edgeq.simd.isa.host_features", lambda: {"avx2": True, "fma": True, "f16c": True, "avx512f": False}
    )
    monkeypatch.setenv("EDGEQ_ISA", "portable")
    out = edgeq("doctor", "--no-speed").out
    assert "kernels     portable" in out
    assert "not avx512: this CPU has no avx512bw, avx512dq, avx512f, avx512vl" in out
    assert "! EDGEQ_ISA asks for portable, which is slower than need be: unset EDGEQ_ISA" in out


def test_what_is_no_model(edgeq, tmp_path):
    (tmp_path / "m.eqf").write_bytes(b"GGUF")
    code, out, err = edgeq("doctor", tmp_path / "m.eqf", "--no-speed")
    assert (code, out) == (2, "") and "m.eqf" in err and len(err.splitlines()) == 1
