"""`edgeq bench`: what a test asks of the machine, and how near it comes to the limits."""

import json
from itertools import count
from types import SimpleNamespace

import pytest
from counting import counting_model

from edgeq.blocks.table import BLOCK_TYPES
from edgeq.cli import bench, main, roofline
from edgeq.cli.roofline import Case, Result
from edgeq.errors import UsageError
from edgeq.ops import catalog
from edgeq.simd.isa import TABLE

LIMITS = roofline.Limits(read_bandwidth=1e9, dot_peak={4: 2e9, 6: 1e9})


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
    asked = roofline.work(tensors)
    assert asked.nbytes == 1000, "the head counts once, an embedding that is only looked up does not"
    assert asked.bits == [6, 4]
    assert asked.multiply_adds(Case("tg", 3)) == {4: 600, 6: 3000}
    assert asked.multiply_adds(Case("pp", 512)) == {4: 512 * 200, 6: 1000}, "a prompt needs its last token's logits"


def test_a_token_reads_weights_and_the_keys_and_values_before_it():
    asked = roofline.work(UNTIED, {0: 10})
    assert asked.bytes_read(Case("tg", 2)) == 2 * 1000 + (1 + 2) * 10
    assert asked.bytes_read(Case("tg", 2, 100)) == 2 * 1000 + (101 + 102) * 10
    assert asked.bytes_read(Case("pp", 2, 100)) is None
    local = roofline.work(UNTIED, {0: 10, 50: 1})
    assert local.bytes_read(Case("tg", 2, 49)) == 2 * 1000 + (50 + 51) * 10 + (50 + 50) * 1, "of layers with a window"


@pytest.mark.parametrize(
    ("name", "case"),
    [("pp512", Case("pp", 512)), ("tg128", Case("tg", 128)), ("tg128@d4096", Case("tg", 128, 4096))],
)
def test_names_of_tests(name, case):
    assert Case.parse(name) == case and str(case) == name


@pytest.mark.parametrize("name", ["xx512", "pp0", "pp", "tg128@4096", "tg128@d", "tg128 @ d1"])
def test_what_is_no_test(name):
    with pytest.raises(UsageError, match="is no test"):
        Case.parse(name)


def test_a_token_reads_the_experts_it_is_sent_to():
    experts = {"blk.0.ffn_up_exps.weight": tensor("Q4_K", 8, 10, 20, nbytes=400)}
    asked = roofline.work(UNTIED | experts, experts_read=2 / 8)
    assert asked.nbytes == 1000 + 100
    assert asked.multiply_adds(roofline.Case("tg", 1)) == {4: 200 + 2 * 200, 6: 1000}


def test_figures_against_the_limits():
    asked = roofline.work(UNTIED)
    prompt = Result(Case("pp", 10), [[0.0, 3e-6], [1.0, 1 + 4e-6], [2.0, 2 + 9e-6]], LIMITS).figures(asked)
    assert prompt["multiply_adds_per_second"] == pytest.approx(3000 / 4e-6), "the median repetition"
    assert prompt["of_dot_peak"] == pytest.approx((2000 / 2e9 + 1000 / 1e9) / 4e-6)
    assert prompt["dot_peak"] == pytest.approx(3000 / (2000 / 2e9 + 1000 / 1e9)), "of the mix of widths"
    assert prompt["first_token_seconds"] == pytest.approx(4e-6)
    assert prompt["bytes_per_second"] is None and prompt["of_read_bandwidth"] is None
    text = Result(Case("tg", 2), [[0.0, 3e-6, 8e-6]], LIMITS).figures(asked)
    assert text["bytes_per_second"] == pytest.approx(2000 / 8e-6)
    assert text["of_read_bandwidth"] == pytest.approx(0.25)
    assert (text["token_seconds_p50"], text["token_seconds_p99"]) == pytest.approx((3e-6, 5e-6))


def test_the_peak_of_every_type_can_be_measured_with_kernels_built_ahead():
    for name, bt in BLOCK_TYPES.items():
        bits = roofline.code_bits(name)
        assert (f"dot-{bits}" in catalog.variants(TABLE[0])["probe"]) == bt.quantized, name


def test_plain_weights_have_no_dot_peak():
    asked = roofline.work({"output.weight": tensor("BF16", 4, 8, nbytes=64)})
    assert asked.bits == [16]
    assert Result(Case("pp", 4), [[0.0, 1.0]], LIMITS).figures(asked)["of_dot_peak"] is None


def test_a_few_plain_weights_do_not_hide_the_dot_peak():
    few = {"blk.0.ffn_gate_inp.weight": tensor("F32", 1, 20, nbytes=80), **UNTIED}
    looked_up = {"position_embd.weight": tensor("F32", 1000, 20, nbytes=80000)}
    asked = roofline.work(few | looked_up)
    assert asked.nbytes == roofline.work(few).nbytes and asked.layers == {32: 20, 4: 200}
    assert LIMITS.dot_seconds(asked.multiply_adds(Case("pp", 1))) == pytest.approx(200 / 2e9 + 1000 / 1e9)


def test_limits_of_a_shared_machine_are_medians():
    measured = [roofline.Limits(read, {4: dots}) for read, dots in [(1.0, 30.0), (9.0, 10.0), (2.0, 20.0)]]
    assert roofline.middle(measured) == roofline.Limits(2.0, {4: 20.0})


