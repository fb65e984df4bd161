"""The scripts of bench/: what they compute and keep, and the engines that they talk to."""

import importlib
import os
import sys
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

import edgeq as package
from edgeq.blocks.reference import decode
from edgeq.cli.roofline import Case
from edgeq.container.reader import open_file
from edgeq.errors import UnsupportedError

BENCH = package.__path__[0] + "/../bench"


@pytest.fixture
def scripts(monkeypatch):
    """The modules of bench/, which are scripts and no package."""
    monkeypatch.syspath_prepend(BENCH)
    names = (
        "batch",
        "compare",
        "convert_speed",
        "export_gguf",
        "gguf_speed",
        "kernels",
        "machine",
        "pair",
        "plot",
        "results_table",
    )
    names += ("mca", "passes", "profile_steps", "rows", "script", "startup", "synthetic", "table_file")
    names += ("turns", "under_load")
    names += ("resume", "sampling", "speculation")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def converted(folder, tiny_model, kind):
    path = folder / f"tiny-{kind}.eqf"
    package.convert(tiny_model, path, kind)
    return path


def test_export_holds_the_same_weights(scripts, tiny_model, tmp_path):
    source, out = converted(tmp_path, tiny_model, "Q8_0"), tmp_path / "tiny.gguf"
    scripts.export_gguf.export(source, out)
    written = {t.name: t for t in gguf.GGUFReader(out).tensors}
    with open_file(source) as file:
        assert written.keys() == file.tensors.keys()
        heads = {"attn_q": 6, "attn_k": 2}
        for info in file.tensors.values():
            weights = gguf.quants.dequantize(written[info.name].data, written[info.name].tensor_type)
            if len(info.shape) == 1:
                assert np.array_equal(weights, file.data(info.name).view(np.float32))
                continue
            ours = decode(file.data(info.name), *info.shape, info.type)
            count = next((n for part, n in heads.items() if part in info.name), 0)
            if count:  # neighbours (2i, 2i + 1) are what halves (i, i + 16) were
                weights = weights.reshape(count, 16, 2, -1).swapaxes(1, 2).reshape(info.shape)
            assert np.array_equal(weights, ours), info.name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-Q8_0.eqf", "tiny.gguf"]


def test_export_of_rows_that_gguf_cannot_hold(scripts, tiny_model, tmp_path):
    source, out = converted(tmp_path, tiny_model, "Q4_K_M"), tmp_path / "tiny.gguf"
    with pytest.raises(UnsupportedError, match=r"token_embd.*multiple of 256, not 192"):
        scripts.export_gguf.export(source, out)
    assert not out.exists()
    targets = scripts.export_gguf.export(source, out, fallback=True)
    assert {to.type for to in targets.values()} == {"Q5_0", "Q5_1", "Q8_0"} and all(to.again for to in targets.values())
    weights = {t.name: t for t in gguf.GGUFReader(out).tensors}["blk.0.ffn_up.weight"]
    with open_file(source) as file:
        info = file.tensors["blk.0.ffn_up.weight"]
        ours = decode(file.data(info.name), *info.shape, info.type)
    again = gguf.quants.dequantize(weights.data, weights.tensor_type)
    assert np.abs(again - ours).max() < 0.05 * np.abs(ours).max()


ECHO = """
import sys
sys.path.insert(0, sys.argv[1])
from turns import serve
def fail():
    raise ValueError("no such thing")
def loud(text):
    print("noise")
    return text
serve("ready", {"loud": loud, "fail": fail, "leave": lambda: sys.exit(3)})
"""


def test_engines_answer_in_turn(scripts, tmp_path):
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    engine = scripts.turns.Engine([sys.executable, str(script), BENCH])
    assert engine.hello == "ready"
    assert engine.ask("loud", text="a") == "a", "what a handler prints does not get among the answers"
    with pytest.raises(scripts.turns.EngineError, match="ValueError: no such thing"):
        engine.ask("fail")
    assert engine.ask("loud", text="b") == "b"
    with pytest.raises(scripts.turns.EngineError, match="ended with code 3"):
        engine.ask("leave")
    engine.close()


def test_processes_that_fail_are_one_line(scripts):
    turns = scripts.turns
    assert turns.wall([sys.executable, "-c", "pass"]) > 0
    with pytest.raises(turns.EngineError, match=r"ended with code 1: ValueError: no such thing$"):
        turns.wall([sys.executable, "-c", "raise ValueError('no such thing')"])
    for start in (turns.wall, turns.Engine):
        with pytest.raises(turns.EngineError, match=r"^/no/python cannot be started"):
            start(["/no/python", "engine.py"])


