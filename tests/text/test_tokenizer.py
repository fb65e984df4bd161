import base64
import json
import re
from pathlib import Path

import pytest
import small_tokenizers as small
import tokenizers
from token_vectors import read_vectors, sentencepiece_model

from edgeq.errors import TokenizerError
from edgeq.text.tokenizer import load_tokenizer

CHATML = "<|im_start|>hello world<|im_end|>"


def test_byte_level_ids_and_text():
    tokenizer = load_tokenizer(small.byte_level_assets())
    ids = tokenizer.encode("hello world")
    assert ids == [small.HE, small.LLO, ord("o"), small.WORLD, *b"orld"]
    assert tokenizer.decode(ids) == "hello world"
    assert tokenizer.vocab_size == 263
    assert tokenizer.piece_bytes(small.WORLD) == b" w"
    assert tokenizer.piece_bytes(10_000) == b""


@pytest.mark.parametrize("text", ["naïve ½ 🦙\n\t漢字", "\u0000\u007f", " two  spaces ", "e\u0301", "\r\n"])
def test_byte_level_round_trip(text):
    tokenizer = load_tokenizer(small.byte_level_assets())
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("assets", [small.byte_level_assets(), small.spm_assets()])
def test_half_a_surrogate_pair_does_no_harm(assets):
    tokenizer = load_tokenizer(assets | {"special_tokens_map.json": b'{"cls_token": "\\ud800"}'})
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"


def test_control_tokens_are_parsed_only_when_asked():
    tokenizer = load_tokenizer(small.byte_level_assets())
    ids = tokenizer.encode(CHATML)
    assert (ids[0], ids[-1]) == (small.IM_START, small.IM_END)
    assert not {small.IM_START, small.IM_END} & set(tokenizer.encode(CHATML, parse_special=False))
    assert tokenizer.encode(CHATML) == ids, "the plain encoding must not change later ones"
    assert tokenizer.decode(ids) == "hello world"
    assert tokenizer.decode(ids, special=True) == CHATML
    assert tokenizer.decode(tokenizer.encode("<think>a")) == "<think>a"


def test_bos_and_eos_are_added_as_the_configuration_says():
    assets = small.byte_level_assets(
        bos_token="<|im_start|>", eos_token={"content": "<|endoftext|>"}, add_bos_token=True, add_eos_token=True
    )
    tokenizer = load_tokenizer(assets)
    assert tokenizer.encode("a") == [small.IM_START, ord("a"), small.END_OF_TEXT]
    assert tokenizer.encode("a", add_special=False) == [ord("a")]


def test_special_ids_come_from_every_configuration_file():
    assets = small.byte_level_assets(eos_token=None) | {
        "special_tokens_map.json": b'{"bos_token": {"content": "<|im_start|>"}}',
        "generation_config.json": b'{"eos_token_id": [104, 105]}',
        "config.json": b'{"eos_token_id": 106, "bos_token_id": 107}',
    }
    tokenizer = load_tokenizer(assets)
    assert tokenizer.bos_id == small.IM_START
    assert tokenizer.eos_ids == {104, 105, 106, small.IM_END, small.END_OF_TEXT}


def test_ids_beyond_the_vocabulary_are_no_end():
    assets = small.byte_level_assets() | {"config.json": b'{"eos_token_id": [5000, %d], "bos_token_id": 107}' % 10**30}
    tokenizer = load_tokenizer(assets)
    assert tokenizer.eos_ids == {small.IM_END, small.END_OF_TEXT}
    assert tokenizer.bos_id == 107


def test_null_bos_in_tokenizer_config_wins():
    assets = small.byte_level_assets(bos_token=None) | {"config.json": b'{"bos_token_id": 107}'}
    assert load_tokenizer(assets).bos_id is None


def test_harmony_end_ends_a_message_not_the_answer():
    added = {
        str(263 + i): {"content": name, "special": True} for i, name in enumerate(["<|end|>", "<|return|>", "<|call|>"])
    }
    tokenizer = load_tokenizer(small.byte_level_assets(added_tokens_decoder=added))
    assert 263 not in tokenizer.eos_ids
    assert {264, 265} <= tokenizer.eos_ids
    assert tokenizer.encode("a<|return|>") == [ord("a"), 264]


