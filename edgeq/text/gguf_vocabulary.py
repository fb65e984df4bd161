"""A model's tokenizer as GGUF metadata: the inverse of `gguf_tokenizer`."""

import json
import struct
from collections.abc import Mapping
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.text.assets import TokenizerSettings, read_settings
from edgeq.text.gguf_pretokenizers import PRE_TOKENIZERS
from edgeq.text.gguf_tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from edgeq.text.protobuf import fields
from edgeq.text.tokenizer import Tokenizer, load_tokenizer
from edgeq.text.wordpiece import from_vocabulary

_PREFIX = "tokenizer.ggml."
_BPE = 2  # sentencepiece's model_type
_ADDED_SCORE = -1000.0  # of tokens that never come from merging
_GPT2 = PRE_TOKENIZERS["gpt-2"].patterns[0]

Piece = tuple[str, float, int]  # text, score, type


def tokenizer_metadata(assets: Mapping[str, bytes], vocab_size: int, source: str) -> dict[str, Any]:
    """Key -> value: numbers, texts, flags and lists of them. TokenizerError for a tokenizer that GGUF cannot hold."""
    settings, tokenizer = read_settings(assets), load_tokenizer(assets, source, vocab_size)
    try:
        if "tokenizer.json" in assets:
            values = _from_json(json.loads(assets["tokenizer.json"]), tokenizer, settings, vocab_size)
        elif "vocab.txt" in assets and "tokenizer.model" not in assets:
            document = from_vocabulary(assets["vocab.txt"], settings)
            values = _from_json(document, tokenizer, settings, vocab_size)
        else:
            values = _from_sentencepiece(assets["tokenizer.model"], settings, vocab_size)
    except TokenizerError as error:
        raise TokenizerError(f"{source}: {error}") from error
    values = {_PREFIX + key: value for key, value in values.items()}
    values |= {_PREFIX + key: value for key, value in _specials(tokenizer, settings).items()}
    template = settings.chat_template
    if isinstance(template, str):
        values["tokenizer.chat_template"] = template
    elif template:
        values |= {f"tokenizer.chat_template{'' if n == 'default' else '.' + n}": t for n, t in template.items()}
        if named := [name for name in template if name != "default"]:
            values["tokenizer.chat_templates"] = named
    return values


def _specials(tokenizer: Tokenizer, settings: TokenizerSettings) -> dict[str, Any]:
    """Ids of special tokens, and what is added around a text."""
    values: dict[str, Any] = {}
    if tokenizer.bos_id is not None:
        values["bos_token_id"] = tokenizer.bos_id
    ids = {role: tokenizer.token_id(name) for role, name in settings.roles.items()}
    eos = ids.get("eos_token")
    if eos is None:
        eos = next(iter(settings.eos_ids), None)
    found = {"eos": eos, "unknown": ids.get("unk_token"), "padding": ids.get("pad_token")}
    found |= {"cls": ids.get("cls_token"), "seperator": ids.get("sep_token"), "mask": ids.get("mask_token")}
    values |= {f"{name}_token_id": token for name, token in found.items() if token is not None}
    further = [token for token in settings.eos_ids if token != eos]
    if further:
        values["eot_token_id"] = further[0]
    around = tokenizer.encode("a")
    values["add_bos_token"] = tokenizer.bos_id is not None and around[:1] == [tokenizer.bos_id]
    values["add_eos_token"] = eos is not None and around[-1:] == [eos]
    return values


def _filled(pieces: dict[int, Piece], settings: TokenizerSettings, vocab_size: int) -> dict[str, Any]:
    """Lists of `vocab_size` tokens and types, and scores: added tokens over the pieces, padding where nothing is."""
    for i, token in settings.added.items():
        pieces[i] = (token.content, _ADDED_SCORE, CONTROL if token.special else USER_DEFINED)
    every = [pieces.get(i, (f"[PAD{i}]", _ADDED_SCORE, UNUSED)) for i in range(vocab_size)]
    texts, scores, types = zip(*every, strict=True)
    return {"tokens": list(texts), "scores": list(scores), "token_type": list(types)}


