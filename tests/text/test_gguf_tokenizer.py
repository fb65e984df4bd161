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
    with pytest.raises(
        TokenizerError, match=r"m: the tokenizer is of the kind 't5'; supported are llama, gpt2, gemma4, bert"
    ):
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


def test_a_vocabulary_of_pairs_with_marked_spaces():
    """Gemma 4's: merged across words, what it lacks spelled in bytes."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<turn|>", *(f"<0x{b:02X}>" for b in range(256))]
    kinds = [3, 3, 3, 2, 3, *[6] * 256]
    words = ["▁", "a", "b", "\n", "ab", "▁ab", "\n\n", "b▁", "b▁a"]
    own = {"model": "gemma4", "pre": "default", "tokens": [*tokens, *words], "token_type": [*kinds, *[1] * len(words)]}
    own |= {"merges": ["b ▁", "b▁ a", "a b", "▁ ab", "\n \n"], "bos_token_id": 2, "eos_token_id": 1}
    own |= {"unknown_token_id": 3, "padding_token_id": 0, "add_bos_token": True, "add_space_prefix": False}
    read = tokenizer_assets({f"tokenizer.ggml.{key}": value for key, value in own.items()}, "m")
    tokenizer, first = load_tokenizer(read), len(tokens)
    a, b, newlines, across = first + 1, first + 2, first + 6, first + 8
    assert tokenizer.encode("ab ab\n\n") == [2, a, across, b, newlines], "merges go across words"
    assert tokenizer.encode("½", add_special=False) == [5 + 0xC2, 5 + 0xBD]
    assert tokenizer.decode([a, across, b, newlines, 5 + 0xC2, 5 + 0xBD]) == "ab ab\n\n½"
    assert tokenizer.eos_ids >= {1, 4} and tokenizer.encode("a<turn|>", add_special=False) == [a, 4]


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
        ({"token_type": [True] * 4}, "m: tokenizer.ggml.token_type is not a list of int"),
        ({"model": 7}, "m: the tokenizer is of the kind 'None'"),
    ],
)
def test_bad_metadata_gives_one_line(more, message):
    with pytest.raises(TokenizerError, match=message) as caught:
        tokenizer_assets(metadata(**more), "m")
    assert "\n" not in str(caught.value)


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "▁a", "ab"]
SPACE, A, B = 259, 260, 261


def sentencepiece(tokens: list[str] = PIECES, **more: object) -> dict[str, object]:
    scores = [-float(len(tokens) - i) for i in range(len(tokens))]
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3}
    own = {"model": "llama", "tokens": tokens, "scores": scores}
    own["token_type"] = [kinds.get(token, 6 if token.startswith("<0x") else 1) for token in tokens]
    found = {f"tokenizer.ggml.{key}": value for key, value in (own | more).items()}
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize("kinds", [None, [], [1] * len(PIECES), [0] * len(PIECES), [-1] * len(PIECES)])
def test_sentencepiece_without_token_types_still_spells_bytes(kinds: list[int] | None):
    tokenizer = load_tokenizer(tokenizer_assets(sentencepiece(token_type=kinds), "m"))
    assert tokenizer.encode("a½") == [1, 262, 3 + 0xC2, 3 + 0xBD]
    assert tokenizer.decode([262, 3 + 0xC2, 3 + 0xBD]) == "a½"
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, {2})
    assert tokenizer.encode("</s>", add_special=False) == [2] and tokenizer.decode([1, A, 2]) == "a"


@pytest.mark.parametrize("scores", [None, [0] * len(PIECES), [1e300, -1e300] * 132], ids=["none", "ints", "large"])
def test_sentencepiece_with_other_scores(scores: list[float] | None):
    tokenizer = load_tokenizer(tokenizer_assets(sentencepiece(scores=scores), "m"))
    ids = tokenizer.encode("ab", add_special=False)
    assert tokenizer.decode(ids) == "ab" and ids[0] in (SPACE, 262)


def test_sentencepiece_with_some_bytes_only():
    tokens = [token for token in PIECES if token != "<0xC2>"]
    tokenizer = load_tokenizer(tokenizer_assets(sentencepiece(tokens), "m"))
    assert tokenizer.encode("a½", add_special=False) == [261, 0]


def test_names_that_are_empty_or_come_twice():
    """Text becomes the last of those with one name."""
    tokens = [*PIECES, "", "a", ""]
    tokenizer = load_tokenizer(tokenizer_assets(sentencepiece(tokens, token_type=None), "m"))
    assert tokenizer.encode("ba", add_special=False)[-1] == len(tokens) - 2
    tokens = ["a", "b", "<x>", "", "<x>", ""]
    own = metadata(tokens=tokens, token_type=[1, 1, 3, 1, 3, 5], merges=[], eos_token_id=4)
    assert load_tokenizer(tokenizer_assets(own, "m")).encode("a<x>b") == [0, 4, 1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("<|im_end|>", 1), ("<|im_end|>", 4), ("<|im_end|>", 5), ("</s>", 1), ("<eos>", 1), ("<eos>", 3), ("[EOT]", 4)],
)
def test_a_control_looking_token_is_one_and_ends(name: str, kind: int):
    """Whatever its type says, and without an end that the file names."""
    own = metadata(tokens=["a", "b", "ab", name], token_type=[1, 1, 1, kind])
    del own["tokenizer.ggml.eos_token_id"]
    tokenizer = load_tokenizer(tokenizer_assets(own, "m"))
    assert tokenizer.encode(f"a{name}b") == [0, 3, 1]
    assert 3 not in tokenizer.encode(f"a{name}b", parse_special=False)
    assert tokenizer.eos_ids == {3} and tokenizer.decode([0, 3, 1]) == "ab"
    spm = load_tokenizer(tokenizer_assets(sentencepiece([*PIECES, "<|im_end|>"]), "m"))
    assert spm.encode("a<|im_end|>") == [1, 262, len(PIECES)] and spm.eos_ids == {2, len(PIECES)}


def test_html_in_a_vocabulary_is_text():
    """Gemma's `</s>` is a token of its author's, and ends nothing."""
    tokenizer = load_tokenizer(
        tokenizer_assets(metadata(tokens=["a", "b", "</s>", "<end>"], token_type=[1, 1, 4, 3], merges=[]), "m")
    )
    assert tokenizer.decode(tokenizer.encode("a</s>")) == "a</s>" and tokenizer.eos_ids == {3}


def test_a_token_that_marks_a_gap_is_one_and_does_not_end():
    own = metadata(tokens=["a", "b", "<fim_prefix>", "<end>"], token_type=[1, 1, 1, 3], merges=[])
    tokenizer = load_tokenizer(tokenizer_assets(own, "m"))
    assert tokenizer.encode("<fim_prefix>a") == [2, 0] and tokenizer.eos_ids == {3}


def test_merges_may_be_none_but_not_missing():
    own = metadata(merges=[])
    assert load_tokenizer(tokenizer_assets(own, "m")).encode("ab<end>") == [0, 1, 3]
    del own["tokenizer.ggml.merges"]
    with pytest.raises(TokenizerError, match=r"m: the tokenizer has no tokenizer\.ggml\.merges: convert"):
        tokenizer_assets(own, "m")


def test_files_of_weights_alone_have_no_tokenizer():
    assert not has_tokenizer({"tokenizer.ggml.model": "none"}) and not has_tokenizer({})
    assert has_tokenizer(metadata())
