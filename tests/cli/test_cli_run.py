import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_tokenizers as small
from counting import counting_model

from edgeq.cli import main, other_programs, run
from edgeq.cli.options import sampling_options, unescaped
from edgeq.container.reader import File
from edgeq.decode.sampler_steps import options
from edgeq.engine.shared_session import SharedSession
from edgeq.errors import UsageError
from edgeq.quantize.pipeline import convert


@pytest.fixture
def model(monkeypatch):
    """Stands in for whatever file is named; its answers count up from ':' and end after 'C'."""
    model = counting_model(jumps={ord("C"): small.IM_END})
    loads = []

    def load(path, **options):
        loads.append((str(path), options))
        model._closed, model._shared = False, SharedSession(model.session)
        return model

    monkeypatch.setattr("edgeq.loading.load", load)
    model.loads = loads
    return model


def test_completion(edgeq, model):
    assert edgeq("run", "m.eqf", "--raw", "ab", "-n", 3, "--temp", 0) == (0, "cde\n", "")
    assert model.session.closed and model.file.closed
    path, options = model.loads[0]
    assert path == "m.eqf"
    assert (options["threads"], options["context"], options["chat_template"]) == (None, None, None)


def test_what_llama_cpp_and_mlx_call_it(edgeq, model):
    """-m and -p in place of the arguments, in any order; and their names of the limits."""
    for words in (
        ["-m", "m.eqf", "-p", "ab"],
        ["--prompt", "ab", "--model", "m.eqf"],
        ["-m", "m.eqf", "ab"],
        ["m.eqf", "-p", "ab"],
    ):
        model.loads.clear()
        assert edgeq("run", *words, "--raw", "--n-predict", 3, "--temp", 0, "--ctx-size", 64) == (0, "cde\n", ""), words
        assert (model.loads[0][0], model.loads[0][1]["context"]) == ("m.eqf", 64)
    numbers = ["-n", -1, "-c", 0, "-s", -1, "--top-k", -1, "--repeat-penalty", 1.0, "--repeat-last-n", -1]
    numbers += ["--top-nsigma", -1]
    assert edgeq("run", "m.eqf", "x", "--temp", 0, *numbers) == (0, ";<=>?@ABC\n", ""), "no limit, all, none"
    assert model.loads[-1][1]["context"] == 0
    twice = edgeq("run", "-m", "m.eqf", "-p", "ab", "cd")
    assert twice.code == 2 and "'cd' is one argument too many" in twice.err
    assert edgeq("run", "-p", "ab").err == "edgeq: Missing argument 'MODEL'. (see edgeq run --help)\n"


@pytest.mark.parametrize(
    ("flags", "instead"),
    [
        (["-ngl", "99"], "there is no option -ngl here: edgeq computes on the CPU alone: leave it out"),
        (["-ngl", "99", "-n", "1"], "there is no option -ngl here: edgeq computes on the CPU alone: leave it out"),
        (["-mm", "x.gguf", "-m", "m.eqf"], "there is no option -mm here: `edgeq import"),
        (["-n", "8", "-no-cnv"], "there is no option -no-cnv here: --raw completes plain text"),
        (["-ctk", "q8_0"], "there is no option -ctk here: --kv"),
        (["--format=json"], "there is no option --format here: `edgeq run --schema` has an answer"),
        (["-fa", "on"], "there is no option -fa here: that is always so"),
        (["--nothing"], "No such option"),  # whose quotes differ between versions of click
        (["-n", "x", "--", "-ngl"], "Invalid value for '-n'"),
    ],
)
def test_options_of_other_programs_are_answered(edgeq, model, flags, instead):
    result = edgeq("run", "m.eqf", *flags)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"edgeq: {instead}") and result.err.endswith("(see edgeq run --help)\n")


