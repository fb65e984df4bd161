"""A model's tokenizer as GGUF metadata: the inverse of `gguf_tokenizer`."""

import struct
from collections.abc import Mapping
from typing import Any

from edgeq.errors import TokenizerError
from edgeq.system.json_input import parse_json
from edgeq.text.assets import TokenizerSettings, read_settings
from edgeq.text.gguf_names import END_NAMES
from edgeq.text.gguf_pretokenizers import PRE_TOKENIZERS
from edgeq.text.gguf_tokenizer import BYTE, CONTROL, ENDS, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from edgeq.text.protobuf import fields
from edgeq.text.tokenizer import Tokenizer, load_tokenizer
from edgeq.text.wordpiece import from_vocabulary
from edgeq.text.world import FILE as WORLD
from edgeq.text.world import escaped, read_vocabulary

_PREFIX = "tokenizer.ggml."
_BPE = 2  # sentencepiece's model_type
_MOST_VALUES = 1 << 25  # of a tokenizer.json; large vocabularies have two million, merges and all
_ADDED_SCORE = -1000.0  # of tokens that never come from merging
_GPT2 = PRE_TOKENIZERS["gpt-2"].patterns[0]
# Steps before any cutting that change nothing that GGUF's readers do not do as well, or that they never do
_USUAL_STEPS = {"NFC", "ByteLevel", "Prepend"}

Piece = tuple[str, float, int]  # text, score, type


def tokenizer_metadata(
    assets: Mapping[str, bytes], vocab_size: int, source: str, notes: list[str] | None = None
) -> dict[str, Any]:
    """Key -> value: numbers, texts, flags and lists of them; `notes` gets what GGUF has no place for.

    TokenizerError for a tokenizer that GGUF cannot hold.
    """
    notes = [] if notes is None else notes
    settings, tokenizer = read_settings(assets), load_tokenizer(assets, source, vocab_size)
    try:
        if "tokenizer.json" in assets:
            values = _from_json(_document(assets["tokenizer.json"]), tokenizer, vocab_size, notes)
        elif WORLD in assets and "tokenizer.model" not in assets:
            values = _from_world(assets[WORLD], tokenizer, vocab_size)
        elif "vocab.txt" in assets and "tokenizer.model" not in assets:
            values = _from_wordpiece(from_vocabulary(assets["vocab.txt"], settings), tokenizer, vocab_size)
        else:
            values = _from_sentencepiece(assets["tokenizer.model"], tokenizer, settings, vocab_size)
    except TokenizerError as error:
        raise TokenizerError(f"{source}: {error}") from error
    values |= _specials(tokenizer, settings, values["model"], notes)
    values = {_PREFIX + key: value for key, value in values.items()}
    template = settings.chat_template
    if isinstance(template, str):
        values["tokenizer.chat_template"] = template
    elif template:
        values |= {f"tokenizer.chat_template{'' if n == 'default' else '.' + n}": t for n, t in template.items()}
        if named := [name for name in template if name != "default"]:
            values["tokenizer.chat_templates"] = named
    return values


def _specials(tokenizer: Tokenizer, settings: TokenizerSettings, model: str, notes: list[str]) -> dict[str, Any]:
    """Ids of special tokens, and what is added around a text."""
    values: dict[str, Any] = {}
    if tokenizer.bos_id is not None:
        values["bos_token_id"] = tokenizer.bos_id
    ids = {role: tokenizer.token_id(name) for role, name in settings.roles.items()}
    ends = _ends(tokenizer, settings, ids.get("eos_token"), notes)
    found = {"eos": None, **dict(zip(ENDS, ends, strict=False))}
    found |= {"unknown": ids.get("unk_token"), "padding": ids.get("pad_token")}
    found |= {"cls": ids.get("cls_token"), "seperator": ids.get("sep_token"), "mask": ids.get("mask_token")}
    values |= {f"{name}_token_id": token for name, token in found.items() if token is not None}
    around, plain = tokenizer.encode("a"), tokenizer.encode("a", add_special=False)
    values["add_bos_token"] = tokenizer.bos_id is not None and around[:1] == [tokenizer.bos_id]
    values["add_eos_token"] = bool(ends) and around[-1:] == ends[:1]
    known = around[:1] * values["add_bos_token"] + plain + around[-1:] * values["add_eos_token"]
    if model != "bert" and around != known:  # whose readers put [CLS] and [SEP] around a text
        notes.append("GGUF can say bos and eos only of what the tokenizer puts around a text")
    return values


