"""BERT's WordPiece as a `tokenizer.json`, for vocabularies that come as a list: `vocab.txt`, or a GGUF file's."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.text.assets import TokenizerSettings

SPECIAL = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}


def read_vocabulary(data: bytes) -> list[str]:
    """The tokens of a `vocab.txt`, one per line. TokenizerError for one that is not UTF-8."""
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError("vocab.txt is not UTF-8: download the checkpoint's own") from error
    if lines and not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def wordpiece(
    tokens: Sequence[str],
    roles: Mapping[str, str],
    lowercase: bool = True,
    strip_accents: bool | None = None,
    split_chinese: bool = True,
) -> dict[str, Any]:
    """`tokenizer.json` of a vocabulary in which `##` marks what goes on with a word.

    `roles` names the special tokens, each of which is by default BERT's. Accents go with the capitals unless
    `strip_accents` says otherwise. Raises TokenizerError for a vocabulary that lacks the tokens around a text, or the
    unknown one.
    """
    vocab = {token: i for i, token in enumerate(tokens)}
    names = {role: roles.get(role, token) for role, token in SPECIAL.items()}
    for role in ("unk_token", "cls_token", "sep_token"):
        if names[role] not in vocab:
            raise TokenizerError(f"the vocabulary has no {names[role]!r}, its {role}: download the checkpoint's own")
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": split_chinese}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(names, vocab),
        "normalizer": {**normalizer, "strip_accents": strip_accents, "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": around_texts(names, vocab),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": names["unk_token"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }


def added_tokens(names: Mapping[str, str], vocab: Mapping[str, int]) -> list[dict[str, Any]]:
    """The special tokens that a vocabulary has, as `tokenizer.json` lists them."""
    known = sorted({token for token in names.values() if token in vocab}, key=vocab.__getitem__)
    return [
        {"id": vocab[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for token in known
    ]


def around_texts(names: Mapping[str, str], vocab: Mapping[str, int]) -> dict[str, Any]:
    """What puts a text, or two, between the tokens that BERT begins and ends them with."""
    first, last = ({"SpecialToken": {"id": names[role], "type_id": 0}} for role in ("cls_token", "sep_token"))
    text = {"Sequence": {"id": "A", "type_id": 0}}
    other = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": names["sep_token"], "type_id": 1}}]
    tokens = [names[role] for role in ("cls_token", "sep_token")]
    return {
        "type": "TemplateProcessing",
        "single": [first, text, last],
        "pair": [first, text, last, *other],
        "special_tokens": {token: {"id": token, "ids": [vocab[token]], "tokens": [token]} for token in tokens},
    }


def from_vocabulary(data: bytes, settings: TokenizerSettings) -> dict[str, Any]:
    """`tokenizer.json` of a `vocab.txt`, as tokenizer_config.json says."""
    return wordpiece(
        read_vocabulary(data),
        settings.roles,
        settings.lowercase is not False,
        settings.strip_accents,
        settings.split_chinese,
    )