def test_no_option_of_another_program_is_one_here_too():
    """Else the line on it would never be seen, where every verb has it, or be wrong."""
    for flag in {**other_programs.OPTIONS, **other_programs._SHORT}:
        assert other_programs.option_instead([flag], []), flag
    assert not other_programs.option_instead(["-r", "--", "-ngl"], ["-r"])


def test_what_looks_like_an_option_of_another_program_may_be_a_value(edgeq, model):
    assert edgeq("run", "m.eqf", "-n", 3, "--raw", "-p", "-ngl").code == 0
    assert not other_programs.is_read_otherwise(["-n5", "--", "-ngl"], ["-n"])
    assert not other_programs.is_read_otherwise(["-ngl"], ["-t"])  # which is refused anyway


def test_options_reach_the_model(edgeq, model, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }}")
    assert edgeq("run", "m.eqf", "--raw", "a", "--stop", "de", "--stop", "xx", "--top-k", 1, "--echo") == (
        0,
        "abc\n",
        "",
    )
    edgeq("run", "m.eqf", "--raw", "a", "-n", 1, "-t", 3, "-c", 40, "--template", template)
    options = model.loads[1][1]
    assert (options["threads"], options["context"], options["draft"]) == (3, 40, None)
    edgeq("run", "m.eqf", "--raw", "a", "-n", 1, "--draft", "small.eqf")
    assert model.loads[2][1]["draft"] == "small.eqf"
    assert options["chat_template"] == "{{ messages[0].content }}"


def test_prompt_from_stdin(edgeq, model):
    assert edgeq("run", "m.eqf", "--raw", "-n", 2, "--temp", 0, stdin="ab").out == "cd\n"
    assert edgeq("run", "m.eqf", "--raw", "-", "-n", 2, "--temp", 0, stdin="cd").out == "ef\n"


def test_one_newline_at_the_end_of_a_piped_prompt_is_dropped(edgeq, model):
    assert edgeq("run", "m.eqf", "--raw", "-n", 2, "--temp", 0, stdin="ab\n").out == "cd\n"
    assert edgeq("run", "m.eqf", "--raw", "-n", 2, "--temp", 0, "--echo", stdin="ab\n\n").out == "ab\n\v\f\n"
    assert "less one newline at its end" in " ".join(edgeq("run", "--help").out.split())


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ((), b"a\xff", "the prompt on stdin is not UTF-8 text: convert it to UTF-8"),
        (("a\udcff",), b"", "the prompt is not UTF-8 text: convert it to UTF-8"),
        (("a", "--chat", "--system", "\udcff"), b"", "--system is not UTF-8 text: convert it to UTF-8"),
        (("a", "--stop", "a", "--stop", "\udcff"), b"", "--stop is not UTF-8 text: convert it to UTF-8"),
    ],
)
def test_text_that_is_not_utf_8(edgeq, model, arguments, stdin, message):
    assert edgeq("run", "m.eqf", *arguments, stdin=stdin) == (2, "", f"edgeq: {message}\n")


def test_an_error_within_a_text_ends_its_line(edgeq, model, monkeypatch):
    real = model.session.eval

    most = 2

    def failing(tokens, all_logits=False):
        if model.session.position > most:
            raise UsageError("no more")
        return real(tokens, all_logits)

    monkeypatch.setattr(model.session, "eval", failing)
    assert edgeq("run", "m.eqf", "--raw", "ab", "--temp", 0) == (2, "cd\n", "edgeq: no more\n")
    most = -1
    assert edgeq("run", "m.eqf", "--raw", "abcd", "--temp", 0) == (2, "", "edgeq: no more\n"), "no empty line"