def _ends(tokenizer: Tokenizer, settings: TokenizerSettings, eos: int | None, notes: list[str]) -> list[int]:
    """The ids that get one of GGUF's keys of ENDS, the end-of-text token first.

    Where there are more of them than keys, those that readers know by their names go without one.
    """
    told = [token for token in dict.fromkeys(settings.eos_ids) if token in tokenizer.eos_ids]
    if eos is None:
        eos = next(iter(told), None)
    named = {i for i in tokenizer.eos_ids if i in tokenizer.added and tokenizer.added[i].content in END_NAMES}
    further = [i for i in told if i != eos]
    further += sorted(tokenizer.eos_ids - named - {eos, *further})
    room = len(ENDS) - 1
    if len(further) > room:
        further.sort(key=lambda i: i in named)
        if lost := [i for i in further[room:] if i not in named]:
            which = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
            notes.append(f"GGUF has room for {len(ENDS)} tokens that end an answer: {which} will not end one any more")
    return ([] if eos is None else [eos]) + further[:room]


def _filled(pieces: dict[int, Piece], tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """Lists of `vocab_size` tokens and types, and scores: added tokens over the pieces, padding where nothing is."""
    for i, token in tokenizer.added.items():
        pieces[i] = (token.content, _ADDED_SCORE, CONTROL if token.special else USER_DEFINED)
    every = [pieces.get(i, (f"[PAD{i}]", _ADDED_SCORE, UNUSED)) for i in range(vocab_size)]
    texts, scores, types = zip(*every, strict=True)
    return {"tokens": list(texts), "scores": list(scores), "token_type": list(types)}


def _piece(written: dict[int, Any]) -> Piece:
    """A piece of a sentencepiece model, by its fields."""
    text, score, kind = _bytes(written.get(1, b"")), _bytes(written.get(2, bytes(4))), written.get(3, NORMAL)
    if len(score) != 4 or not isinstance(kind, int) or not NORMAL <= kind <= BYTE:
        raise TokenizerError("tokenizer.model has a piece without a score or a type: download the checkpoint's own")
    return text.decode(errors="replace"), struct.unpack("<f", score)[0], kind


def _bytes(payload: Any) -> bytes:
    """A field that must not be a number."""
    if not isinstance(payload, bytes):
        raise TokenizerError("tokenizer.model is damaged: download the checkpoint's own")
    return payload


def _from_sentencepiece(
    data: bytes, tokenizer: Tokenizer, settings: TokenizerSettings, vocab_size: int
) -> dict[str, Any]:
    pieces: dict[int, Piece] = {}
    prefix, remove, kind = True, True, 1  # what protobuf has where nothing is written
    for field, payload in fields(data):
        if field == 1:
            pieces[len(pieces)] = _piece(dict(fields(_bytes(payload))))
        elif field == 2:
            kind = dict(fields(_bytes(payload))).get(3, kind)
        elif field == 3:
            spaces = dict(fields(_bytes(payload)))
            prefix, remove = bool(spaces.get(3, True)), bool(spaces.get(4, True))
    if kind != _BPE:
        raise TokenizerError("tokenizer.model is no BPE model, which GGUF cannot hold: leave the tokenizer out")
    unknown = next((i for i, piece in pieces.items() if piece[2] == UNKNOWN), 0)
    values = {"model": "llama", "pre": "default", **_filled(pieces, tokenizer, vocab_size)}
    if unknown < vocab_size:
        values["token_type"][unknown] = UNKNOWN
    return values | {
        "add_space_prefix": prefix and settings.add_prefix_space,
        "remove_extra_whitespaces": remove,
    }


def _from_world(data: bytes, tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    pieces = {i: (escaped(piece), 0.0, NORMAL) for i, piece in read_vocabulary(data).items() if i < vocab_size}
    values = _filled(pieces, tokenizer, vocab_size)
    del values["scores"]
    return {"model": "rwkv", **values}


def _document(data: bytes) -> dict[str, Any]:
    """A tokenizer.json whose parts are objects. The library also takes lists of their values, which nobody writes."""
    try:
        document: dict[str, Any] = parse_json(data, _MOST_VALUES)
    except ValueError as error:
        raise TokenizerError(f"tokenizer.json cannot be read ({error}): leave the tokenizer out") from None
    model = document["model"]
    steps = [
        *_steps(document.get("normalizer"), "normalizers"),
        *_steps(document.get("pre_tokenizer"), "pretokenizers"),
    ]
    if not isinstance(model, dict) or not all(
        isinstance(one, dict) and isinstance(one.get("type"), str) for one in steps
    ):
        raise TokenizerError("tokenizer.json is written in a way of its own: leave the tokenizer out")
    return document


def _from_json(document: dict[str, Any], tokenizer: Tokenizer, vocab_size: int, notes: list[str]) -> dict[str, Any]:
    model = document["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "unknown")
    if kind == "WordPiece":
        return _from_wordpiece(document, tokenizer, vocab_size)
    if kind != "BPE":
        raise TokenizerError(f"tokenizer.json is of the kind {kind}, GGUF holds BPE: leave the tokenizer out")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenizerError(f"tokenizer.json has a {key}, which GGUF's BPE has not: leave the tokenizer out")
    vocab = {text: i for text, i in model["vocab"].items() if i < vocab_size}
    merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    merges = [pair for pair in merges if all(part in vocab for part in (*pair, "".join(pair)))]
    byte_level = model.get("byte_fallback") is not True
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    pieces: dict[int, Piece] = {
        i: (text, -float(ranks.get(text, len(merges))), _kind(text, byte_level)) for text, i in vocab.items()
    }
    values = _filled(pieces, tokenizer, vocab_size)
    if steps := _unusual_steps(document):
        notes.append(f"GGUF's readers do not change texts as tokenizer.json does ({', '.join(steps)})")
    if byte_level:
        del values["scores"]
        lines = [" ".join(pair) for pair in merges]
        return {"model": "gpt2", "pre": _pre_name(document, model), **values, "merges": lines}
    if (unknown := vocab.get(model.get("unk_token"))) is not None:
        values["token_type"][unknown] = UNKNOWN
    first = tokenizer.encode("a", add_special=False)[:1]
    spaced = bool(first) and tokenizer.piece_bytes(first[0]).startswith(b" ")
    return {"model": "llama", "pre": "default", **values, "add_space_prefix": spaced}


def _from_wordpiece(document: dict[str, Any], tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """GGUF marks beginnings of words, and its readers drop capitals and accents."""
    model, normalizer = document["model"], document.get("normalizer") or {}
    as_gguf = normalizer.get("type") == "BertNormalizer" and normalizer.get("lowercase") is True
    if not as_gguf or normalizer.get("strip_accents") is False or model.get("continuing_subword_prefix") != "##":
        raise TokenizerError("tokenizer.json keeps capitals or accents, which GGUF's WordPiece drops: leave it out")
    special = {token.content for token in tokenizer.added.values()}
    pieces: dict[int, Piece] = {}
    for text, i in model["vocab"].items():
        marked = text if text in special or text.startswith("[unused") else f"▁{text}"
        piece = text.removeprefix("##") if text.startswith("##") and len(text) > 2 else marked
        pieces[i] = (piece, 0.0, NORMAL)
    values = _filled(pieces, tokenizer, vocab_size)
    del values["scores"]
    return {"model": "bert", "pre": "default", **values}


def _kind(text: str, byte_level: bool) -> int:
    return BYTE if not byte_level and len(text) == 6 and text.startswith("<0x") and text.endswith(">") else NORMAL


def _steps(top: Any, parts: str) -> list[dict[str, Any]]:
    """A step of tokenizer.json, or those of a sequence, which has them under `parts`."""
    within = top.get(parts) if isinstance(top, dict) else None
    return within if isinstance(within, list) else [top] if top else []


def _unusual_steps(document: dict[str, Any]) -> list[str]:
    """What is done to a text that GGUF's readers do not do."""
    found = [
        step["type"]
        for step in _steps(document.get("normalizer"), "normalizers")
        if step["type"] not in _USUAL_STEPS and not (step["type"] == "Replace" and step.get("content") == "▁")
    ]
    cuts = _steps(document.get("pre_tokenizer"), "pretokenizers")
    if any(step["type"] == "ByteLevel" and step.get("add_prefix_space") for step in cuts):
        found.append("a space before it")
    return found


def _pre_name(document: dict[str, Any], model: dict[str, Any]) -> str:
    """The name of the pre-tokenizer that cuts a text as this one does."""
    patterns: list[str] = []
    for step in _steps(document.get("pre_tokenizer"), "pretokenizers"):
        kind = step.get("type")
        isolated = step.get("behavior") == "Isolated" and not step.get("invert")
        if kind == "Split" and isolated and "Regex" in step.get("pattern", {}):
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
