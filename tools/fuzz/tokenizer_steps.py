"""Steps that a tokenizer.json may have, with values that somebody may not have thought of."""

import base64
import random
import struct
from typing import Any

import mutate

Rng = random.Random
TEXTS = ["", " ", "a", "ab", "▁", "\0", "é", "\U0001f642", "a" * 500, "##", "<s>", "Ġ"]
REGEXES = [
    "",
    "a",
    ".",
    "(a+)+$",
    "(?=a)*",
    "\\p{L}+|\\p{N}|[^\\s]",
    "(?<x>",
    "[",
    "a{1,99999}",
    "(a|a)*b",
    "$",
    "^",
    "\\b",
]
REGEXES += [
    "(?:a?){40}a{40}",
    "\\G",
    "(?<=a)b",
    "((a*)*)*$",
    "\\1",
    "(a)\\1*",
    "[[:alpha:]]",
    "\\p{Foo}",
    "(?i)ß",
    "\\x{110000}",
]


def _pattern(rng: Rng) -> dict[str, str]:
    return rng.choice([{"String": rng.choice(TEXTS)}, {"Regex": rng.choice(REGEXES)}])


def _charsmap(rng: Rng) -> str:
    trie = rng.randbytes(4 * rng.choice([0, 1, 2, 256, 1024]))
    length = rng.choice([len(trie), 0, 3, len(trie) + 4, (1 << 32) - 1])
    rest = rng.choice([b"", b"a\0", b"\xff\xfe\0", b"ab" * 300 + b"\0"])
    return base64.b64encode(struct.pack("<I", length) + trie + rest).decode() + rng.choice(["", "", "=", "é"])


def normalizer(rng: Rng) -> Any:
    content = rng.choice(TEXTS)
    return rng.choice(
        [
            {"type": rng.choice(["NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "ByteLevel"])},
            {"type": "Replace", "pattern": _pattern(rng), "content": content},
            {"type": "Prepend", "prepend": content},
            {"type": "Precompiled", "precompiled_charsmap": _charsmap(rng)},
            {"type": "Strip", "strip_left": True, "strip_right": rng.random() < 0.5},
            {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": rng.choice([None, True, False]),
                "lowercase": True,
            },
        ]
    )


def pre_tokenizer(rng: Rng) -> Any:
    behavior = rng.choice(["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"])
    return rng.choice(
        [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": rng.random() < 0.5},
            {"type": "Split", "pattern": _pattern(rng), "behavior": behavior, "invert": rng.random() < 0.5},
            {"type": "Metaspace", "replacement": rng.choice("▁a\0"), "prepend_scheme": "first", "split": True},
            {"type": "Digits", "individual_digits": True},
            {"type": "Punctuation", "behavior": behavior},
            {"type": "CharDelimiterSplit", "delimiter": " "},
            {"type": "FixedLength", "length": rng.choice([0, 1, 5, 1 << 40])},
            {"type": rng.choice(["Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts"])},
        ]
    )


def decoder(rng: Rng) -> Any:
    return rng.choice(
        [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            {"type": rng.choice(["ByteFallback", "Fuse"])},
            {"type": "Replace", "pattern": _pattern(rng), "content": rng.choice(TEXTS)},
            {
                "type": "Strip",
                "content": rng.choice(TEXTS),
                "start": rng.choice([0, 1 << 40]),
                "stop": 0,
            },
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            {"type": "WordPiece", "prefix": rng.choice(TEXTS), "cleanup": True},
            {"type": "BPEDecoder", "suffix": rng.choice(TEXTS)},
            {"type": "CTC", "pad_token": "a", "word_delimiter_token": rng.choice(TEXTS), "cleanup": True},
        ]
    )


def post_processor(rng: Rng) -> Any:
    text, other = (
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<s>", "type_id": rng.choice([0, 9])}},
    )
    ids = rng.choice([[256], [], [256] * 3000, [1 << 31]])
    return rng.choice(
        [
            {
                "type": "TemplateProcessing",
                "single": rng.choice([[other, text], [text] * 3, [], [other] * 50]),
                "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": ids, "tokens": ["<s>"] * len(ids)}},
            },
            {"type": "BertProcessing", "sep": ["<s>", 256], "cls": [rng.choice(TEXTS), 1 << 30]},
            {
                "type": "RobertaProcessing",
                "sep": ["</s>", 2],
                "cls": ["<s>", 0],
                "trim_offsets": True,
                "add_prefix_space": True,
            },
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        ]
    )


def model(rng: Rng, sound: dict[str, Any]) -> Any:
    vocab = sound["vocab"]
    pieces = [[text, -float(i)] for text, i in sorted(vocab.items(), key=lambda item: item[1])]
    pieces = rng.choice([pieces, pieces[:1], [], [["", 0.0]], [["a", float(10**308)]] * 2, [*pieces, ["é" * 400, 0]]])
    merges = [["a", "b"], ["ab", "a"], ["a", ""], ["", ""], ["é", "a"], "a b", "a  b", ["a", "b"]]
    return rng.choice(
        [
            {"type": "Unigram", "unk_id": rng.choice([0, None, 5, 1 << 40]), "vocab": pieces, "byte_fallback": True},
            {
                "type": "WordPiece",
                "unk_token": rng.choice(["a", "[UNK]", ""]),
                "continuing_subword_prefix": rng.choice(TEXTS),
                "max_input_chars_per_word": rng.choice([0, 1, 100, 1 << 40]),
                "vocab": rng.choice([vocab, {}, {"": 0}, {"a": 0, "##b": 1}]),
            },
            {"type": "WordLevel", "vocab": {**vocab, "": 900}, "unk_token": rng.choice(["a", "none"])},
            {
                **sound,
                "vocab": {**vocab, rng.choice(TEXTS): rng.choice([260, 5, 1 << 20, (1 << 32) - 1])},
                "merges": rng.sample(merges, rng.randrange(4)),
                "continuing_subword_prefix": rng.choice([None, *TEXTS]),
                "end_of_word_suffix": rng.choice([None, *TEXTS]),
                "unk_token": rng.choice([None, "a", "nothing"]),
                "dropout": rng.choice([None, 0.0, 1.0, 0.5]),
                "byte_fallback": rng.random() < 0.5,
                "ignore_merges": rng.random() < 0.5,
            },
        ]
    )


STEPS = {
    "normalizer": (normalizer, "normalizers"),
    "pre_tokenizer": (pre_tokenizer, "pretokenizers"),
    "decoder": (decoder, "decoders"),
    "post_processor": (post_processor, "processors"),
}


def change(rng: Rng, data: bytes) -> bytes:
    """Other steps, another model, other values, or other bytes."""
    if rng.random() < 0.5:
        return mutate.of_json(rng, data)
    document = mutate.copied(mutate.parsed(data))
    for _ in range(rng.choice([1, 1, 2, 3])):
        part = rng.choice([*STEPS, "normalizer", "pre_tokenizer", "model", "added_tokens"])
        if part == "model":
            document["model"] = model(rng, mutate.copied(mutate.parsed(data)["model"]))
        elif part == "added_tokens":
            token = {**rng.choice(document["added_tokens"]), "content": rng.choice(TEXTS), "normalized": True}
            token |= {"id": rng.choice([0, 259, 260, (1 << 32) - 1]), "single_word": rng.random() < 0.3, "lstrip": True}
            document["added_tokens"].append(token)
        else:
            make, several = STEPS[part]
            steps = [make(rng) for _ in range(rng.choice([1, 1, 2, 4]))]
            document[part] = steps[0] if len(steps) == 1 else {"type": "Sequence", several: steps}
    return mutate.text_of(document)
