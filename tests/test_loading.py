"""Loading a model: what is checked, read and let go of again."""

import errno

import pytest
import small_tokenizers as small
from counting import CountingSession, MemoryFile

from edgeq import loading as module
from edgeq.errors import TokenizerError, UsageError
from edgeq.loading import load


def loading(monkeypatch, assets):
    file, session = MemoryFile(assets), CountingSession()
    monkeypatch.setattr(module, "open_file", lambda path: file)
    monkeypatch.setattr(module, "Session", lambda *arguments, **options: session)
    monkeypatch.setattr(module, "check_finite", lambda *arguments: None)
    return file, session


def test_load_reads_the_tokenizer(monkeypatch):
    loading(monkeypatch, small.byte_level_assets())
    model = load("m.eqf")
    assert "tokenizer" in model.__dict__ and model.timings.load_s > 0
    loading(monkeypatch, {})
    with load("m.eqf") as model:
        assert model.logits([1, 2]).shape == (2, 270), "token ids need no tokenizer"
        with pytest.raises(TokenizerError, match=r"m\.eqf: has no tokenizer\.json or tokenizer\.model"):
            model.generate("a")


def test_load_lets_go_of_a_file_with_a_broken_tokenizer(monkeypatch):
    file, session = loading(monkeypatch, {"tokenizer.json": b"{"})
    with pytest.raises(TokenizerError, match=r"m\.eqf: tokenizer\.json cannot be read"):
        load("m.eqf")
    assert file.closed and session.closed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "4096"}, "context is '4096': it must be a whole number, or None"),
        ({"threads": 2.0}, "threads is 2.0: it must be a whole number"),
        ({"threads": True}, "threads is True: it must be a whole number"),
        ({"kv": 16}, "kv is a int: it must be a str"),
        ({"chat_template": b"x"}, "chat_template is a bytes: it must be a str"),
    ],
)
def test_types_are_checked_when_loading(options, message):
    with pytest.raises(UsageError, match=message):
        load("m.eqf", **options)


def test_a_file_that_is_not_there_is_the_error_that_callers_know():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.eqf: no such file: check its name") as raised:
        load("nowhere.eqf")
    assert raised.value.errno == errno.ENOENT


def test_load_looks_at_values_once(tmp_path, monkeypatch):
    """Of what memory holds at all that a text reads, else at vectors alone; not where that is not wanted."""
    loading(monkeypatch, {})
    looked = []
    monkeypatch.setattr(module, "check_finite", lambda file, matrices, threads, but: looked.append((matrices, threads)))
    for fits, options in ((True, {}), (False, {"threads": 3}), (True, {"check": False})):
        monkeypatch.setattr(module, "available_memory", lambda fits=fits: 1 << 40 if fits else 0)
        load("m.eqf", **options).close()
    assert looked == [(True, module.environment.threads() or module.CHECKING), (False, 3)]