class FakeEngine:
    """edgeq takes 1 ms a token, the other 2 ms."""

    asked: list[str] = []  # noqa: RUF012
    isa = "avx2"

    def __init__(self, command):
        self.name = "edgeq" if "engine_edgeq" in command[1] else "peer"
        self.hello = {"version": "1.0", "isa": self.isa}
        self.process = SimpleNamespace(pid=os.getpid())

    def ask(self, request, **arguments):
        if request == "kv":
            return [[0, 64]]
        if request == "limits":
            return {"read": 1e12, "dots": {str(bits): 1e12 for bits in arguments["bits"]}}
        self.asked.append(self.name)
        return len(arguments["tokens"]) * (1e-3 if self.name == "edgeq" else 2e-3)

    def close(self):
        pass


def test_compare_takes_turns_and_keeps_results(scripts, tiny_model, tmp_path, monkeypatch, capsys):
    model, results = converted(tmp_path, tiny_model, "Q8_0"), tmp_path / "results" / "cpu.csv"
    monkeypatch.setattr(scripts.pair, "Engine", FakeEngine)

    def run(*arguments):
        FakeEngine.asked.clear()
        monkeypatch.setattr("sys.argv", ["compare.py", str(model), "--results", str(results), *arguments])
        scripts.compare.main()
        return capsys.readouterr().out.splitlines()

    run("--tests", "pp8", "--threads", "1", "--repetitions", "3")
    assert FakeEngine.asked == ["edgeq", "peer"] * 4, "a warm-up and three turns"
    table = run("--tests", "tg4", "pp8", "--threads", "1", "--repetitions", "1")
    assert [line.split(" | ")[1] for line in table[2:]] == ["pp8", "tg4"], "pp8 was replaced where it stood"
    assert table[3].startswith("| tiny-Q8_0 | tg4 | 1 | 1000 | 500 | 2.00 |")
    run("--tests", "pp8", "tg4@d8", "--threads", "2", "--repetitions", "1")
    assert len(run("--table")) == 2 + 4
    cells = {(row["test"], row["threads"]): row for row in scripts.table_file.read(results)}
    deep, flat = cells["tg4@d8", "2"], cells["tg4", "1"]
    assert float(deep["mb_per_token"]) - float(flat["mb_per_token"]) == pytest.approx(8 * 64 / 1e6, rel=0.01)
    assert float(deep["peer_gb_per_second"]) == pytest.approx(float(deep["gb_per_second"]) / 2, rel=0.1)


def test_bad_test_names(scripts, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare.py", "--tests", "xx512"])
    with pytest.raises(SystemExit):
        scripts.compare.main()
    assert "'xx512' is no test" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare.py", "--repetitions", "0"),
        ("compare.py", "nothere.eqf"),
        ("compare.py", "--table", "--results", "nothere.csv"),
        ("compare.py", "--table", "--results", f"{BENCH}/results/quality-tiny_model.csv"),
        ("kernels.py", "--seconds", "-1"),
        ("kernels.py", "--megabytes", "0"),
        ("kernels.py", "--table", "--results", __file__),
        ("profile_steps.py", __file__, "--tokens", "1024"),
        ("profile_steps.py", __file__, "--repetitions", "0"),
        ("memory.py", "nothere.eqf"),
        ("quality.py", ".", "--text", "nothere.txt"),
        ("encode_error.py", "nothere.safetensors"),
        ("gguf_speed.py", "--work", "/no/folder"),
        ("mca.py", "--llvm-mca", "/no/llvm-mca"),
    ],
    ids=" ".join,
)
def test_what_cannot_work_is_refused_in_one_line(scripts, monkeypatch, capsys, arguments):
    module = importlib.import_module(arguments[0].removesuffix(".py"))
    monkeypatch.setattr("sys.argv", list(arguments))
    with pytest.raises(SystemExit) as ended:
        scripts.script.run(module.main)
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and lines[-1].startswith(f"{arguments[0]}: ")
    assert all(line.startswith(("usage:", " ")) for line in lines[:-1])


