"""`edgeq bench` against the machine's limits, and the scripts of bench/."""

import json
import os
import sys
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
from counting import counting_model

import edgeq as package
from edgeq.blocks.reference import decode
from edgeq.cli import bench, main
from edgeq.container.reader import open_file
from edgeq.errors import UnsupportedError

BENCH = package.__path__[0] + "/../bench"
LIMITS = bench.Limits(read_bandwidth=1e9, dot_peak={4: 2e9, 6: 1e9})


def tensor(kind: str, *shape: int, nbytes: int = 0) -> SimpleNamespace:
    return SimpleNamespace(type=kind, shape=shape, nbytes=nbytes)


LAYER = {"blk.0.attn_q.weight": tensor("Q4_K", 10, 20, nbytes=100), "blk.0.attn_norm.weight": tensor("F32", 20)}
UNTIED = LAYER | {
    "token_embd.weight": tensor("Q4_K", 50, 20, nbytes=7),
    "output.weight": tensor("Q6_K", 50, 20, nbytes=900),
}
TIED = LAYER | {"token_embd.weight": tensor("Q6_K", 50, 20, nbytes=900)}


@pytest.mark.parametrize("tensors", [UNTIED, TIED], ids=["untied", "tied"])
def test_work_of_a_token(tensors):
    asked = bench.work(tensors)
    assert asked.nbytes == 1000, "the head counts once, an embedding that is only looked up does not"
    assert asked.bits == [6, 4]
    assert asked.multiply_adds(1) == {4: 200, 6: 1000}
    assert asked.multiply_adds(512) == {4: 512 * 200, 6: 1000}, "a prompt needs the logits of its last token"


def test_figures_against_the_limits():
    asked = bench.work(UNTIED)
    prompt = bench.Result("pp10", 10, [3e-6, 4e-6, 9e-6]).figures(asked, LIMITS)
    assert prompt["multiply_adds_per_second"] == pytest.approx(3000 / 4e-6), "the median repetition"
    assert prompt["of_dot_peak"] == pytest.approx((2000 / 2e9 + 1000 / 1e9) / 4e-6)
    assert prompt["first_token_seconds"] == 4e-6
    text = bench.Result("tg2", 2, [8e-6], [3e-6, 5e-6]).figures(asked, LIMITS)
    assert text["bytes_per_second"] == pytest.approx(2000 / 8e-6)
    assert text["of_read_bandwidth"] == pytest.approx(0.25)
    assert (text["token_seconds_p50"], text["token_seconds_p99"]) == (3e-6, 5e-6)


def test_plain_weights_have_no_dot_peak():
    asked = bench.work({"output.weight": tensor("BF16", 4, 8, nbytes=64)})
    assert asked.bits == [16]
    assert bench.Result("pp4", 4, [1.0]).figures(asked, LIMITS)["of_dot_peak"] is None


def test_percentiles_are_values_that_occurred():
    values = [float(i) for i in range(1, 101)]
    assert [bench.percentile(reversed(values), p) for p in (0, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert bench.percentile([7.0], 99) == 7.0


@pytest.fixture
def counting(monkeypatch):
    model = counting_model()
    model.file.tensors = dict(UNTIED, **{"token_embd.weight": tensor("Q4_K", 270, 8, nbytes=7)})
    monkeypatch.setattr("edgeq.model.load", lambda path, **options: model)
    monkeypatch.setattr(bench, "machine_limits", lambda threads, bits: LIMITS)
    return model


def test_bench_shows_limits_and_latencies_beside_the_table(counting, capsys):
    assert main(["bench", "m.eqf", "-p", "16", "-n", "4", "-r", "2"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4, "the table stays the one of llama-bench"
    limits, prompt, text = err.strip().splitlines()
    assert limits == "limits  1.0 GB/s read, 2 (4-bit codes), 1 (6-bit codes) G multiply-adds/s"
    assert prompt.startswith("pp16") and "first token after" in prompt and "% of the limit" in prompt
    assert text.startswith("tg4") and "GB/s" in text and "p95" in text and "p99" in text


def test_bench_json_has_all_of_it(counting, capsys):
    assert main(["bench", "m.eqf", "-p", "16", "-n", "4", "-r", "3", "-o", "json"]) == 0
    prompt, text = json.loads(capsys.readouterr().out)
    assert {"multiply_adds_per_second", "of_dot_peak", "first_token_seconds"} <= prompt.keys()
    assert {"bytes_per_second", "of_read_bandwidth", "token_seconds_p50", "token_seconds_p95"} <= text.keys()
    assert text["limits"] == {"read_bandwidth": 1e9, "dot_peak": {"4": 2e9, "6": 1e9}}
    assert text["bytes_per_second"] == pytest.approx(1000 * 4 / sorted(text["seconds"])[1])


# ---- bench/ ----


@pytest.fixture
def scripts(monkeypatch):
    """The modules of bench/, which are scripts and no package."""
    monkeypatch.syspath_prepend(BENCH)
    import compare
    import export_gguf
    import results_table
    import turns

    return SimpleNamespace(compare=compare, export_gguf=export_gguf, results_table=results_table, turns=turns)


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
    assert {to.type for to in targets.values()} == {"Q5_0", "Q8_0"} and all(to.again for to in targets.values())
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


class FakeEngine:
    """edgeq takes 1 ms a token, the other 2 ms."""

    asked: list[str] = []  # noqa: RUF012

    def __init__(self, command):
        self.name = "edgeq" if "engine_edgeq" in command[1] else "peer"
        self.hello = {"version": "1.0", "isa": "avx2"}
        self.process = SimpleNamespace(pid=os.getpid())

    def ask(self, request, **arguments):
        if request == "limits":
            return {"read": 1e12, "dots": {str(bits): 1e12 for bits in arguments["bits"]}}
        self.asked.append(self.name)
        return len(arguments["tokens"]) * (1e-3 if self.name == "edgeq" else 2e-3)

    def close(self):
        pass


def test_compare_takes_turns_and_keeps_results(scripts, tiny_model, tmp_path, monkeypatch, capsys):
    model, results = converted(tmp_path, tiny_model, "Q8_0"), tmp_path / "results" / "cpu.csv"
    monkeypatch.setattr(scripts.compare, "Engine", FakeEngine)

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
    run("--tests", "pp8", "--threads", "2", "--repetitions", "1")
    assert len(run("--table")) == 2 + 3


def test_bad_test_names(scripts, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare.py", "m.eqf", "--tests", "xx512"])
    with pytest.raises(SystemExit):
        scripts.compare.main()
    assert "'xx512' is no test" in capsys.readouterr().err


def test_the_edgeq_engine(scripts, tiny_model, tmp_path):
    model = converted(tmp_path, tiny_model, "Q8_0")
    engine = scripts.turns.Engine([sys.executable, f"{BENCH}/engine_edgeq.py", str(model), "32"])
    tokens = engine.ask("tokens", text="Once upon a time")
    assert engine.ask("seconds", tokens=tokens, batch=True, threads=1) > 0
    one, two = (engine.ask("likeliest", tokens=tokens, threads=n) for n in (1, 2))
    assert one == two and len(one) == len(tokens)
    engine.close()
