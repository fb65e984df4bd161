"""Tokenizers rebuilt from GGUF metadata, against llama.cpp's own vectors."""

from pathlib import Path

import pytest
from token_vectors import PASSED, read_vectors

from edgeq.container.gguf_reader import open_gguf
from edgeq.errors import TokenizerError
from edgeq.text.gguf_pretokenizers import PRE_TOKENIZERS
from edgeq.text.gguf_tokenizer import has_tokenizer, tokenizer_assets
from edgeq.text.tokenizer import Tokenizer, load_tokenizer


def vocabulary(folder: Path, name: str) -> Tokenizer:
    with open_gguf(folder / f"ggml-vocab-{name}.gguf") as file:
        return load_tokenizer(tokenizer_assets(file.metadata, file.path))


@pytest.mark.parametrize("name", PASSED)
def test_vectors_of_real_vocabularies(shared_data: Path, name: str):
    folder = shared_data / "ggml-vocab"
    tokenizer = vocabulary(folder, name)
    vectors = read_vectors(folder, name)
    different = [text for text, ids in vectors if tokenizer.encode(text, add_special=False) != ids]
    assert (len(vectors) - len(different), len(vectors)) == PASSED[name], different
    if name != "bert-bge":  # which forgets capitals and spaces
        assert all(tokenizer.decode(ids) == text for text, ids in vectors)


def test_a_word_vocabulary(shared_data: Path):
    tokenizer = vocabulary(shared_data / "ggml-vocab", "bert-bge")
    ids = tokenizer.encode("Hello embeddings")
    assert (ids[0], ids[-1]) == (101, 102)
    assert tokenizer.decode(ids) == "hello embeddings"
    assert tokenizer.encode("") == [101, 102]
    assert tokenizer.encode("[SEP]", add_special=False) == [102]
    assert 102 not in tokenizer.encode("[SEP]", add_special=False, parse_special=False)


def test_kinds_that_cannot_run_here_are_refused_in_one_line():
    with pytest.raises(TokenizerError, match=r"m: the tokenizer is of the kind 't5'; supported are llama, gpt2, bert"):
        tokenizer_assets(metadata(model="t5"), "m")


def metadata(**more: object) -> dict[str, object]:
    """A byte-level vocabulary of four tokens; two underscores stand for the prefix's dot."""
    own = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "ab", "<end>"], "token_type": [1, 1, 1, 3]}
    own |= {"merges": ["a b", "b a", "b <end>"], "eos_token_id": 3, **more}
    return {f"tokenizer.ggml.{key}": value for key, value in own.items()}


def test_a_byte_level_vocabulary():
    tokenizer = load_tokenizer(tokenizer_assets(metadata(), "m"))
    assert tokenizer.encode("aab<end>b") == [0, 2, 3, 1]
    assert tokenizer.encode("<end>", parse_special=False) == []
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (None, {3})
    more = metadata(bos_token_id=3, add_bos_token=True, add_eos_token=True, eot_token_id=2)
    tokenizer = load_tokenizer(tokenizer_assets(more, "m"))
    assert tokenizer.encode("a") == [3, 0, 3]
    assert tokenizer.eos_ids == {2, 3}


def test_chat_templates():
    assert load_tokenizer(tokenizer_assets(metadata(), "m")).chat_template is None
    named = metadata() | {"tokenizer.chat_template": "hello", "tokenizer.chat_template.tool_use": "tools"}
    template = load_tokenizer(tokenizer_assets(named, "m")).chat_template
    assert template is not None and template.render([{"role": "user", "content": "?"}]) == "hello"
    assert template.render([{"role": "user", "content": "?"}], tools=[{}]) == "tools", "whether or not it is listed"
    named["tokenizer.chat_templates"] = ["tool_use"]
    template = load_tokenizer(tokenizer_assets(named, "m")).chat_template
    assert template is not None and template.names == ["default", "tool_use"]
    del named["tokenizer.chat_template"]
    template = load_tokenizer(tokenizer_assets(named, "m")).chat_template
    assert template is not None and template.names == ["tool_use"]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_every_pre_tokenizer_loads(name: str):
    tokenizer = load_tokenizer(tokenizer_assets(metadata(pre=name, bos_token_id=3), "m"))
    assert tokenizer.encode("ab", add_special=False) == [2]
    assert tokenizer.encode("ab") == [3, 2] if PRE_TOKENIZERS[name].add_bos else [2]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"pre": "unheard-of"}, "m: the pre-tokenizer 'unheard-of' is not known"),
        ({"tokens": [], "token_type": []}, "m: the tokenizer has no tokens"),
        ({"tokens": "abc"}, "m: tokenizer.ggml.tokens is not a list of str"),
        ({"token_type": [1, 2]}, "m: tokenizer.ggml.token_type has 2 entries, there are 4 tokens"),
        ({"model": 7}, "m: the tokenizer is of the kind 'None'"),
    ],
)
def test_bad_metadata_gives_one_line(more, message):
    with pytest.raises(TokenizerError, match=message) as caught:
        tokenizer_assets(metadata(**more), "m")
    assert "\n" not in str(caught.value)


def test_files_of_weights_alone_have_no_tokenizer():
    assert not has_tokenizer({"tokenizer.ggml.model": "none"}) and not has_tokenizer({})
    assert has_tokenizer(metadata())