def test_an_interrupted_script_ends_without_a_word(scripts, capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        scripts.script.run(main)
    assert ended.value.code == 130 and capsys.readouterr().err == ""


def test_an_older_llvm_mca_is_refused(scripts, tmp_path):
    program = tmp_path / "llvm-mca"
    program.write_text("#!/bin/sh\necho 'Debian LLVM version 14.0.6'\n")
    program.chmod(0o755)
    with pytest.raises(UnsupportedError, match="is of LLVM 14: install LLVM 19 or newer"):
        scripts.mca.find_llvm_mca(str(program))
    program.write_text("#!/bin/sh\necho '  LLVM version 20.1.0'\n")
    assert scripts.mca.find_llvm_mca(str(program)) == str(program)


def test_the_peer_gets_a_file_made_from_this_model(scripts, tiny_model, tmp_path):
    model, users = converted(tmp_path, tiny_model, "Q8_0"), tmp_path / "tiny-Q8_0.gguf"
    users.write_bytes(b"somebody else's")

    def made(fallback=False):
        path = scripts.pair.gguf_file(model, SimpleNamespace(gguf=None, fallback=fallback))
        return path, path.stat().st_ino

    first = made()
    assert first[0].name == "tiny-Q8_0.peer.gguf" and made() == first
    assert made(fallback=True)[0].name == "tiny-Q8_0.peer-fallback.gguf"
    os.utime(model, ns=(0, 0))  # another file, and an older one
    again = made()
    assert again[0] == first[0] and again[1] != first[1]
    again[0].with_name(f"{again[0].name}.json").write_text("{")
    assert made()[1] != again[1], "what is not known to be made from it is not used"
    assert users.read_bytes() == b"somebody else's"


def test_rows_are_kept_when_a_later_one_fails(scripts, tiny_model, tmp_path, monkeypatch):
    model, results = converted(tmp_path, tiny_model, "Q8_0"), tmp_path / "cpu.csv"

    class Interrupted(FakeEngine):
        def ask(self, request, **arguments):
            if len(arguments.get("tokens", ())) == 16:
                raise KeyboardInterrupt
            return super().ask(request, **arguments)

    monkeypatch.setattr(scripts.pair, "Engine", Interrupted)
    arguments = ["compare.py", str(model), "--results", str(results), "--threads", "1", "--repetitions", "1"]
    monkeypatch.setattr("sys.argv", [*arguments, "--tests", "pp8", "tg16"])
    with pytest.raises(KeyboardInterrupt):
        scripts.compare.main()
    assert [row["test"] for row in scripts.table_file.read(results)] == ["pp8"]


def test_a_body_has_its_own_rows(scripts, tiny_model, tmp_path, monkeypatch, capsys):
    model, results = converted(tmp_path, tiny_model, "Q8_0"), tmp_path / "cpu.csv"
    arguments = ["--threads", "1", "--repetitions", "1", "--tests", "pp8", "--results", str(results)]
    for isa in ("avx2", "portable", "avx2"):
        monkeypatch.setattr(scripts.pair, "Engine", type("", (FakeEngine,), {"isa": isa}))
        monkeypatch.setattr("sys.argv", ["compare.py", str(model), *arguments])
        scripts.compare.main()
    assert [row["isa"] for row in scripts.table_file.read(results)] == ["avx2", "portable"]
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["compare.py", "--table", "--results", str(results)])
    scripts.compare.main()
    names = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert names == ["| tiny-Q8_0 (avx2)", "| tiny-Q8_0 (portable)"]


def test_a_step_that_does_nothing_is_timed(scripts, tiny_model, tmp_path):
    model = converted(tmp_path, tiny_model, "Q8_0")
    with open_file(model) as file, scripts.profile_steps.Session(file, context=64, threads=1) as session:
        assert 0 < scripts.profile_steps.overhead(session) < 1e-3


def test_the_edgeq_engine(scripts, tiny_model, tmp_path):
    model = converted(tmp_path, tiny_model, "Q8_0")
    engine = scripts.turns.Engine([sys.executable, f"{BENCH}/engine_edgeq.py", str(model), "32"])
    tokens = engine.ask("tokens", text="Once upon a time")
    assert engine.ask("kv", threads=1) == [[0, 6 * 2 * 2 * 32 * 2]], "layers, k and v, heads, head_dim, f16"
    assert engine.ask("seconds", before=tokens, tokens=tokens, batch=True, threads=1) > 0
    one, two = (engine.ask("likeliest", tokens=tokens, threads=n) for n in (1, 2))
    assert one == two and len(one) == len(tokens)
    engine.close()