def test_sentencepiece_adds_bos_and_a_leading_space():
    tokenizer = load_tokenizer(small.spm_assets())
    assert tokenizer.encode("hi") == [small.BOS, small.SPACE_HI]
    assert tokenizer.encode("hi", add_special=False) == [small.SPACE_HI]
    assert tokenizer.decode([small.BOS, small.SPACE_HI]) == "hi"
    assert tokenizer.encode("") == [small.BOS]
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.vocab_size) == (small.BOS, {small.EOS}, 267)
    assert load_tokenizer(small.spm_assets(add_bos_token=False)).encode("hi") == [small.SPACE_HI]


def test_sentencepiece_bytes():
    tokenizer = load_tokenizer(small.spm_assets(add_bos_token=False))
    ids = tokenizer.encode("½")
    assert ids == [small.SPACE, small.BYTE_0 + 0xC2, small.BYTE_0 + 0xBD]
    assert tokenizer.decode(ids) == "½"
    assert tokenizer.piece_bytes(small.BYTE_0 + 0xC2) == b"\xc2"


def test_sentencepiece_special_tokens_cut_the_text():
    legacy = load_tokenizer(small.spm_assets(add_bos_token=False))
    assert legacy.encode("hi</s>hi") == [small.SPACE_HI, small.EOS, small.SPACE_HI]
    assert legacy.encode("hi<sep>  hi") == [small.SPACE_HI, small.SEP, small.SPACE_HI], "<sep> swallows spaces after it"
    assert legacy.token_id("<sep>") == small.SEP
    assert small.EOS not in legacy.encode("hi</s>hi", parse_special=False)
    modern = load_tokenizer(small.spm_assets(add_bos_token=False, legacy=False))
    assert modern.encode("hi</s>hi") == [small.SPACE_HI, small.EOS, small.HI]
    assert modern.encode("</s>hi") == [small.EOS, small.HI]


def test_sentencepiece_that_removes_spaces_keeps_one_after_a_special_token():
    tokenizer = load_tokenizer(small.spm_assets(remove_extra_whitespaces=True, add_bos_token=False, legacy=False))
    assert tokenizer.encode(" hi  ") == [small.SPACE_HI]
    assert tokenizer.encode("hi</s> hi") == [small.SPACE_HI, small.EOS, small.SPACE_HI]
    assert tokenizer.encode("hi</s>hi") == [small.SPACE_HI, small.EOS, small.HI]


def test_sentencepiece_without_leading_space():
    for assets in (small.spm_assets(add_dummy_prefix=False), small.spm_assets(add_prefix_space=False)):
        tokenizer = load_tokenizer(assets)
        assert tokenizer.encode("hi") == [small.BOS, small.HI]
        assert tokenizer.decode([small.BOS, small.SPACE_HI]) == " hi"


@pytest.mark.parametrize(
    ("assets", "message"),
    [
        ({}, "no tokenizer.json or tokenizer.model"),
        ({"tokenizer.json": b"{"}, "tokenizer.json cannot be read"),
        ({"tokenizer.json": b'{"model": 1}'}, "tokenizer.json cannot be read"),
        ({"tokenizer.model": b"not a protobuf"}, "not a sentencepiece model"),
        ({"tokenizer_config.json": b"{"}, "tokenizer_config.json is not valid JSON"),
        ({"tokenizer_config.json": b"[" * 100_000}, "tokenizer_config.json is not valid JSON"),
        ({"tokenizer_config.json": b"[]"}, "not a JSON object"),
        ({"tokenizer_config.json": b'{"added_tokens_decoder": {"x": {}}}'}, "added token 'x' is malformed"),
    ],
)
def test_bad_assets_give_one_clear_line(assets, message):
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(assets)
    assert "\n" not in str(caught.value)


def changed(**parts):
    """The byte-level tokenizer with other parts in its tokenizer.json; those of its model are added."""
    assets = small.byte_level_assets()
    document = json.loads(assets["tokenizer.json"])
    document["model"] |= parts.pop("model", {})
    return assets | {"tokenizer.json": json.dumps(document | parts).encode()}


