"""Two texts as one sequence."""

import json

import pytest
from small_tokenizers import END_OF_TEXT, IM_END, IM_START, THINK, byte_level_assets, spm_assets

from edgeq.text.pair import shared_length
from edgeq.text.tokenizer import load_tokenizer


@pytest.mark.parametrize(
    ("first", "second", "most", "kept"),
    [
        (3, 4, 7, (3, 4)),
        (3, 40, 20, (3, 17)),
        (40, 3, 20, (17, 3)),
        (30, 40, 21, (10, 11)),
        (40, 30, 21, (11, 10)),
        (10, 11, 20, (10, 10)),
        (5, 5, 0, (0, 0)),
        (5, 5, -3, (0, 0)),
    ],
)
def test_the_longer_text_gives_way(first, second, most, kept):
    assert shared_length(first, second, most) == kept


def roberta(**config):
    assets = byte_level_assets(**config)
    document = json.loads(assets["tokenizer.json"])
    ends = {"sep": ["<|im_end|>", IM_END], "cls": ["<|im_start|>", IM_START]}
    document["post_processor"] = {"type": "RobertaProcessing", **ends, "trim_offsets": True, "add_prefix_space": False}
    return load_tokenizer({**assets, "tokenizer.json": json.dumps(document).encode()})


def test_the_tokenizer_s_own_rule_of_pairs():
    pair = roberta().encode_pair("ab", "cd<|im_end|>", 20)
    assert pair.ids == [IM_START, 97, 98, IM_END, IM_END, 99, 100, IM_END, IM_END]
    assert set(pair.types) == {0} and not pair.cut
    cut = roberta().encode_pair("ab", "cdefgh", 9)
    assert cut.ids == [IM_START, 97, 98, IM_END, IM_END, 99, 100, 101, IM_END] and cut.cut


def test_settings_say_what_goes_around():
    assets = byte_level_assets(
        add_bos_token=True, add_eos_token=True, bos_token="<|im_start|>", eos_token="<|endoftext|>"
    )
    pair = load_tokenizer(assets).encode_pair("ab", "cdef", 9)
    assert pair.ids == [IM_START, 97, 98, END_OF_TEXT, IM_START, 99, 100, 101, END_OF_TEXT] and pair.cut
    assert pair.types == [0] * 4 + [1] * 5
    plain = load_tokenizer(byte_level_assets(add_bos_token=False)).encode_pair("ab", "c", 9)
    assert (plain.ids, plain.types, plain.cut) == ([97, 98, 99], [0, 0, 1], False)


def test_sentencepiece():
    tokenizer = load_tokenizer(spm_assets())
    pair = tokenizer.encode_pair("hi", "a", 9)
    assert pair.ids == [*tokenizer.encode("hi"), *tokenizer.encode("a")]
    assert tokenizer.encode_pair("hi", "a a a a", 5).cut


def test_tokens_beyond_the_model_are_text():
    assets = byte_level_assets(add_bos_token=None)
    tokenizer = load_tokenizer(assets, vocab_size=THINK)
    assert tokenizer.encode_pair("a<think>", "b", 99).ids == [97, *b"<think>", 98]
