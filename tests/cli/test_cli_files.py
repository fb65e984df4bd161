"""convert, show, verify, bench, version: on the bundled model, in types that need no kernel."""

import json
import re
import shutil

import click
import numpy as np
import pytest
from counting import counting_model
from safetensors.numpy import load_file, save_file

import edgeq as package
from edgeq.cli import VERBS, cli
from edgeq.cli.convert import show_report
from edgeq.engine.drafting import Draft
from edgeq.engine.shared_session import SharedSession
from edgeq.quantize.converted import Converted, Report
from edgeq.quantize.recipes import RECIPES


@pytest.fixture(scope="module")
def converted(tmp_path_factory, tiny_model):
    path = tmp_path_factory.mktemp("converted") / "tiny.eqf"
    package.convert(tiny_model, path, "F16")
    return path


def test_convert_writes_a_file_and_a_summary(edgeq, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = edgeq("convert", tiny_model, "--type", "f16", "-t", 1)
    assert result.code == 0, result.err
    assert re.search(
        r"^tiny_model-F16\.eqf: llama, .* parameters, F16 \(\d+ F16, \d+ F32\), .* bits per weight", result.out
    )
    assert [path.name for path in tmp_path.iterdir()] == ["tiny_model-F16.eqf"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--type", "Q9"], "unknown type 'Q9'"),
        (["--type", "Q4_K_L"], "unknown type 'Q4_K_L': did you mean Q4_K_M? "),
        (["-o", "missing/x.eqf"], "missing"),
    ],
)
def test_convert_errors(edgeq, tiny_model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = edgeq("convert", tiny_model, *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith("edgeq: ") and message in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def checkpoint(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "folder" / "tiny")


def test_convert_tells_what_it_took_and_what_it_moved(edgeq, checkpoint, tmp_path):
    """A head that config.json does not know of, an index left over, weights too small for the type."""
    weights = load_file(checkpoint / "model.safetensors")
    weights["lm_head.weight"] = np.roll(weights["model.embed_tokens.weight"], 1, axis=0)
    name = next(name for name in weights if name.endswith("v_proj.weight"))
    weights[name] = weights[name].astype(np.float32) * np.float32(2.0**-20)
    save_file(weights, checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    result = edgeq("convert", checkpoint, "--type", "f16", "-o", tmp_path / "m.eqf")
    assert result.code == 0, result.err
    notes = [line for line in result.out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: model.safetensors is taken, the shards of model.safetensors.index.json are not",
        "note: lm_head.weight differs from model.embed_tokens.weight: it is the head, "
        "though config.json says that they are one",
        "note: blk.0.attn_v.weight: its weights are too small for F16: F32 instead",
    ]


@pytest.mark.parametrize(
    ("asset", "content", "message"),
    [
        ("tokenizer.json", "{", "tokenizer.json cannot be read"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json holds a list"),
        ("generation_config.json", '{"eos_token_id": 999999}', "special token 999999 is beyond the model's vocabulary"),
    ],
)
def test_convert_refuses_a_broken_tokenizer(edgeq, checkpoint, tmp_path, asset, content, message):
    (checkpoint / asset).write_text(content)
    result = edgeq("convert", checkpoint, "-o", tmp_path / "m.eqf")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"edgeq: {checkpoint}: ") and message in result.err
    assert not (tmp_path / "m.eqf").exists()


def test_convert_tells_of_unused_tensors(edgeq, checkpoint, tmp_path):
    weights = load_file(checkpoint / "model.safetensors")
    extra = {f"extra.{letter}": np.ones(2, np.float32) for letter in "abcd"}
    save_file(weights | extra, checkpoint / "model.safetensors")
    result = edgeq("convert", checkpoint, "--type", "F16", "-o", tmp_path / "m.eqf", "-t", 1)
    assert "note: 4 tensors of the checkpoint are not used: extra.a, extra.b, extra.c, ...\n" in result.out


def test_convert_names_each_fallback_once(capsys):
    again = Converted("a", (4, 100), "F16", 800, "rows of 100: F16 instead of Q8_0")
    report = Report("m.eqf", "Q8_0", "llama", 900, 1.0, tensors=[again])
    show_report(report)
    assert capsys.readouterr().out.splitlines()[0] == "note: a: rows of 100: F16 instead of Q8_0"


def test_convert_help_has_every_recipe(edgeq):
    text = edgeq("convert", "--help").out
    assert all(f"{name}" in re.findall(r"\w+", text) for name in RECIPES)
    assert "[default: EDGEQ_THREADS, or all processors]" in " ".join(text.split())


def test_show(edgeq, converted, tiny_model):
    config = json.loads((tiny_model / "config.json").read_text())
    facts = json.loads(edgeq("show", converted, "--json", "--tensors").out)
    assert facts["architecture"] == "llama"
    assert facts["layers"] == config["num_hidden_layers"]
    assert facts["context"] == config["max_position_embeddings"]
    assert facts["provenance"]["recipe"] == "F16"
    assert facts["bytes"] == converted.stat().st_size
    assert set(facts["types"]) == {"F16", "F32"}
    assert facts["types"]["F16"]["bits_per_weight"] == 16
    assert facts["parameters"] == sum(kind["parameters"] for kind in facts["types"].values())
    shapes = {row["name"]: row["shape"] for row in facts["tensors"]}
    assert shapes["token_embd.weight"] == [config["vocab_size"], config["hidden_size"]]
    assert "tensors" not in json.loads(edgeq("show", converted, "--json").out)
    text = edgeq("show", converted, "--tensors").out
    assert "chat template" in text and "blk.0.attn_q.weight" in text and "16.000" in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_verify(edgeq, converted, tmp_path, monkeypatch):
    result = edgeq("verify", converted)
    assert result.code == 0 and "sound" in result.out
    damaged = tmp_path / "damaged.eqf"
    content = bytearray(converted.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    result = edgeq("verify", damaged)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "checksum" in result.err
    monkeypatch.setenv("EDGEQ_THREADS", "many")
    assert edgeq("verify", converted).err.startswith("edgeq: EDGEQ_THREADS is 'many'")


@pytest.fixture
def counting(monkeypatch):
    model = counting_model()
    monkeypatch.setattr("edgeq.loading.load", lambda path, **options: model)
    monkeypatch.setattr("edgeq.cli.bench.kv_read", lambda session: {0: 10})
    return model


def test_bench_prints_the_table_of_llama_bench(edgeq, counting):
    result = edgeq("bench", "m.eqf", "-p", 16, "-p", 32, "-n", 4, "-r", 2)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in result.out.splitlines()]
    assert rows[0] == ["model", "size", "params", "backend", "threads", "test", "t/s"]
    assert [row[5] for row in rows[2:]] == ["pp16", "pp32", "tg4"]
    assert rows[2][:5] == ["llama 2.16 K Q4_0", "1.05 KiB", "2.16 K", "CPU", "2"]
    assert all(re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", row[6]) for row in rows[2:])
    assert counting.session.calls == [16] * 3 + [32] * 3 + [1] * 12, "a warm-up and two repetitions of each"


def test_bench_with_a_draft(edgeq, counting):
    """The draft counts as the model does: what it guesses is right."""
    small = counting_model()
    small.session.file = small.file
    counting.draft_with(Draft(small.session, 270, 0.0))
    result = edgeq("bench", "m.eqf", "-p", 8, "-n", 40, "-r", 1)
    last = result.err.splitlines()[-1]
    assert re.match(r"tg40 +with the draft [\d.]+ tokens/s, [\d.]+ without; \d+ of \d+ guesses right", last)
    assert small.session.closed
    counting._closed, counting._shared = False, SharedSession(counting.session, counting._shared.draft)
    (row,) = json.loads(edgeq("bench", "m.eqf", "-p", 0, "-n", 40, "-r", 1, "--json", "--draft", "s.eqf").out)
    assert {"drafted_tokens_per_second", "undrafted_tokens_per_second"} <= row.keys()
    assert row["accepted_tokens"] == row["drafted_tokens"]
    assert "leave out --draft" in edgeq("bench", "m.eqf", "--minutes", 1, "--draft", "s.eqf").err


def test_bench_as_json(edgeq, counting):
    rows = json.loads(edgeq("bench", "m.eqf", "-p", 0, "-n", 4, "-r", 3, "--json").out)
    assert [(row["test"], len(row["seconds"])) for row in rows] == [("tg4", 3)]
    assert rows[0]["tokens_per_second"] == pytest.approx(sum(4 / s for s in rows[0]["seconds"]) / 3)
    assert edgeq("bench", "m.eqf", "-p", 0, "-n", 0).code == 2


def test_o_names_a_file_and_json_is_json(edgeq, converted, counting):
    """`-o json`, as it was once, still gives JSON; another name is no file that these verbs would write."""
    bench = ("bench", "m.eqf", "-p", 0, "-n", 4, "-r", 1)
    run = ("run", "m.eqf", "a", "-n", 1)
    for verb in (("show", converted), bench, run, ("doctor", "--no-speed"), ("version",), ("models", "--recommended")):
        counting._closed, counting._shared = False, SharedSession(counting.session)
        assert isinstance(json.loads(edgeq(*verb, "-o", "json").out), list if verb[0] in ("bench", "models") else dict)
        for name in ("x.json", "md"):
            refused = edgeq(*verb, "-o", name)
            line = f"edgeq: -o {name}: {verb[0]} writes no file: --json prints JSON, and > FILE keeps it\n"
            assert refused == (2, "", line)


def test_json_is_one_option_in_every_verb():
    def commands(command):
        return [command, *(each for sub in getattr(command, "commands", {}).values() for each in commands(sub))]

    context = click.Context(cli)
    told = []
    for command in (each for verb in VERBS for each in commands(cli.get_command(context, verb))):
        options = {flag: option for option in command.params for flag in option.opts}
        if "--json" in options:
            told.append(command.name)
            assert options["-o"].hidden and options["-o"] is options["--output"], command.name
    tell = "bench compare doctor drift eval list models rerank run show verify version"
    assert {*told} == {*tell.split()}


def test_versions_as_json(edgeq):
    facts = json.loads(edgeq("version", "--json").out)
    assert facts["edgeq"] == package.__version__ and facts["packages"]["numpy"] == np.__version__
    text = edgeq("version").out
    assert all(f"{name} {number or 'is not installed'}\n" in text for name, number in facts["packages"].items())


def test_version_and_help(edgeq):
    assert edgeq("version").out.startswith(f"edgeq {package.__version__}\npython 3.")
    assert edgeq("--version").out == f"edgeq {package.__version__}\n"
    top = edgeq("--help")
    assert top.code == 0 and all(f"\n  {verb} " in top.out for verb in VERBS)
    assert all(f" EDGEQ_{name} " in top.out for name in ("THREADS", "CACHE", "ISA"))
    assert edgeq().out == top.out
    for verb in VERBS:
        assert edgeq(verb, "-h").out.startswith(f"Usage: edgeq {verb}")
    assert edgeq("nonsense") == (2, "", "edgeq: there is no verb 'nonsense' (see edgeq --help)\n")


def test_ctrl_c_is_130(edgeq, monkeypatch):
    def interrupted(path, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeq.loading.load", interrupted)
    assert edgeq("run", "m.eqf", "a").code == 130