def test_rows_are_merged_by_their_key(scripts, tmp_path):
    path, kernels = tmp_path / "results" / "kernels.csv", scripts.kernels
    first = kernels.row("norm", "512 tokens", 1, 2.0, 0.5, "GB/s")
    limited = kernels.row("matvec:Q4_K", "1 token", 2, 0.25, 8.0, "GB/s", 10.0)
    scripts.table_file.keep(path, [first, limited])
    scripts.table_file.keep(path, [kernels.row("norm", "512 tokens", 1, 1.0, 1.0, "GB/s")])
    cells = scripts.table_file.read(path)
    assert [(c["kernel"], c["threads"], c["value"]) for c in cells] == [("norm", "1", "1"), ("matvec:Q4_K", "2", "8")]
    assert scripts.table_file.keep(path, []) == cells, "nothing new changes nothing"
    lines = kernels.markdown(cells).splitlines()
    assert lines[2].endswith("| 1 | GB/s |  |") and lines[3].endswith("| 8 | GB/s | 80 % of 10.0 |")


def test_results_of_an_older_version_lack_columns(scripts, tmp_path):
    path = tmp_path / "old.csv"
    path.write_text("kernel,shape,isa,threads,value\nrope:f16,1 token,avx2,1,3\n")
    scripts.table_file.keep(path, [scripts.kernels.row("norm", "512 tokens", 1, 2.0, 0.5, "GB/s")])
    old, new = scripts.table_file.read(path)
    assert (old["kernel"], old["unit"], new["unit"]) == ("rope:f16", "", "GB/s")


def test_files_of_a_machine(scripts, monkeypatch):
    monkeypatch.setattr(scripts.machine, "cpu_name", lambda: "AMD EPYC")
    monkeypatch.setattr(scripts.machine, "cores", lambda: 4)
    monkeypatch.setattr(scripts.machine.llvm, "get_host_cpu_name", lambda: "znver3")
    assert scripts.machine.machine() == "AMD EPYC (znver3), 4 cores"
    assert scripts.machine.results_file().name == "amd-epyc-znver3-4-cores.csv"
    monkeypatch.setattr(scripts.machine, "cpu_name", lambda: "Cortex-A76 (rev 1)")
    monkeypatch.setattr(scripts.machine.llvm, "get_host_cpu_name", lambda: "cortex-a76")
    assert scripts.machine.results_file().name == "cortex-a76-rev-1-4-cores.csv"
    assert scripts.machine.results_file("kernels").name == "kernels-cortex-a76-rev-1-4-cores.csv"


def test_kernels_are_timed_in_runs_and_the_head_apart(scripts):
    runs = scripts.kernels.runs(["norm", "matmul:Q4_K", "matmul:Q4_K", "norm", "matmul:Q6_K"])
    assert runs == [("norm", 0, 1), ("matmul:Q4_K", 1, 2), ("norm", 3, 1), ("matmul:Q6_K", 4, 1)]
    walks = [[(name, scale * (first + 1)) for name, first, _ in runs] for scale in (1.0, 2.0, 10.0)]
    assert scripts.kernels.per_kernel(walks) == {"norm": 2 * (1 + 4), "matmul:Q4_K": 4, "head": 10}


def test_a_synthetic_model_runs(scripts):
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = scripts.synthetic.SyntheticFile("Q8_0", nbytes_at_least=100_000, vocab_size=32, **shape)
    layers = model.metadata["config"]["num_hidden_layers"]
    smaller = scripts.synthetic.SyntheticFile("Q8_0", layers - 1, vocab_size=32, **shape)
    assert smaller.nbytes < 100_000 <= model.nbytes
    with scripts.kernels.open_session(model, 1, context=32) as session:
        scripts.kernels.fill(session, 32)
        walked = scripts.kernels.walk(session, 1, 31)
        assert {"matmul:Q8_0", "norm", "silu_mul"} <= {name for name, _ in walked}
        assert np.isfinite(session.plan.logits[0]).all() and session.plan.logits[0].any()


def compared(scripts, test, **columns):
    cells = dict.fromkeys(scripts.results_table.Row.__dataclass_fields__, "")
    return cells | {"test": test, "model": "m", "same_bits": "True", "threads": "2", "ratio": "2"} | columns