def test_percentiles_are_values_that_occurred():
    values = [float(i) for i in range(1, 101)]
    assert [roofline.percentile(reversed(values), p) for p in (0, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert roofline.percentile([7.0], 99) == 7.0


def test_a_course_has_a_rate_per_interval():
    course = roofline.Course(every=1.0)
    ended = [course.add(now, 0.25 if now < 10 else 0.5) for now in (1, 2, 3, 4, 10, 11)]
    assert ended == [False, False, False, True, False, True]
    assert course.rates == [(4, 4.0), (11, 2.0)]
    assert course.summary() == {"min": 2.0, "median": 3.0, "max": 4.0}


@pytest.fixture
def counting(monkeypatch):
    model = counting_model(context=256)
    model.file.tensors = dict(UNTIED, **{"token_embd.weight": tensor("Q4_K", 270, 8, nbytes=7)})
    monkeypatch.setattr("edgeq.loading.load", lambda path, **options: model)
    monkeypatch.setattr(bench, "kv_read", lambda session: {0: 10})
    monkeypatch.setattr(bench, "machine_limits", lambda threads, bits: LIMITS)
    return model


def test_bench_shows_limits_latencies_and_memory_beside_the_table(counting, capsys):
    assert main(["bench", "m.eqf", "-p", "16", "-n", "4", "-r", "2"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4, "the table stays the one of llama-bench"
    limits, prompt, text, memory = err.strip().splitlines()
    assert limits == "limits      1.0 GB/s read, 2 (4-bit codes), 1 (6-bit codes) G multiply-adds/s"
    assert prompt.startswith("pp16") and "first token after" in prompt and "% of the limit" in prompt
    assert text.startswith("tg4") and "GB/s" in text and "p95" in text and "p99" in text
    assert "resident" in memory and memory.endswith("KV cache 2.50 KiB")


def test_bench_json_has_all_of_it(counting, capsys):
    assert main(["bench", "m.eqf", "-p", "16", "-n", "4", "-r", "3", "--json"]) == 0
    prompt, text = json.loads(capsys.readouterr().out)
    assert {"multiply_adds_per_second", "of_dot_peak", "first_token_seconds"} <= prompt.keys()
    assert {"bytes_per_second", "of_read_bandwidth", "token_seconds_p50", "token_seconds_p95"} <= text.keys()
    assert text["limits"] == {"read_bandwidth": 1e9, "dot_peak": {"4": 2e9, "6": 1e9}}
    assert text["bytes_per_second"] == pytest.approx((1000 * 4 + 10 * 10) / sorted(text["seconds"])[1])
    assert (text["kv_bytes"], text["kv_bytes_per_token"]) == (2560, 10) and text["resident_bytes"] > 0


def test_bench_at_a_depth(counting, capsys):
    assert main(["bench", "m.eqf", "-p", "16", "-n", "4", "-d", "0,100", "-r", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["test"] for row in rows] == ["pp16", "tg4", "pp16@d100", "tg4@d100"]
    calls = counting.session.calls
    assert [n for n in calls if n not in (16, 1)] == [96], "filled once for both, after four that were there"
    assert calls[-8:] == [1] * 8 and counting.session.position == 104


@pytest.mark.parametrize("wrong", ["16,x", "16,-1", ""])
def test_numbers_of_tokens_that_are_none(counting, capsys, wrong):
    assert main(["bench", "-m", "m.eqf", "-p", wrong]) == 2
    assert "is no number of tokens: give " in capsys.readouterr().err


def test_bench_fills_again_where_it_cannot_rewind(counting, monkeypatch, capsys):
    session, begun = counting.session, []
    evaluate = session.eval
    monkeypatch.setattr(session, "rewindable", lambda position: position if position == session.position else 0)
    monkeypatch.setattr(
        session, "eval", lambda tokens: begun.append((session.position, len(tokens))) or evaluate(tokens)
    )
    assert main(["bench", "m.eqf", "-p", "16", "-n", "0", "-d", "100", "-r", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["test"] == "pp16@d100"
    assert begun == [(0, 100), (100, 16)] * 3


def test_bench_over_minutes_tells_what_it_has_when_it_is_interrupted(counting, monkeypatch, capsys):
    clock = count(step=3.0)
    evaluate = counting.session.eval
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    counting.session.eval = lambda tokens: ring() if next(clock) > 60 else evaluate(tokens)
    assert main(["bench", "m.eqf", "-n", "4", "--minutes", "9"]) == 130
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines and last.startswith("tg4: min ")


def ring():
    raise KeyboardInterrupt


def test_bench_over_minutes(counting, capsys):
    assert main(["bench", "m.eqf", "-n", "4", "-d", "100", "--minutes", "0.001"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines and all(line.endswith(" tokens/s") and " s " in line for line in lines)
    assert last.startswith("tg4@d100: min ") and ", median " in last and ", max " in last
    assert main(["bench", "m.eqf", "-n", "4", "--minutes", "0.001", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["min"] <= found["median"] <= found["max"] and found["over_time"]
    assert main(["bench", "m.eqf", "-n", "4", "-n", "5", "--minutes", "1"]) == 2
    assert main(["bench", "m.eqf", "-p", "4", "--minutes", "1"]) == 2
    assert main(["bench", "m.eqf", "--minutes", "nan"]) == 2 == main(["bench", "m.eqf", "--minutes", "inf"])