def charsmap(data):
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*normalizers):
    return {"type": "Sequence", "normalizers": list(normalizers)}


A = {"String": "a"}
TRIE = (8).to_bytes(4, "little") + bytes(8)
TEXT_TWICE = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2, "pair": []}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"normalizer": sequence(*[replace(A, "a" * 1000)] * 4)}, "make a text 1000000000000 times longer"),
        ({"normalizer": sequence(sequence(replace(A, "a" * 9)), replace({"Regex": "a"}, "a" * 9))}, "81 times longer"),
        ({"normalizer": replace({"String": ""}, "a" * 99)}, "replaces nothing by something"),
        ({"normalizer": {"type": "Prepend", "prepend": "a" * 1001}}, "writes 1001 characters at once"),
        ({"normalizer": charsmap(TRIE + b"a" * 5000 + b"\0")}, "times longer"),
        ({"normalizer": charsmap(b"abc")}, "has a damaged precompiled_charsmap"),
        ({"normalizer": sequence(charsmap(b"\xff" * 9))}, "has a damaged precompiled_charsmap"),
        pytest.param(
            {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
            "pieces of no length",
            marks=pytest.mark.skipif(
                not hasattr(tokenizers.pre_tokenizers, "FixedLength"), reason="this version of tokenizers cuts none"
            ),
        ),
        ({"post_processor": TEXT_TWICE | {"special_tokens": {}}}, "repeats the text"),
        (
            {"model": {"continuing_subword_prefix": "####", "merges": [["h", "e"]]}},
            "'e', which lacks the prefix '####'",
        ),
        ({"model": {"continuing_subword_prefix": "#", "merges": ["h é"]}}, "'é', which lacks the prefix '#'"),
        ({"model": {"merges": ["h zz"]}}, "cannot be read"),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}},
            "read",
        ),
    ],
)
def test_what_a_tokenizer_may_not_ask(parts, message, capfd):
    with pytest.raises(TokenizerError, match=re.escape(message).replace(r"\(\.\*", r"\(.*")) as caught:
        load_tokenizer(changed(**parts))
    assert "\n" not in str(caught.value)
    assert not capfd.readouterr().err, "the library panics"


def test_a_token_that_no_vocabulary_reaches():
    document = json.loads(small.byte_level_assets()["tokenizer.json"])
    vocab = {**document["model"]["vocab"], "z": 1 << 28}
    with pytest.raises(TokenizerError, match="has a token 268435456"):
        load_tokenizer(changed(model={"vocab": vocab}), "m", 300).encode("zz")


def test_a_name_written_otherwise_is_that_name():
    """The library would end the process."""
    data = changed(model={"continuing_subword_prefix": "#", "merges": ["h é"]})["tokenizer.json"]
    escaped = data.replace(b"continuing_subword_prefix", rb"continuing\u005fsubword_prefix")
    with pytest.raises(TokenizerError, match="lacks the prefix '#'"):
        load_tokenizer({"tokenizer.json": escaped})


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (
            {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": "(a+)+$"},
                    "behavior": "Isolated",
                    "invert": False,
                }
            },
            "a" * 40 + "!",
        ),
        ({"normalizer": charsmap(TRIE + b"a\0")}, "hello"),
        ({"model": {"type": "WordLevel", "unk_token": "missing"}}, "hello"),
    ],
)
def test_what_fails_with_a_text_is_one_line(parts, text):
    """Faults of the library, some of which are no Exception."""
    with pytest.raises(TokenizerError, match=r"tokenizer.json cannot (encode this text|be read) \(") as caught:
        load_tokenizer(changed(**parts)).encode(text)
    assert "\n" not in str(caught.value)


def test_what_tokenizers_do_ask_is_not_refused():
    normalizer = sequence(
        {"type": "Prepend", "prepend": "▁"},
        replace({"String": " "}, "▁"),
        replace({"Regex": " {2,}"}, "▁"),
        replace(A, "aaaa"),
        {"type": "NFKC"},
        {"type": "Lowercase"},
    )
    tokenizer = load_tokenizer(changed(normalizer=normalizer, pre_tokenizer=None))
    assert tokenizer.decode(tokenizer.encode("he", add_special=False)) == "he"