def test_what_is_drawn(scripts):
    deep = compared(scripts, "tg8@d16", gb_per_second="10", peer_gb_per_second="6", read_bandwidth_gb="20")
    old = compared(scripts, "tg8", gb_per_second="10", read_bandwidth_gb="20")
    other_bits = old | {"same_bits": "False"}
    prompt = compared(scripts, "pp8", g_multiply_adds_per_second="50", dot_peak_g="100")
    plain = compared(scripts, "pp8", g_multiply_adds_per_second="50")
    generation, prompts = scripts.plot.panels([deep, old, other_bits, prompt, plain])
    assert [(bar.label, bar.ours, bar.peer, bar.limit) for bar in generation.bars] == [
        ("m  tg8@d16", 10, 6, 20),
        ("m  tg8", 10, 5, 20),
        ("m *  tg8", 10, None, 20),
    ]
    assert [(bar.ours, bar.peer, bar.limit) for bar in prompts.bars] == [(50, 25, 100)], "plain weights have no peak"
    assert scripts.plot.panels([plain]) == []


def test_what_a_start_imports(scripts):
    text = "import time: self [us] | cumulative | imported package\nimport time:  3 |  9 |   numpy\n"
    assert scripts.startup.modules(text + "import time:  1 |  1 |     numpy.core\n") == "numpy"
    assert scripts.startup.modules(text + "import time:  1 |  1 | numba\n") == "numba numpy"
    assert scripts.startup.modules("import time:  1 |  1 | numbers\n") == "neither"


def test_slowdown_under_load(scripts):
    pair = SimpleNamespace(model=SimpleNamespace(stem="m"))
    row = scripts.under_load.row(pair, Case("tg", 10), 2, 2, "edgeq", [1.0, 2.0, 9.0], [4.0, 5.0, 8.0])
    assert (row.alone, row.loaded, row.slowdown) == (5.0, 2.0, 2.5)


def test_load_ends_with_its_block(scripts):
    with scripts.under_load.Load(2) as load:
        assert [child.poll() for child in load.children] == [None, None]
    assert all(child.poll() is not None for child in load.children)


def test_rounding_errors_are_those_of_the_codes(scripts, tiny_model, tmp_path):
    exact, made = (converted(tmp_path, tiny_model, kind) for kind in ("F16", "Q8_0"))
    errors = scripts.convert_speed.edgeq_errors(exact, made, rows=64)
    assert 0.003 < errors.relative < 0.007 and str(errors) == "43 Q8_0"
    assert scripts.convert_speed.edgeq_errors(exact, exact, rows=64).relative == 0
    for path in (exact, made):
        scripts.export_gguf.export(path, path.with_suffix(".gguf"))
    theirs = scripts.convert_speed.llama_errors(exact.with_suffix(".gguf"), made.with_suffix(".gguf"), rows=10**6)
    ours = scripts.convert_speed.edgeq_errors(exact, made, rows=10**6)
    assert theirs.relative == pytest.approx(ours.relative, rel=1e-6), "the same bits, the rows of q and k re-ordered"


def test_gguf_speed(scripts, tmp_path, monkeypatch, capsys):
    """A model that goes out and comes in again, and a line of figures."""
    monkeypatch.setattr(scripts.synthetic, "SHAPE", scripts.synthetic.SHAPE | {"hidden_size": 256, "vocab_size": 64})
    arguments = ["gguf_speed.py", "Q8_0", "--megabytes", "1", "--threads", "1", "--repetitions", "1"]
    monkeypatch.setattr("sys.argv", [*arguments, "--work", str(tmp_path)])
    scripts.gguf_speed.main()
    cells = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")
    assert cells[0] == "Q8_0" and all(float(cell) > 0 for cell in cells[1:]) and len(cells) == 5
    assert list(tmp_path.iterdir()) == []


def test_rows_with_one_scale_beside_those_of_q8_0(scripts, monkeypatch, capsys):
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 2}
    monkeypatch.setattr(scripts.synthetic, "SHAPE", {**shape, "vocab_size": 64})
    monkeypatch.setattr(scripts.rows, "dot_peak", lambda team, bits, repetitions: 1e12)
    monkeypatch.setattr(sys, "argv", ["rows.py", "--rounds", "1", "--layers", "1"])
    scripts.rows.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["128", "Q8_0", "I8_R", "8", "Q8_0", "I8_R", "1", "Q8_0", "I8_R"]
    assert all("times as fast, packing" in line for line in lines[::3])
    assert "G multiply-adds/s" in lines[1] and "% of the peak; at best" in lines[1]