def _from_sentencepiece(data: bytes, settings: TokenizerSettings, vocab_size: int) -> dict[str, Any]:
    pieces: dict[int, Piece] = {}
    prefix, remove, kind = True, True, 1  # what protobuf has where nothing is written
    for field, payload in fields(data):
        if field == 1:
            piece = dict(fields(payload))
            text, score = piece.get(1, b"").decode(), struct.unpack("<f", piece.get(2, bytes(4)))[0]
            pieces[len(pieces)] = (text, score, piece.get(3, NORMAL))
        elif field == 2:
            kind = dict(fields(payload)).get(3, kind)
        elif field == 3:
            spaces = dict(fields(payload))
            prefix, remove = bool(spaces.get(3, True)), bool(spaces.get(4, True))
    if kind != _BPE:
        raise TokenizerError("tokenizer.model is no BPE model, which GGUF cannot hold: leave the tokenizer out")
    unknown = next((i for i, piece in pieces.items() if piece[2] == UNKNOWN), 0)
    values = {"model": "llama", "pre": "default", **_filled(pieces, settings, vocab_size)}
    values["token_type"][unknown] = UNKNOWN
    return values | {
        "add_space_prefix": prefix and settings.add_prefix_space,
        "remove_extra_whitespaces": remove,
    }


def _from_json(
    document: dict[str, Any], tokenizer: Tokenizer, settings: TokenizerSettings, vocab_size: int
) -> dict[str, Any]:
    model = document.get("model") or {}
    if model.get("type") == "WordPiece":
        return _from_wordpiece(document, settings, vocab_size)
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise TokenizerError(f"tokenizer.json is {model.get('type')!r}, GGUF holds BPE: leave the tokenizer out")
    merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    byte_level = model.get("byte_fallback") is not True
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    pieces: dict[int, Piece] = {
        i: (text, -float(ranks.get(text, len(merges))), _kind(text, byte_level)) for text, i in model["vocab"].items()
    }
    added = {entry["id"]: entry for entry in document.get("added_tokens") or []}
    for i, entry in added.items():
        pieces[i] = (entry["content"], _ADDED_SCORE, CONTROL if entry["special"] else USER_DEFINED)
    values = _filled(pieces, settings, vocab_size)
    if byte_level:
        del values["scores"]
        lines = [" ".join(pair) for pair in merges]
        return {"model": "gpt2", "pre": _pre_name(document, model), **values, "merges": lines}
    if (unknown := model["vocab"].get(model.get("unk_token"))) is not None:
        values["token_type"][unknown] = UNKNOWN
    first = tokenizer.encode("a", add_special=False)[:1]
    spaced = bool(first) and tokenizer.piece_bytes(first[0]).startswith(b" ")
    return {"model": "llama", "pre": "default", **values, "add_space_prefix": spaced}


def _from_wordpiece(document: dict[str, Any], settings: TokenizerSettings, vocab_size: int) -> dict[str, Any]:
    """GGUF marks beginnings of words, and its readers drop capitals and accents."""
    model, normalizer = document["model"], document.get("normalizer") or {}
    as_gguf = normalizer.get("type") == "BertNormalizer" and normalizer.get("lowercase") is True
    if not as_gguf or normalizer.get("strip_accents") is False or model.get("continuing_subword_prefix") != "##":
        raise TokenizerError("tokenizer.json keeps capitals or accents, which GGUF's WordPiece drops: leave it out")
    special = {entry["content"] for entry in document.get("added_tokens") or []}
    pieces: dict[int, Piece] = {}
    for text, i in model["vocab"].items():
        marked = text if text in special or text.startswith("[unused") else f"▁{text}"
        piece = text.removeprefix("##") if text.startswith("##") and len(text) > 2 else marked
        pieces[i] = (piece, 0.0, CONTROL if text in special else NORMAL)
    values = _filled(pieces, settings, vocab_size)
    del values["scores"]
    return {"model": "bert", "pre": "default", **values, "token_type_count": 2}


def _kind(text: str, byte_level: bool) -> int:
    return BYTE if not byte_level and len(text) == 6 and text.startswith("<0x") and text.endswith(">") else NORMAL


def _pre_name(document: dict[str, Any], model: dict[str, Any]) -> str:
    """The name of the pre-tokenizer that cuts a text as this one does."""
    top = document.get("pre_tokenizer") or {}
    patterns: list[str] = []
    for step in top.get("pretokenizers", [top]):
        kind = step.get("type")
        if kind == "Split" and step.get("behavior") == "Isolated" and "Regex" in step.get("pattern", {}):
            patterns.append(step["pattern"]["Regex"])
        elif kind == "Digits":
            patterns.append(r"\p{N}" if step.get("individual_digits") else r"\p{N}+")
        elif kind == "ByteLevel":
            patterns += [_GPT2] if step.get("use_regex", True) else []
        else:
            patterns.append(f"unknown step {kind}")
    ignore = bool(model.get("ignore_merges"))
    fitting = [name for name, known in PRE_TOKENIZERS.items() if known.patterns == tuple(patterns)]
    exact = [name for name in fitting if PRE_TOKENIZERS[name].ignore_merges == ignore]
    if not exact:
        raise TokenizerError("tokenizer.json cuts words as no pre-tokenizer of GGUF does: leave the tokenizer out")
    return exact[0]
