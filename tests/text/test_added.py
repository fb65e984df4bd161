"""Added tokens: how a text is cut at them, which are special, and which a model has not."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_tokenizers as small

from edgeq.errors import TokenizerError
from edgeq.text.added import AddedTokens
from edgeq.text.assets import AddedToken
from edgeq.text.tokenizer import beyond_notes, load_tokenizer

FIRST = small.THINK + 1


def entry(content: str, special: bool = False, **flags: bool) -> dict[str, Any]:
    return {"content": content, "special": special, "normalized": False, **flags}


TOKENS = [
    entry("<x>", single_word=True),
    entry("<l>", lstrip=True, special=True),
    entry("<r>", rstrip=True),
    entry("<n>", normalized=True),
    entry("n>>", special=True),
    entry("ab", single_word=True, lstrip=True, rstrip=True),
    entry("abc", normalized=True),
]
DECODER = {str(FIRST + i): token for i, token in enumerate(TOKENS)}


def texts() -> Iterator[str]:
    rng = random.Random(0)
    for _ in range(300):
        yield "".join(rng.choices([*(t["content"] for t in TOKENS), "a", "b", "é", "_", " ", "\n", ".", "<"], k=8))


@pytest.mark.parametrize("parse_special", [True, False])
def test_texts_are_cut_as_the_tokenizers_library_does(parse_special: bool):
    assets = small.byte_level_assets(added_tokens_decoder=DECODER)
    document = json.loads(assets["tokenizer.json"])
    document["model"] |= {"merges": []}
    document["added_tokens"] = []
    document["pre_tokenizer"]["use_regex"] = False
    assets["tokenizer.json"] = json.dumps(document).encode()
    library = load_tokenizer(assets)
    own = AddedTokens(library.added)
    assert {token.content for token in library.added.values()} == {token["content"] for token in TOKENS}
    for text in texts():
        ids = [i for part in own.cut(text, parse_special) for i in ([part] if isinstance(part, int) else part.encode())]
        expected = library.encode(text, parse_special=parse_special)
        if parse_special or "n>>" not in text:  # the library does not look into what it found but may not take
            assert ids == expected, repr(text)


def test_a_single_word_is_none_within_another():
    cut = AddedTokens({7: AddedToken("cat", special=False, single_word=True)}).cut
    assert list(cut("cat, a cat", True)) == [7, ", a ", 7]
    assert list(cut("cats concat _cat cat1 écat cat\u0301", True)) == ["cats concat _cat cat1 écat cat\u0301"]
    spm = load_tokenizer(
        small.spm_assets(
            add_bos_token=False, added_tokens_decoder={str(small.SEP): entry("hi", single_word=True, special=True)}
        )
    )
    assert spm.encode("hi hih", add_special=False)[0] == small.SEP
    assert small.SEP not in spm.encode("hih")


def test_tokens_of_the_text_as_it_is_come_before_those_of_the_normalized_one():
    tokens = {1: AddedToken("<ab>", False, normalized=True), 2: AddedToken("b>", False)}
    assert list(AddedTokens(tokens).cut("<ab>", True)) == ["<a", 2]


@pytest.mark.parametrize("key", ["additional_special_tokens", "extra_special_tokens"])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_special_tokens_of_sentencepiece_models_are_hidden(file: str, key: str):
    """The older files: added_tokens.json says ids, another one which of them are special."""
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False}
    told = {key: ["<|user|>", {"content": "<|end|>"}]}
    assets = {
        "tokenizer.model": small.spm_assets()["tokenizer.model"],
        "tokenizer_config.json": json.dumps(config | (told if "config" in file else {})).encode(),
        "added_tokens.json": json.dumps({"<|user|>": small.SEP, "<|end|>": small.SEP + 1, "<plain>": 268}).encode(),
    }
    if "config" not in file:
        assets[file] = json.dumps(told).encode()
    tokenizer = load_tokenizer(assets)
    ids = tokenizer.encode("<|user|>hi<plain><|end|>")
    assert {small.SEP, small.SEP + 1, 268} < {*ids}
    assert tokenizer.decode(ids) == "hi<plain>" and tokenizer.eos_ids == {small.EOS, small.SEP + 1}
    assert not {small.SEP, small.SEP + 1} & {*tokenizer.encode("<|user|>hi<|end|>", parse_special=False)}


def test_a_role_makes_a_piece_special():
    tokenizer = load_tokenizer(small.spm_assets(eos_token="hi", added_tokens_decoder={}))
    assert tokenizer.decode([small.BOS, small.HI]) == "" and small.HI in tokenizer.eos_ids


def test_what_other_files_make_special_is_hidden_and_not_parsed():
    """Of a tokenizer.json: `<think>` is an added token, `he` one like any other."""
    tokenizer = load_tokenizer(small.byte_level_assets(additional_special_tokens=["<think>", "he", "<none>"]))
    assert tokenizer.encode("<think>he") == [small.THINK, small.HE]
    assert tokenizer.decode([small.THINK, small.HE, ord("a")]) == "a"
    assert small.THINK not in tokenizer.encode("<think>", parse_special=False)
    assert tokenizer.token_id("<none>") is None


# ---- tokens beyond the model's rows ----

BEYOND = {str(FIRST): entry("[PAD]", special=True), str(FIRST + 1): entry("<tool>")}
SPM_BEYOND = {str(small.SEP): entry("[PAD]", special=True), str(small.SEP + 1): entry("<tool>")}
CASES = {
    "json": (small.byte_level_assets(added_tokens_decoder=BEYOND, pad_token="[PAD]"), FIRST),
    "spm": (small.spm_assets(added_tokens_decoder=SPM_BEYOND, pad_token="[PAD]"), small.SEP),
}


def every_id_is_below(tokenizer, limit: int, names: list[str]) -> None:
    for text in [*names, *(f"a {name}b{name}" for name in names), "".join(names), "hello world hi zz ½"]:
        for parse_special in (True, False):
            ids = tokenizer.encode(text, parse_special=parse_special)
            assert ids and max(ids) < limit, text
            assert tokenizer.decode(ids, special=True).endswith(text.split()[-1][-1])


@pytest.mark.parametrize("case", CASES)
def test_tokens_beyond_the_model_are_text(case: str):
    assets, limit = CASES[case]
    whole = load_tokenizer(assets, "m", limit + 2)
    names = [token.content for token in whole.added.values()]
    assert {"[PAD]", "<tool>"} <= {*names} and whole.beyond == {} and whole.token_id("[PAD]") == limit
    tokenizer = load_tokenizer(assets, "m", limit)
    assert tokenizer.beyond == {limit: "[PAD]", limit + 1: "<tool>"} and tokenizer.vocab_size <= limit
    assert tokenizer.token_id("[PAD]") is None and tokenizer.piece_bytes(limit) == b""
    every_id_is_below(tokenizer, limit, names)
    assert tokenizer.decode(tokenizer.encode("a [PAD]b")) == "a [PAD]b", "nothing of the name is lost"
    assert beyond_notes(tokenizer, limit) == [
        f"the tokenizer's [PAD] ({limit}), <tool> ({limit + 1}) are beyond the model's {limit} rows: "
        "they are taken as text"
    ]
    one_more = load_tokenizer(assets, "m", limit + 1)
    assert one_more.encode("[PAD]", add_special=False)[-1] == limit
    assert beyond_notes(one_more, limit + 1)[0].endswith(f"is beyond the model's {limit + 1} rows: it is taken as text")
    assert beyond_notes(whole, limit + 2) == []


@pytest.mark.parametrize(("name", "rows"), [("phi-3", 32008), ("smollm2", 49000), ("open_llama_3b", 31000)])
def test_real_tokenizers_of_a_model_with_fewer_rows(shared_data: Path, name: str, rows: int):
    """Less than they have: Phi-3's <|user|>, merges of the others."""
    assets = {path.name: path.read_bytes() for path in (shared_data / "tokenizers" / name).iterdir()}
    whole, tokenizer = load_tokenizer(assets), load_tokenizer(assets, "m", rows)
    names = [token.content for token in whole.added.values()]
    top = [whole.decode([i]) for i in range(rows, whole.vocab_size, 37)]
    for text in [*names, " ".join(names), *top, " ".join(top)]:
        assert max(tokenizer.encode(text)) < rows, text
    text = "Once upon a time <s>"
    assert max(whole.encode(text)) >= rows or tokenizer.encode(text) == whole.encode(text)