def test_sampling(scripts, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sampling.py", "--vocab", "10000", "--repetitions", "1"])
    scripts.sampling.main()
    headings, _, *rows = capsys.readouterr().out.splitlines()
    assert headings == "| options | fastest | median |"
    assert [row.split(" | ")[0] for row in rows] == [
        f"| {name}" for name in (*scripts.sampling.CASES, "logprobs of 20")
    ]
    assert all(float(cell) > 0 for row in rows for cell in row.strip("| ").split(" | ")[1:])


def test_speculation_is_timed(scripts, tiny_model, tmp_path, monkeypatch, capsys):
    model = converted(tmp_path, tiny_model, "Q8_0")
    monkeypatch.setattr(sys, "argv", ["speculation.py", str(model), "--tokens", "8", "--repetitions", "1"])
    scripts.speculation.main()
    headings, _, *rows = capsys.readouterr().out.splitlines()
    assert headings == "| answer | tokens | tokens/s | speculating | ratio | right guesses |"
    assert [row.split(" | ")[:2] for row in rows] == [["| repeat", "8"], ["| summary", "8"], ["| chat", "8"]]


def test_passes_of_a_checkout_beside_this_one(scripts, tiny_model, tmp_path, monkeypatch, capsys):
    model = converted(tmp_path, tiny_model, "Q8_0")
    options = ["--tokens", "1", "3", "--repetitions", "1", "--beside", BENCH + "/.."]
    monkeypatch.setattr(sys, "argv", ["passes.py", str(model), *options])
    scripts.passes.main()
    _, headings, _, beside, this = capsys.readouterr().out.splitlines()
    assert headings == "| model | edgeq | 1 | 3 |"
    assert beside.startswith("| tiny-Q8_0 | beside | ") and this.startswith("| tiny-Q8_0 | this | ")
    assert scripts.passes.cells({1: [0.2, 0.1, 0.3], 2: [0.5]}) == ["200.0", "500.0 (2.50)"]


def test_sequences_at_once(scripts, tiny_model, tmp_path, monkeypatch, capsys):
    model = converted(tmp_path, tiny_model, "Q8_0")
    (tmp_path / "bench").write_text("#!/bin/sh\necho noise\necho '|    PP |     TG |    B |   S_TG t/s |'\n")
    with open(tmp_path / "bench", "a") as file:
        file.write("echo '|-------|--------|------|----------|'\necho '|    16 |      4 |    2 |     163.83 |'\n")
    os.chmod(tmp_path / "bench", 0o755)
    options = ["--sequences", "1", "3", "--tokens", "4", "--repetitions", "1", "--threads", "1"]
    options += ["--gguf", str(model), "--llama", str(tmp_path / "bench")]
    monkeypatch.setattr(sys, "argv", ["batch.py", str(model), *options])
    scripts.batch.main()
    names, *rows = (line.split(",") for line in capsys.readouterr().out.splitlines())
    assert tuple(names) == scripts.batch.COLUMNS
    engines = [(row[3], row[4]) for row in rows]
    assert engines == [(name, count) for count in "13" for name in ("edgeq", "edgeq answers", "llama.cpp")]
    assert all(float(row[5]) > 0 for row in rows) and {row[5] for row in rows[2::3]} == {"163.83"}


def test_a_conversation_is_read_and_users_share_its_beginning(scripts, tiny_model, tmp_path, monkeypatch):
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    model = converted(tmp_path, tiny_model, "Q8_0")
    monkeypatch.setattr(scripts.resume, "MESSAGE", 60)
    (tmp_path / "text").write_text("Once upon a time there was a cat. " * 30)
    load = package.load
    monkeypatch.setattr(package, "load", lambda path, **options: load(path, chat_template=template, **options))
    options = SimpleNamespace(model=model, threads=1, tokens=200, common=300, users=1, text=tmp_path / "text")
    options.saved = tmp_path / "a.eqp"
    kept = scripts.resume.save(options)
    assert 150 < kept["tokens"] <= 210 and kept["MiB"] > 0
    found = scripts.resume.resume(options)
    assert 0 < found["computed"] < 25 and 0 < found["load"] < found["first"] and found["own"] > 0 < found["step"]
    one, options.users = scripts.resume.share(options), 3
    several = scripts.resume.share(options)
    assert (one["pages"], several["pages"]) == (1 + 1, 1 + 3), "the whole page once, and another for each"
    scripts.resume.forget(options.saved)
    assert scripts.resume.resume(options)["computed"] == found["computed"]
