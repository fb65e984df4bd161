"""Tokenizers as GGUF metadata: what any tokenizer.json may hold, or lack, and what is said of what is lost."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import small_tokenizers as small

from edgeq.errors import TokenizerError
from edgeq.text.gguf_tokenizer import tokenizer_assets
from edgeq.text.gguf_vocabulary import tokenizer_metadata
from edgeq.text.tokenizer import Tokenizer, load_tokenizer

ROWS = 263


def changed(change: Callable[[dict[str, Any]], Any], **config: Any) -> dict[str, bytes]:
    """The byte-level assets, with their tokenizer.json changed."""
    assets = small.byte_level_assets(**config)
    document = json.loads(assets["tokenizer.json"])
    change(document)
    return assets | {"tokenizer.json": json.dumps(document).encode()}


def there_and_back(assets: dict[str, bytes], rows: int = ROWS) -> tuple[Tokenizer, Tokenizer, list[str]]:
    notes: list[str] = []
    metadata = tokenizer_metadata(assets, rows, "m", notes)
    assert len(metadata["tokenizer.ggml.tokens"]) == len(metadata["tokenizer.ggml.token_type"]) == rows
    return load_tokenizer(assets, "m", rows), load_tokenizer(tokenizer_assets(metadata, "m"), "m", rows), notes


def no_merges(document: dict[str, Any]) -> None:
    document["model"] |= {"merges": []}


def holes(document: dict[str, Any]) -> None:
    document["model"]["vocab"] |= {"zz": 280, "zzz": 400}
    document["model"]["merges"] += ["z z", "zz z"]


ORDINARY: dict[str, Callable[[dict[str, Any]], Any]] = {
    "as it is": lambda document: None,
    "no merges": no_merges,
    "no type": lambda document: document["model"].pop("type"),
    "no added tokens": lambda document: document.pop("added_tokens"),
    "merges as pairs": lambda document: document["model"].update(merges=[["h", "e"], ["l", "l"], ["Ġ", "w"]]),
    "ids that the tokenizer does not follow": lambda document: document["added_tokens"][0].update(id=300),
    "added tokens in another order": lambda document: document["added_tokens"].reverse(),
    "ids with holes, one beyond": holes,
}


@pytest.mark.parametrize("case", ORDINARY)
def test_an_ordinary_tokenizer_comes_back(case: str):
    rows = 300 if "holes" in case else ROWS
    one, back, notes = there_and_back(changed(ORDINARY[case]), rows)
    for text in ("hello world", "<|im_start|>he<|im_end|>", "<think>½ zzz", ""):
        assert one.encode(text) == back.encode(text), text
        assert one.decode(one.encode(text), special=True) == text
    assert (one.bos_id, one.eos_ids, notes) == (back.bos_id, back.eos_ids, [])


def test_a_tokenizer_without_a_file_of_merges_is_written(tmp_path):
    """The list is there, and empty: readers ask for it."""
    assert tokenizer_metadata(changed(no_merges), ROWS, "m")["tokenizer.ggml.merges"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["model"].update(end_of_word_suffix="</w>"), "has a end_of_word_suffix, which"),
        (lambda d: d.update(pre_tokenizer=None), "cuts words as no pre-tokenizer of GGUF does"),
        (
            lambda d: d.update(
                pre_tokenizer={
                    "type": "Split",
                    "pattern": {"Regex": r"\p{N}"},
                    "behavior": "Isolated",
                    "invert": True,
                }
            ),
            "cuts words as no pre-tokenizer of GGUF does",
        ),
        (
            lambda d: d.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}),
            "is of the kind WordLevel, GGUF holds BPE",
        ),
        (
            lambda d: d.update(model={"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}),
            "is of the kind Unigram, GGUF holds BPE",
        ),
        (lambda d: d.update(model={"vocab": [["a", 0.0]], "unk_id": 0}), "is of the kind unknown"),
        (lambda d: d.update(normalizer={"type": "Sequence", "normalizers": [[[]]]}), "is written in a way of its own"),
        (lambda d: d.update(normalizer=[[]]), "is written in a way of its own"),
    ],
)
def test_what_gguf_cannot_hold_is_refused_in_one_line(change: Callable[[dict[str, Any]], Any], message: str):
    with pytest.raises(TokenizerError, match=f"^m: tokenizer.json {message}") as caught:
        tokenizer_metadata(changed(change), ROWS, "m")
    assert "\n" not in str(caught.value)


def test_what_is_lost_is_said():
    def template(document: dict[str, Any]) -> None:
        around = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
        document["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [around, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [around, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {
                "<|im_start|>": {"id": "<|im_start|>", "ids": [small.IM_START], "tokens": ["<|im_start|>"]}
            },
        }

    assert there_and_back(changed(template))[2] == [
        "GGUF can say bos and eos only of what the tokenizer puts around a text"
    ]
    one, back, notes = there_and_back(changed(template, bos_token="<|im_start|>"))
    assert notes == [] and one.encode("a") == back.encode("a") == [small.IM_START, ord("a")]
    lower = changed(lambda document: document.update(normalizer={"type": "Lowercase"}))
    assert there_and_back(lower)[2] == ["GGUF's readers do not change texts as tokenizer.json does (Lowercase)"]
    assert there_and_back(changed(lambda document: document.update(normalizer={"type": "NFC"})))[2] == []
    spaced = changed(lambda document: document["pre_tokenizer"].update(add_prefix_space=True))
    assert "(a space before it)" in there_and_back(spaced)[2][0]


def ends(*ids: int) -> dict[str, bytes]:
    return {"generation_config.json": json.dumps({"eos_token_id": [*ids]}).encode()}


@pytest.mark.parametrize("ids", [(65,), (65, 66), (65, 66, 67), (small.END_OF_TEXT, 66, 67, small.IM_END)])
def test_all_ends_that_have_a_place_come_back(ids: tuple[int, ...]):
    one, back, notes = there_and_back(small.byte_level_assets() | ends(*ids))
    assert back.eos_ids == one.eos_ids >= {*ids} and notes == []


def test_ends_without_a_place_are_named():
    """Those that readers know by their names do without one."""
    one, back, notes = there_and_back(small.byte_level_assets() | ends(65, small.IM_END, 66, 67, 68, 69))
    assert one.eos_ids - back.eos_ids == {68, 69}
    assert notes == ["GGUF has room for 3 tokens that end an answer: 68, 69 will not end one any more"]


def test_an_end_that_only_this_project_knows_by_its_name_gets_a_place():
    decoder = {str(ROWS): {"content": "<|END_OF_TURN_TOKEN|>", "special": True}}
    assets = small.byte_level_assets(added_tokens_decoder=decoder, eos_token="<|endoftext|>")
    assert tokenizer_metadata(assets, ROWS + 1, "m")["tokenizer.ggml.eot_token_id"] == ROWS


def test_tokens_beyond_the_model_are_left_out():
    decoder = {str(ROWS): {"content": "[PAD]", "special": True}}
    one, back, notes = there_and_back(small.byte_level_assets(added_tokens_decoder=decoder, pad_token="[PAD]"))
    assert one.encode("[PAD]") == back.encode("[PAD]") and notes == []
    one, back, notes = there_and_back(small.spm_assets(), small.SPACE_HI + 1)
    for text in ("hi", "hi <sep>a"):
        assert one.encode(text) == back.encode(text) and one.decode(one.encode(text)) == text


def test_templates_by_name_come_back():
    several = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    _, back, _ = there_and_back(small.byte_level_assets(chat_template=several))
    assert back.chat_template is not None and back.chat_template.names == ["default", "tool_use"]
    metadata = tokenizer_metadata(small.byte_level_assets(chat_template=several[:1]), ROWS, "m")
    assert "tokenizer.chat_templates" not in metadata and metadata["tokenizer.chat_template"] == "d"
