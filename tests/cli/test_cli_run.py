import subprocess
import sys
from pathlib import Path

import pytest
import small_tokenizers as small
from counting import counting_model

from edgeq.cli import main
from edgeq.cli.options import _SAMPLING
from edgeq.container.reader import File
from edgeq.errors import UsageError
from edgeq.quantize.pipeline import convert
from edgeq.runtime.sampler import SamplerParams


@pytest.fixture
def model(monkeypatch):
    """Stands in for whatever file is named; its answers count up from ':' and end after 'C'."""
    model = counting_model(jumps={ord("C"): small.IM_END})
    loads = []

    def load(path, **options):
        loads.append((str(path), options))
        model._closed = False
        return model

    monkeypatch.setattr("edgeq.model.load", load)
    model.loads = loads
    return model


def test_completion(edgeq, model):
    assert edgeq("run", "m.eqf", "ab", "-n", 3, "--temp", 0) == (0, "cde\n", "")
    assert model.session.closed and model.file.closed
    path, options = model.loads[0]
    assert path == "m.eqf"
    assert (options["threads"], options["context"], options["chat_template"]) == (None, None, None)


def test_options_reach_the_model(edgeq, model, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }}")
    assert edgeq("run", "m.eqf", "a", "--stop", "de", "--stop", "xx", "--top-k", 1, "--echo") == (0, "abc\n", "")
    edgeq("run", "m.eqf", "a", "-n", 1, "-t", 3, "-c", 40, "--template", template)
    options = model.loads[1][1]
    assert (options["threads"], options["context"]) == (3, 40)
    assert options["chat_template"] == "{{ messages[0].content }}"


def test_prompt_from_stdin(edgeq, model):
    assert edgeq("run", "m.eqf", "-n", 2, "--temp", 0, stdin="ab").out == "cd\n"
    assert edgeq("run", "m.eqf", "-", "-n", 2, "--temp", 0, stdin="cd").out == "ef\n"


def test_one_newline_at_the_end_of_a_piped_prompt_is_dropped(edgeq, model):
    assert edgeq("run", "m.eqf", "-n", 2, "--temp", 0, stdin="ab\n").out == "cd\n"
    assert edgeq("run", "m.eqf", "-n", 2, "--temp", 0, "--echo", stdin="ab\n\n").out == "ab\n\v\f\n"
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

    def failing(tokens, all_logits=False):
        if model.session.position > 2:
            raise UsageError("no more")
        return real(tokens, all_logits)

    monkeypatch.setattr(model.session, "eval", failing)
    assert edgeq("run", "m.eqf", "ab", "--temp", 0) == (2, "cd\n", "edgeq: no more\n")
    monkeypatch.setattr(model.session, "position", 3)
    model._cache.tokens[:] = b"abc"
    assert edgeq("run", "m.eqf", "abcd", "--temp", 0) == (2, "", "edgeq: no more\n"), "no empty line"


def test_closed_streams(model, monkeypatch, capfd):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", None)
    assert main(["run", "m.eqf", "ab", "-n", "2"]) == 0
    assert main(["run", "m.eqf"]) == 2, "nothing on stdin: an empty prompt"
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
        assert main(["run", "m.eqf", "ab", "-n", "2"]) == 2
    assert capfd.readouterr().err == "edgeq: the output cannot be written: No space left on device\n"


def test_chat_flag_uses_the_template(edgeq, model):
    result = edgeq("run", "m.eqf", "x", "--chat", "--system", "s", "--temp", 0)
    assert result.out == ";<=>?@ABC\n"
    assert bytes(model.session.evaluated[:10]) == b"s:s|u:x|a:"


def test_preload_reads_the_file_first(edgeq, tiny_model, tmp_path, monkeypatch):
    convert(str(tiny_model), tmp_path / "tiny.eqf", "Q8_0")
    read = []
    monkeypatch.setattr(File, "read_through", lambda file, progress: read.append(str(file.path)) or progress(1, 1))
    result = edgeq("run", tmp_path / "tiny.eqf", "Once upon a time", "-n", 3, "--temp", 0, "--preload")
    assert (result.code, result.out, read) == (0, ", there was\n", [str(tmp_path / "tiny.eqf")])
    assert edgeq("run", tmp_path / "tiny.eqf", "Once", "-n", 1).code == 0 and len(read) == 1


def test_timings_go_to_stderr(edgeq, model):
    result = edgeq("run", "m.eqf", "abc", "-n", 4, "--temp", 0, "--timings")
    assert result.out == "defg\n"
    assert [line.split()[0] for line in result.err.splitlines()] == ["load", "first", "prompt", "generation"]
    assert "3 tokens" in result.err and "4 tokens" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.eqf", "a" * 65], "the prompt has 65 tokens, the context 64"),
        (["m.eqf", ""], "the prompt is empty"),
        (["m.eqf", "a", "--temp", "-1"], "temperature is -1.0"),
        (["m.eqf", "a", "--seed", "-1"], "seed is -1: give 0 or more, or none at all"),
        (["m.eqf", "a", "--system", "x"], "--system needs --chat"),
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
    params = SamplerParams()
    for option in _SAMPLING[:5]:
        declared = option(lambda: None).__click_params__[0]
        assert declared.help.endswith(f"[default: {getattr(params, declared.name)}]")