def test_a_piece_that_is_no_text():
    data = small.spm_assets()["tokenizer.model"].replace("▁hi".encode(), b"\xff\x96\x81hi")
    tokenizer = load_tokenizer({"tokenizer.model": data})
    with pytest.raises(TokenizerError, match=f"piece {small.SPACE_HI} is not UTF-8"):
        tokenizer.decode([small.SPACE_HI])


@pytest.mark.parametrize(
    "generation", [{}, {"eos_token_id": [small.END_OF_TEXT, 300]}], ids=["of the tokenizer", "of generation_config"]
)
def test_special_ids_beyond_the_models_vocabulary(generation):
    assets = small.byte_level_assets() | {"generation_config.json": json.dumps(generation).encode()}
    rows = max([small.IM_END, *generation.get("eos_token_id", [])])
    assert load_tokenizer(assets, "m.eqf", vocab_size=rows + 1).eos_ids >= {small.IM_END}
    with pytest.raises(TokenizerError, match=f"m.eqf: .* special token {rows} is beyond .* vocabulary of {rows}"):
        load_tokenizer(assets, "m.eqf", vocab_size=rows)


def test_an_unknown_decoder_is_refused():
    assets = small.byte_level_assets()
    model = json.loads(assets["tokenizer.json"])
    model["decoder"] = {"type": "CTC", "pad_token": "-", "word_delimiter_token": "|", "cleanup": True}
    with pytest.raises(TokenizerError, match=r"has the decoder \['CTC'\]"):
        load_tokenizer({"tokenizer.json": json.dumps(model).encode()})


@pytest.mark.parametrize(
    ("folder", "vectors"), [("gpt2", "gpt-2"), ("falcon", "falcon"), ("phi-3", "phi-3"), ("qwen2.5", "qwen2")]
)
def test_vectors_of_real_tokenizers(shared_data: Path, folder: str, vectors: str):
    tokenizer = load_tokenizer({p.name: p.read_bytes() for p in (shared_data / "tokenizers" / folder).iterdir()})
    checked = 0
    for text, ids in read_vectors(shared_data / "ggml-vocab", vectors):
        without_bos = tokenizer.encode(text)[1:] if folder == "phi-3" else tokenizer.encode(text)
        assert without_bos == ids, repr(text)
        assert tokenizer.decode(ids) == text
        checked += 1
    assert checked > 40


def test_vectors_of_a_real_sentencepiece_vocabulary(shared_data: Path):
    """Llama's sentencepiece vocabulary: Phi-3's tokenizer.json has its pieces.

    A score is minus the piece's rank, except that runs of spaces only come together when nothing else can.
    """
    vocab = json.loads((shared_data / "tokenizers" / "phi-3" / "tokenizer.json").read_text())["model"]["vocab"]
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3} | {f"<0x{b:02X}>": 6 for b in range(256)}
    names = sorted(vocab, key=vocab.__getitem__)[:32_000]
    scores = [-1e9 if piece.startswith("▁▁") else -float(max(0, i - 259)) for i, piece in enumerate(names)]
    pieces = [(piece, score, kinds.get(piece, 1)) for piece, score in zip(names, scores, strict=True)]
    tokenizer = load_tokenizer({"tokenizer.model": sentencepiece_model(pieces)})
    for text, ids in read_vectors(shared_data / "ggml-vocab", "llama-spm"):
        assert tokenizer.encode(text, add_special=False) == ids, repr(text)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", ["babyllama105", "stories260K", "bitllama-3M"])
def test_tokenizers_of_real_checkpoints(shared_data: Path, name: str):
    folder = shared_data / "models" / name
    tokenizer = load_tokenizer({p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".safetensors"})
    ids = tokenizer.encode("Once upon a time, there was a dog.")
    assert ids[0] == tokenizer.bos_id == 1
    assert tokenizer.eos_ids == {2}
    assert tokenizer.decode(ids) == "Once upon a time, there was a dog."
    assert max(ids) < tokenizer.vocab_size == json.loads((folder / "config.json").read_text())["vocab_size"]
