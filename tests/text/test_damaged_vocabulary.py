"""Vocabularies that are damaged or hostile: a TokenizerError each, whichever library reads them."""

import json
from typing import Any

import pytest

from edgeq.errors import TokenizerError
from edgeq.text.assets import MOST_TOKENS, read_settings
from edgeq.text.gguf_tokenizer import tokenizer_assets
from edgeq.text.gguf_vocabulary import tokenizer_metadata
from edgeq.text.protobuf import message, number
from edgeq.text.tokenizer import load_tokenizer

TOKENS = ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab"]
METADATA = {"model": "llama", "tokens": TOKENS, "scores": [0.0] * 7, "token_type": [2, 3, 3, 1, 1, 1, 1]}


def sentencepiece(**changes: Any) -> dict[str, bytes]:
    values = {f"tokenizer.ggml.{key}": value for key, value in {**METADATA, **changes}.items()}
    return tokenizer_assets(values, "m")


PIECES = {
    "no UTF-8": message(1, message(1, b"a\xff\xfe")),
    "half a surrogate pair": message(1, message(1, b"\xed\xa0\x80")),
    "a number for a name": message(1, number(1, 7)),
    "a score of two bytes": message(1, message(1, b"c") + message(2, b"\0\0")),
    "a type that there is not": message(1, message(1, b"c") + number(3, 1 << 40)),
    "a piece that is a number": number(1, 7),
    "a trainer that is a number": number(2, 7),
}


@pytest.mark.parametrize("what", PIECES)
def test_a_piece_that_is_none(what: str):
    assets = sentencepiece()
    assets["tokenizer.model"] += PIECES[what]
    with pytest.raises(TokenizerError) as caught:
        tokenizer_metadata(assets, 16, "m")
        load_tokenizer(assets, "m").decode([7])  # a piece's text is looked at when it is asked for
    assert "tokenizer.model" in str(caught.value)


@pytest.mark.parametrize("score", [1e39, -1e300, float("inf"), float("nan"), 10**18])
def test_scores_past_f32_are_the_largest_there_are(score: float):
    tokenizer = load_tokenizer(sentencepiece(scores=[0.0] * 6 + [score]), "m")
    assert tokenizer.decode(tokenizer.encode("ab", add_special=False)) == "ab"


@pytest.mark.parametrize("kind", [0, 7, 255, 1 << 31, -1])
def test_types_that_there_are_not_are_normal(kind: int):
    tokenizer = load_tokenizer(sentencepiece(token_type=[2, 3, 3, 1, 1, 1, kind]), "m")
    assert tokenizer.encode("ab", add_special=False) == load_tokenizer(sentencepiece(), "m").encode("ab", False)


@pytest.mark.parametrize("digits", ["²", "٣", "9" * 5000, "1" * 10, "-1", "1.0", "", "0x1"])
def test_ids_that_are_no_numbers(digits: str):
    config = {"added_tokens_decoder": {digits: {"content": "<x>"}}}
    with pytest.raises(TokenizerError, match=r"added token .* is malformed"):
        read_settings({"tokenizer_config.json": json.dumps(config).encode()})


def test_ids_that_no_vocabulary_reaches_are_none():
    found = read_settings({"added_tokens.json": json.dumps({"a": MOST_TOKENS, "b": 10**400, "c": 5, "": 6}).encode()})
    assert list(found.added) == [5]