def test_tokens_of_the_vocabulary_itself_beyond_the_model():
    """Ids of a vocabulary may have holes, so that its size does not say which is the largest."""
    assets = small.byte_level_assets()
    document = json.loads(assets["tokenizer.json"])
    document["model"]["vocab"] |= {"hell": 1000, "el": 1001}
    document["model"]["merges"] = ["e l", *document["model"]["merges"], "he ll"]
    document["added_tokens"] = document["added_tokens"][-1:]
    tokenizer = load_tokenizer(assets | {"tokenizer.json": json.dumps(document).encode()}, "m", 300)
    every_id_is_below(tokenizer, 300, ["hello", "<think>"])
    assert tokenizer.encode("hello") == [small.HE, small.LLO, ord("o")]
    assert tokenizer.encode("<think>") == [261] and tokenizer.token_id("hell") is None, "as numbered before"


def test_pieces_of_a_unigram_vocabulary_beyond_the_model():
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}
    pieces = ["<unk>", "a", "b", "▁", "ab", "aba"]
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [[piece, -float(i)] for i, piece in enumerate(pieces, 1)]}
    unigram["vocab"][5][1] = unigram["vocab"][4][1] = -1.0
    document = {"version": "1.0", "added_tokens": [], "model": unigram}
    document |= {"pre_tokenizer": metaspace, "decoder": metaspace}
    assets = {"tokenizer.json": json.dumps(document).encode()}
    assert load_tokenizer(assets, "m", 6).encode("aba 5") == [5, 3, 0]
    assert load_tokenizer(assets, "m", 5).encode("aba 5") == [4, 1, 3, 0]


def test_pieces_of_a_sentencepiece_model_beyond_the_model():
    limit = small.SPACE_HI
    tokenizer = load_tokenizer(small.spm_assets(), "m", limit)
    assert tokenizer.vocab_size == limit
    assert tokenizer.encode("hi", add_special=False) == [small.SPACE_HI - 2, small.SPACE_HI - 3]
    every_id_is_below(tokenizer, limit, ["<s>", "<sep>"])


def test_what_is_put_around_a_text_must_be_the_models():
    assets = small.byte_level_assets(added_tokens_decoder=BEYOND)
    document = json.loads(assets["tokenizer.json"])
    document["added_tokens"].append({"id": FIRST, "lstrip": False, "rstrip": False, "single_word": False} | TOKENS[0])
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<x>": {"id": "<x>", "ids": [FIRST], "tokens": ["<x>"]}},
    }
    assets["tokenizer.json"] = json.dumps(document).encode()
    with pytest.raises(TokenizerError, match=f"m: the tokenizer's special token {FIRST} is beyond"):
        load_tokenizer(assets, "m", FIRST)