def test_closed_streams(model, monkeypatch, capfd):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", None)
    assert main(["run", "m.eqf", "--raw", "ab", "-n", "2"]) == 0
    assert main(["run", "m.eqf", "--raw"]) == 2, "nothing on stdin: an empty prompt"
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device of Linux")
@pytest.mark.parametrize("arguments", [["version"], ["--help"], ["convert", "--help"]])
def test_output_that_cannot_be_written(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "edgeq", *arguments], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"edgeq: the output cannot be written: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device of Linux")
def test_an_answer_that_cannot_be_written(model, monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        monkeypatch.setattr("sys.stdin", None)
        assert main(["run", "m.eqf", "--raw", "ab", "-n", "2"]) == 2
    assert capfd.readouterr().err == "edgeq: the output cannot be written: No space left on device\n"


def test_an_error_that_is_not_of_the_output(edgeq, model, monkeypatch):
    def failing(*arguments, **named):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(model.session, "eval", failing)
    code, out, err = edgeq("run", "m.eqf", "--raw", "ab", "-n", "2")
    assert (code, out) == (70, "") and "Input/output error" in err and "the output" not in err


def test_a_model_with_a_template_answers(edgeq, model):
    for flags in ((), ("--chat",)):
        result = edgeq("run", "m.eqf", "x", "--system", "s", "--temp", 0, *flags)
        assert result == (0, ";<=>?@ABC\n", "")
        assert bytes(model.session.evaluated) == b"s:s|u:x|a:;<=>?@ABC"
        model.session.evaluated.clear()


def test_a_model_without_a_template_completes(edgeq, monkeypatch):
    monkeypatch.setattr("edgeq.loading.load", lambda *arguments, **options: counting_model(chat_template=None))
    assert edgeq("run", "m.eqf", "ab", "-n", 3, "--temp", 0) == (0, "cde\n", "")
    result = edgeq("run", "m.eqf", "ab", "--system", "s")
    assert result.code == 2 and "the model has no chat template" in result.err


def test_piped_text_stands_before_the_prompt(edgeq, model):
    assert edgeq("run", "m.eqf", "--raw", "ab", "-n", 1, "--echo", stdin="a text\n").out == "a text\n\nabc\n"
    assert edgeq("run", "m.eqf", "--raw", "ab", "-n", 1, "--echo", stdin="\n").out == "abc\n"


def test_stdin_that_is_no_pipe_is_not_waited_for():
    """A service's stdin is a device, or a terminal; nothing was piped."""
    code = "import edgeq.cli.run as run; print(run._holds_text(), repr(run._prompt('ab')))"
    for stdin, said in ((subprocess.DEVNULL, b"False 'ab'\n"), (subprocess.PIPE, b"True 'x\\n\\nab'\n")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            **({"input": b"x"} if stdin == -1 else {"stdin": stdin}),
        )
        assert done.stdout == said


@pytest.mark.skipif(os.name != "posix", reason="waits for pipes as POSIX has them")
def test_a_pipe_that_is_left_open_is_told(monkeypatch, capfd):
    reading, writing = os.pipe()
    monkeypatch.setattr(run, "PATIENCE_S", 0.01)
    with open(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        run._warn_of_waiting()
        assert "waiting for what is piped in to end" in capfd.readouterr().err
        os.close(writing)
        run._warn_of_waiting()
        assert capfd.readouterr().err == "", "it has ended"


@pytest.mark.parametrize(
    ("options", "jumps", "why"),
    [
        ((), {":": small.IM_END}, "the model ended it at once: put it otherwise, or try --raw"),
        (("--stop", ";"), {}, "it began with a text of --stop"),
        (("-n", 0), {}, "--max-tokens leaves room for none"),
    ],
)
def test_an_answer_of_nothing_says_why(edgeq, model, options, jumps, why):
    model.session.jumps.update({ord(before): after for before, after in jumps.items()})
    result = edgeq("run", "m.eqf", "x", "--temp", 0, *options)
    assert (result.code, result.out) == (0, "\n") and result.err.startswith(f"edgeq: the answer is empty: {why}")


def test_options_that_are_no_numbers(edgeq, model):
    bias = ("--logit-bias", "99=-inf", "--logit-bias", f"{ord('x')}=+1.5")
    assert edgeq("run", "m.eqf", "--raw", "ab", "-n", 2, "--temp", 0, *bias).out == "xy\n"
    dry = ("--dry-multiplier", 5, "--dry-allowed-length", 1, "--dry-sequence-breaker", r"\n")
    assert edgeq("run", "m.eqf", "--raw", "bcab", "-n", 1, "--temp", 0, "--logit-bias", "120=6", *dry).out == "x\n"
    assert (
        edgeq("run", "m.eqf", "--raw", "bcab", "-n", 1, "--temp", 0, "--logit-bias", "120=6", *dry[:-1], "b").out
        == "c\n"
    )
    for wrong in ("5", "x=1", "5=x"):
        result = edgeq("run", "m.eqf", "a", "--logit-bias", wrong)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert result.err.startswith(
            f"edgeq: --logit-bias is {wrong}: it must be numbers, less than infinity, by token"
        )
    assert "logit_bias names token 270: the model's" in edgeq("run", "m.eqf", "a", "--logit-bias", "270=1").err


def test_json(edgeq, model):
    facts = json.loads(edgeq("run", "m.eqf", "x", "--temp", 0, "--json").out)
    assert (facts["text"], facts["finish_reason"], facts["model"]) == (";<=>?@ABC", "eos", "counting.eqf")
    assert (facts["prompt_tokens"], facts["generated_tokens"]) == (len("u:x|a:"), 10)
    assert facts["timings"].keys() >= {"load_s", "first_token_s", "generation_rate"} and "logprobs" not in facts
    facts = json.loads(edgeq("run", "m.eqf", "x", "--temp", 0, "-n", 1, "--json", "--logprobs", 2).out)
    assert facts["finish_reason"] == "max_tokens"
    [noted] = facts["logprobs"]
    assert (noted["id"], noted["text"]) == (ord(";"), ";")
    assert noted["top"][0] == {"id": ord(";"), "text": ";", "logprob": noted["logprob"]} and len(noted["top"]) == 2


def test_stop_strings_are_written_with_escapes(edgeq, model):
    model.session.jumps[ord("<")] = ord("\n")
    assert edgeq("run", "m.eqf", "x", "--temp", 0, "--stop", r"\n").out == ";<\n"
    assert unescaped(r"\\n\t\x") == "\\n\t\\x"


def test_preload_reads_the_file_first(edgeq, tiny_model, tmp_path, monkeypatch):
    convert(str(tiny_model), tmp_path / "tiny.eqf", "Q8_0")
    read = []
    monkeypatch.setattr(File, "read_through", lambda file, progress: read.append(str(file.path)) or progress(1, 1))
    result = edgeq("run", tmp_path / "tiny.eqf", "Once upon a time", "--raw", "-n", 3, "--temp", 0, "--preload")
    assert (result.code, result.out, read) == (0, ", there was\n", [str(tmp_path / "tiny.eqf")])
    assert edgeq("run", tmp_path / "tiny.eqf", "Once", "-n", 1).code == 0 and len(read) == 1


def test_timings_go_to_stderr(edgeq, model):
    result = edgeq("run", "m.eqf", "--raw", "abc", "-n", 4, "--temp", 0, "--timings")
    assert result.out == "defg\n"
    assert [line.split()[0] for line in result.err.splitlines()] == ["load", "first", "prompt", "generation"]
    assert "3 tokens" in result.err and "4 tokens" in result.err


def test_right_guesses_are_told(edgeq, model, monkeypatch):
    monkeypatch.setattr("edgeq.engine.speculation.Costs.cost", lambda costs, rows: 1.0)
    model.session.jumps[ord("d")] = ord("a")
    command = ("run", "m.eqf", "--raw", "abcdabcdab", "-n", 9, "--temp", 0, "--timings")
    result = edgeq(*command)
    assert result.out == "cdabcdabc\n" and "tokens/s (4 of 4 guesses right)\n" in result.err
    timings = json.loads(edgeq(*command, "--json").out)["timings"]
    assert timings["drafted_tokens"] == timings["accepted_tokens"] > 0
    plain = edgeq(*command, "--no-speculation")
    assert plain.out == result.out and "guesses" not in plain.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.eqf", "--raw", "a" * 65], "the prompt has 65 tokens, the context 64"),
        (["m.eqf", "--raw", ""], "the prompt is empty"),
        (["m.eqf", " \n"], "the prompt is empty: give it after the model"),
        (["m.eqf", "a", "--temp", "-1"], "temperature is -1.0"),
        (["m.eqf", "a", "--seed", "-2"], "seed is -2: give 0 or more, or none at all"),
        (["m.eqf", "a", "--raw", "--system", "x"], "--raw completes plain text, without a template"),
        (["m.eqf", "a", "--raw", "--chat"], "--raw completes plain text, without a template"),
        (["m.eqf", "a", "--echo"], "--echo prints a text that is completed: give --raw as well"),
        (["m.eqf", "a", "--logprobs", "2"], "--logprobs needs --json"),
        (["m.eqf", "a", "--json", "--logprobs", "1001"], "1001 is not in the range 0<=x<=1000"),
        (["m.eqf", "a", "--seed", "x"], "'x' is not a valid integer. (see edgeq run --help)"),
        (["m.eqf", "a", "--template", "nowhere"], "'nowhere' does not exist"),
        ([], "Missing argument 'MODEL'. (see edgeq run --help)"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(edgeq, model, arguments, message):
    result = edgeq("run", *arguments)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith("edgeq: ") and message in result.err
    assert result.out.strip() == ""


def test_a_file_that_is_none(edgeq, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    result = edgeq("run", path, "a")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert f"edgeq: {path}" in result.err


def test_the_help_tells_the_real_defaults():
    told = {option.name: option.help for option in sampling_options(lambda generation: None).__click_params__}
    for name, option in options().items():
        assert option.optional or not option.is_number or told[name].endswith(f" {option.default}]")
    assert told["top_k"].endswith("  [default: the model's own, or 40]")


@pytest.mark.parametrize("verb", ["chat", "serve"])
def test_the_model_by_its_option(edgeq, verb):
    outcome = edgeq(verb, "-m", "nowhere.eqf")
    assert outcome.code == 2 and "nowhere.eqf: no such file" in outcome.err
    assert "Missing argument" in edgeq(verb).err


SCHEMA = {"enum": ["seven"]}  # without a place for white space, which this model has no end of


def test_an_answer_follows_a_schema(edgeq, tiny_model, tmp_path):
    pytest.importorskip("llguidance", reason="pip install llguidance")
    convert(tiny_model, tmp_path / "m.eqf", "Q8_0")
    (tmp_path / "template.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    asked = ["run", tmp_path / "m.eqf", "x", "--template", tmp_path / "template.jinja", "--temp", 0, "-n", 200]
    for given in (("--schema", tmp_path / "schema.json"), ("-j", json.dumps(SCHEMA))):
        result = edgeq(*asked, *given)
        assert (result.code, json.loads(result.out)) == (0, "seven")
    assert edgeq(*asked, "--schema", "json").out.startswith("{")  # what it is full of has no end


@pytest.mark.parametrize(
    ("schema", "flags", "message"),
    [
        ("{", [], "--schema: is no JSON: "),
        ("missing.json", [], "missing.json: cannot be read: No such file"),
        ("list.json", [], "list.json: is no JSON schema, which is an object"),
        ("{}", ["--raw"], "--schema is followed in answers, which --raw gives none of: leave out one of the two"),
    ],
)
def test_schemas_that_are_none(edgeq, model, tmp_path, monkeypatch, schema, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text("[]")
    result = edgeq("run", "m.eqf", "x", "--schema", schema, *flags)
    assert (result.code, result.err.count("\n")) == (2, 1) and result.err.startswith(f"edgeq: {message}")
