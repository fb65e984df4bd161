"""A step of the sampler that is a class and a row of the table is an option everywhere."""

import io
import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import small_tokenizers as small
from counting import GREEDY, CountingSession, MemoryFile, counting_model

import edgeq.cli
from edgeq.cli import chat_settings, main
from edgeq.decode import sampler_steps
from edgeq.decode.option import Option
from edgeq.decode.sampler_steps import Draw, Filter, Processor
from edgeq.engine.model import Model
from edgeq.errors import UsageError
from edgeq.gguf.sampling import sampling_assets, sampling_metadata

REPOSITORY = Path(__file__).resolve().parents[2]


class Forbidden(Processor):
    """A token that is never chosen."""

    forbidden_token = Option(
        -1,
        holds=lambda value: value >= -1,
        must="a token's id, or -1",
        help="Never choose this token; -1 forbids none.",
        flags=("--forbid",),
        config="bad_token",
        gguf="bad",
    )

    def process(self, logits, recent):
        if self.forbidden_token < 0:
            return logits
        logits = logits.copy()
        logits[self.forbidden_token] = -float("inf")
        return logits


class Rarest(Filter):
    """Only the least likely of what the steps before it leave."""

    rarest = Option(0.0, holds=lambda value: value in (0, 1), must="0 or 1", help="1 draws the least likely token.")

    def filter(self, candidates):
        return candidates.keep([candidates.logits.argmin()]) if self.rarest else candidates


@pytest.fixture(autouse=True)
def added(monkeypatch):
    *others, draw = sampler_steps.STEPS
    assert draw is Draw
    monkeypatch.setattr(sampler_steps, "STEPS", (Forbidden, *others, Rarest, draw))
    for verb in ("run", "chat"):  # their flags are made when they are imported
        import_module(f"edgeq.cli.{verb}")
        monkeypatch.delattr(edgeq.cli, verb)
        monkeypatch.delitem(sys.modules, f"edgeq.cli.{verb}")


def test_in_python():
    model = counting_model()
    assert list(model.generate_tokens("ab", 1, **GREEDY)) == [ord("c")]
    assert list(model.generate_tokens("ab", 1, forbidden_token=ord("c"), **GREEDY)) == [0]
    unlikely = {"rarest": 1.0, "min_p": 0.0, "top_p": 1.0}
    assert list(model.generate_tokens("ab", 1, top_k=0, **unlikely)) == [0]
    assert list(model.generate_tokens("ab", 1, top_k=1, **unlikely)) == [ord("c")], "which comes before it"
    for value, message in [
        (-2, "forbidden_token is -2: it must be a token's id, or -1"),
        (1.5, "forbidden_token is 1.5: it must be a whole number"),
    ]:
        with pytest.raises(UsageError, match=message):
            model.generate("a", forbidden_token=value)
    with pytest.raises(UsageError, match="there is no option 'rarets': did you mean 'rarest'"):
        model.generate("a", rarets=1.0)


def test_in_the_files_of_a_model():
    said = {"generation_config.json": b'{"bad_token": 99, "do_sample": false}'}
    model = Model(MemoryFile(small.byte_level_assets() | said), CountingSession())
    assert model.sampling_defaults == {"temperature": 0.0, "forbidden_token": 99}
    assert model.generate("ab", 1).text != "c"
    assert model.generate("ab", 1, forbidden_token=-1).text == "c"
    assert sampling_metadata(said)["general.sampling.bad"] == 99
    assert json.loads(sampling_assets({"general.sampling.bad": 99}, {})["generation_config.json"]) == {"bad_token": 99}


def test_on_the_command_line(monkeypatch, capfd):
    monkeypatch.setattr("edgeq.cli.options.load_model", lambda path, loading: counting_model())
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for flag in ("--forbidden-token", "--forbid"):
        assert main(["run", "m.eqf", "--raw", "ab", "-n", "1", "--temp", "0", flag, str(ord("c"))]) == 0
        assert capfd.readouterr().out.strip() not in ("", "c")
    for verb in ("run", "chat"):
        assert main([verb, "--help"]) == 0
        told = " ".join(capfd.readouterr().out.split())
        assert "--forbidden-token, --forbid INTEGER Never choose this token; -1 forbids none." in told
        assert "[default: the model's own, or -1]" in told and "--rarest FLOAT" in told


def test_in_a_chat():
    assert "forbidden_token" in chat_settings.settings()
    given = {}
    chat_settings.change(given, "forbid 99")
    assert given == {"forbidden_token": 99}
    assert chat_settings.shown({}, {}, "forbidden_token").split() == ["forbidden_token", "-1", "(default)"]
    with pytest.raises(UsageError, match=r"rarest is 0\.5: it must be 0 or 1"):
        chat_settings.change(given, "rarest 0.5")


def test_in_the_reference(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    row = "| `forbidden_token` | -1 | a token's id, or -1 | Never choose this token; -1 forbids none. |"
    assert row in import_module("api_reference").page()
